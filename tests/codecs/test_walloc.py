"""Shapes, parameter counts against the released models, the linear start, refusals."""

import pytest
import torch

from latentpress.codecs.walloc import LightDecoder, WallocConfig, WallocModel


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_paper_model_has_the_parameters_of_the_released_one():
    with torch.device("meta"):
        model = WallocModel(WallocConfig(latents=16, decoder="paper", width=768, blocks=2))
    assert parameters(model) == 56_914_384  # 56.9 M in the released training notebook


def test_the_encoder_of_rgb_16x_is_2316_weights():
    assert parameters(WallocModel(WallocConfig(latents=12)).encoder) == 2316


@pytest.mark.parametrize(
    "config",
    [
        WallocConfig(latents=5, width=16, blocks=2),
        WallocConfig(latents=4, decoder="paper", width=32, blocks=2),
        WallocConfig(latents=6, axes=1, channels=2, levels=4, width=16, blocks=1),
    ],
    ids=lambda c: f"{c.decoder}-{c.axes}",
)
def test_shapes_and_range(config):
    torch.manual_seed(1)
    model = WallocModel(config).eval()
    size = (19, 33)[: config.axes]
    x = torch.rand(2, config.channels, *size) - 0.5
    integers = model.encode(x)
    assert integers.shape == (2, config.latents, *[-(-n // 2**config.levels) for n in size])
    assert torch.equal(integers, integers.round()) and integers.abs().max() <= 127
    back = model.decode(integers, size)
    assert back.shape == x.shape and back.abs().max() <= 0.5
    assert torch.allclose(model(x), back, atol=1e-6)
    model.train()
    model.loss(x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_light_decoder_starts_as_the_linear_inverse():
    torch.manual_seed(1)
    config = WallocConfig(channels=1, levels=2, latents=16, width=24, blocks=2)
    model = WallocModel(config).eval()
    samples = torch.randn(4000, 16) @ torch.randn(16, 16)
    model.start_from(samples)
    bands = samples[:144].T.reshape(1, 16, 12, 12)
    error = (model.forward_bands(bands) - bands).pow(2).mean()
    assert error < 3e-3 * bands.pow(2).mean()  # all 16 components are kept: what is left is rounding, clipping and the blocks' small start


def test_the_transform_can_be_another_one():
    fold = dict(
        analysis=lambda x, levels: torch.nn.functional.pixel_unshuffle(x, 2**levels),
        synthesis=lambda bands, levels, size: torch.nn.functional.pixel_shuffle(bands, 2**levels),
    )
    model = WallocModel(WallocConfig(latents=4, width=8, blocks=1), **fold)
    assert model(torch.zeros(1, 3, 16, 24)).shape == (1, 3, 16, 24)


def test_latents_must_fit_the_width():
    with pytest.raises(ValueError, match="at least 12"):
        LightDecoder(WallocConfig(latents=12, width=8)).start_linear(torch.zeros(192, 12), torch.zeros(192))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(decoder="heavy"), dict(bits=9), dict(levels=0), dict(axes=3), dict(latents=0),
        dict(decoder="paper", axes=1), dict(decoder="paper", width=100),
    ],
    ids=str,
)
def test_unknown_values_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected|paper"):
        WallocConfig(**wrong)
