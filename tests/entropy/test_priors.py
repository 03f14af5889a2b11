"""Priors: what training counts is what files cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentpress.entropy.coder import Encoder
from latentpress.entropy.hyperprior import LEVEL_STEPS, FrozenHyperprior, Hyperprior, HyperpriorConfig, gather, scatter
from latentpress.entropy.priors import CategoricalPrior, FactorizedPrior, GaussianConditional
from latentpress.errors import FormatError


def coded_bits(symbols: np.ndarray, rows: np.ndarray, tables: object) -> int:
    encoder = Encoder()
    encoder.push(symbols.astype(np.int32), rows, tables)  # type: ignore[arg-type]
    return 8 * len(encoder.finish())


def test_factorized_estimate_and_bytes_agree() -> None:
    torch.manual_seed(0)
    prior = FactorizedPrior(6)
    z = torch.round(torch.randn(1, 6, 100, 100) * torch.tensor([0.3, 1.0, 2.0, 4.0, 8.0, 3.0])[None, :, None, None])
    optimiser = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        (prior(z + torch.rand_like(z) - 0.5).sum() / z.numel()).backward()
        optimiser.step()
    estimate = float(prior(z).sum().detach())
    assert estimate > 8 * 10_000
    symbols, rows = z[0].permute(1, 2, 0).reshape(-1).numpy(), np.tile(np.arange(6), 10_000)
    assert coded_bits(symbols, rows, prior.freeze()) == pytest.approx(estimate, rel=0.01)


def test_gaussian_estimate_and_bytes_agree() -> None:
    torch.manual_seed(1)
    log_scale = torch.rand(60_000) * 5 - 2
    index = torch.round(log_scale * 8)
    residual = torch.round(torch.randn(60_000) * torch.exp(index / 8))
    estimate = float(GaussianConditional.bits(residual, index / 8).sum())
    assert estimate > 8 * 10_000
    rows = (index - GaussianConditional.first).long().numpy()
    assert coded_bits(residual.numpy(), rows, GaussianConditional.freeze()) == pytest.approx(estimate, rel=0.01)


def test_categorical_estimate_and_bytes_agree() -> None:
    torch.manual_seed(2)
    prior = CategoricalPrior(5, 9, low=-4)
    with torch.no_grad():
        prior.logits.normal_(std=2)
    rows = torch.randint(0, 5, (60_000,))
    symbols = torch.multinomial(torch.softmax(prior.logits.detach()[rows], 1), 1)[:, 0] - 4
    estimate = float(prior(symbols, rows).sum().detach())
    assert estimate > 8 * 10_000
    assert coded_bits(symbols.numpy(), rows.numpy(), prior.freeze()) == pytest.approx(estimate, rel=0.01)


def test_the_four_steps_visit_every_element_once() -> None:
    y = torch.arange(8 * 4 * 6).float().view(1, 8, 4, 6)
    again = torch.zeros_like(y)
    for step in range(4):
        scatter(again, gather(y, step), step)
    assert torch.equal(again, y)
    # each 2x2 patch gives one position to each channel group
    first = scatter(torch.zeros_like(y), torch.ones(1, 8, 2, 3), 0)
    assert (first[0].view(4, 2, 2, 2, 3, 2).sum((0, 1, 3, 5)) == 2 * 4).all()
    assert (first.sum(1) == 2).all()


@pytest.fixture(scope="module")
def prior() -> Hyperprior:
    torch.manual_seed(3)
    prior = Hyperprior(HyperpriorConfig(latents=16, hyper=8, hidden=16, context=16, levels=3))
    with torch.no_grad():
        prior.network.level_bias.normal_()
        for layer in prior.network.out:
            layer.weight.mul_(3)
    prior.network.set_through(True)
    return prior.eval().requires_grad_(False)


def freeze(prior: Hyperprior, skip: int) -> FrozenHyperprior:
    return FrozenHyperprior(
        analysis=prior.analysis, network=prior.network.freeze(), z_tables=prior.factorized.freeze(),
        y_tables=GaussianConditional.freeze(), skip=skip,
    )  # fmt: skip


@pytest.fixture(scope="module")
def frozen(prior: Hyperprior) -> FrozenHyperprior:
    return freeze(prior, 1)


LATENTS = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(4)) * 3


@pytest.mark.parametrize("level", [0, 1, 100, 128, 255, 256])
def test_latents_go_through_bytes_and_symbols_come_back(frozen: FrozenHyperprior, level: int) -> None:
    symbols, rows, known = frozen.symbols(LATENTS, level)
    blob = frozen.pack(symbols, rows)
    flat, decoded = frozen.unpack(blob, (8, 12), level)
    assert torch.equal(decoded, known) and np.array_equal(flat, np.concatenate(symbols))
    assert frozen.repack(flat, (8, 12), level) == blob
    assert 8 * len(blob) == pytest.approx(frozen.bits(symbols, rows), rel=1e-3, abs=96)
    with pytest.raises(ValueError, match="symbols given"):
        frozen.repack(np.append(flat, 0).astype(np.int32), (8, 12), level)


def test_training_through_the_integers_sees_the_frozen_latents(prior: Hyperprior) -> None:
    """Where nothing is skipped, to the last bit."""
    frozen = freeze(prior, 0)
    for level in (0, 128, 256):
        expected, bits_y, bits_z = prior(LATENTS, torch.tensor([level / LEVEL_STEPS]), rounded=True)
        symbols, rows, known = frozen.symbols(LATENTS, level)
        assert torch.equal(known / 16, expected)
        assert frozen.bits(symbols, rows) == pytest.approx(float(bits_y + bits_z), rel=0.02)


def test_latents_of_any_size_are_within_half_a_step(frozen: FrozenHyperprior) -> None:
    _, rows, known = frozen.symbols(LATENTS, 128)
    error = (known / 16 - LATENTS).abs()
    assert float(error.median()) < 0.5 and sum(len(r) for r in rows[1:]) <= LATENTS.numel()


def test_levels_outside_the_tables_are_refused(frozen: FrozenHyperprior) -> None:
    for level in (-1, 257):
        with pytest.raises(FormatError, match="outside"):
            frozen.bias(level)
    table = frozen.network.level_bias.numpy().astype(np.int64)
    assert np.array_equal(frozen.bias(256).flatten().numpy(), table[2])
    assert np.array_equal(frozen.bias(64).flatten().numpy(), (table[0] * 64 + table[1] * 64 + 64) // 128)


def test_damaged_bytes_are_refused_or_give_latents(frozen: FrozenHyperprior) -> None:
    blob = frozen.pack(*frozen.symbols(LATENTS, 128)[:2])
    refused = 0
    for position in range(0, len(blob), 3):
        bad = bytearray(blob)
        bad[position] ^= 0x55
        try:
            frozen.unpack(bytes(bad), (8, 12), 128)
        except FormatError:
            refused += 1
    assert refused > 0.9 * (len(blob) / 3)
