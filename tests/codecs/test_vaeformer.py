"""VAEformer as published: sizes, windows, training of a tiny one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from latentpress.codecs.attention import Window
from latentpress.codecs.vaeformer import PUBLISHED_PARAMETERS, VAEformer, VAEformerConfig, kl, sines

TINY = VAEformerConfig(
    channels=3, size=(81, 160), width=16, heads=2, encoder_blocks=2, decoder_blocks=3, windows=((4, 4), (2, 8), (8, 2)), latents=8, hyper_width=20,
    hyper_blocks=2, hyper=8,
)  # fmt: skip


def test_the_paper_has_405_million_parameters_and_so_do_we() -> None:
    """404 681 248; the rest of the published figure is rounding and what CompressAI's bottleneck keeps beside its density (768 quantiles)."""
    with torch.device("meta"):
        model = VAEformer()
    count = sum(p.numel() for p in model.parameters())
    assert count == 404_681_248
    assert round(count / 1e6) == round(PUBLISHED_PARAMETERS / 1e6)


def test_a_whole_state_of_era5_goes_through_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = VAEformer()
        out = model(torch.empty(1, 268, 721, 1440))
    assert model.config.grid == (72, 144)
    assert out.decoded.shape == (1, 268, 721, 1440) and out.mean.shape == out.log_variance.shape == (1, 256, 72, 144)


def test_windows_come_in_turn_with_full_attention_every_fourth_block() -> None:
    config = VAEformerConfig()
    turn = [Window(height=24, width=24), Window(height=12, width=48), Window(height=48, width=12), Window()]
    assert [config.window_at(i) for i in range(24)] == turn * 6
    with torch.device("meta"):
        model = VAEformer()
    assert model.mean.window == model.log_variance.window == Window()
    assert [b.window for b in model.decoder] == turn * 3


def test_a_tiny_one_learns_in_both_phases() -> None:
    torch.manual_seed(0)
    model = VAEformer(TINY)
    x = torch.nn.functional.interpolate(torch.randn(2, 3, 6, 10), TINY.size, mode="bicubic")
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3)
    for sampled in (True, False):
        costs = []
        for _ in range(12):
            loss = model.loss(x, 100.0, sampled=sampled)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            costs.append(float(loss.detach()))
        assert costs[-1] < 0.9 * costs[0]
    assert all(p.grad is not None for p in model.parameters())


def test_bits_of_rounded_symbols_repeat() -> None:
    torch.manual_seed(0)
    model = VAEformer(TINY).eval()
    x = torch.randn(1, 3, *TINY.size)
    with torch.no_grad():
        first, second = model(x, rounded=True), model(x, rounded=True)
    assert torch.equal(first.bits_y, second.bits_y) and torch.equal(first.decoded, second.decoded) and float(first.bits_y) > 0


def test_divergence_is_zero_for_the_prior_itself() -> None:
    zero = torch.zeros(2, 3, 4, 4)
    assert kl(zero, zero).tolist() == [0, 0]
    assert kl(zero + 1, zero).tolist() == [24, 24]


def test_positions_are_all_different() -> None:
    table = sines((18, 36), 360).flatten(0, 1)
    assert table.shape == (648, 360) and len(table.unique(dim=0)) == 648


@pytest.mark.parametrize("bad", [{"size": (720, 1440)}, {"hyper_patch": 5}])
def test_sizes_that_do_not_fit_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"size=|hyper_patch="):
        dataclasses.replace(VAEformerConfig(), **bad)
