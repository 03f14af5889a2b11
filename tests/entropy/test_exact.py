"""Exact networks: one result, whatever adds the numbers up, and a proof that it stays so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latentpress.entropy.exact import Fixed, FixedConv2d, IntegerConv2d, leaky

SOURCE, TARGET = Fixed(frac=6, limit=2048), Fixed(frac=4, limit=16384)
SHAPES = {"1x1": (12, 8, 1, 1), "3x3": (8, 6, 3, 1), "grouped": (16, 8, 3, 4), "depthwise": (8, 8, 5, 8)}


def layer(shape: tuple[int, int, int, int], seed: int = 0, scale: float = 1.0) -> FixedConv2d:
    torch.manual_seed(seed)
    inputs, outputs, size, groups = shape
    conv = FixedConv2d(inputs, outputs, size, source=SOURCE, target=TARGET, groups=groups)
    with torch.no_grad():
        conv.weight.mul_(scale * 3)
        conv.bias.normal_()  # type: ignore[union-attr]
    return conv


def integers(channels: int, seed: int = 1, batch: int = 2) -> torch.Tensor:
    """Inputs over the whole range, extremes included, in units of the last place."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-SOURCE.limit, SOURCE.limit + 1, (batch, channels, 9, 11), generator=generator).float()
    return torch.where(torch.rand(x.shape, generator=generator) < 0.2, x.sign() * SOURCE.limit, x)


def by_integers(frozen: IntegerConv2d, x: torch.Tensor) -> torch.Tensor:
    """The definition, in int64."""
    weight, bias, fraction = (t.to(torch.int64) for t in frozen.integers)
    total = F.conv2d(x.to(torch.int64), weight, bias, padding=frozen.padding, groups=frozen.groups)
    shift = (fraction + frozen.source.frac - frozen.target.frac)[:, None, None]
    return ((total + (1 << (shift - 1))) >> shift).clamp(-frozen.target.limit, frozen.target.limit).float()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_float_carrier_gives_what_int64_gives(shape: tuple[int, int, int, int]) -> None:
    frozen, x = layer(shape).freeze(), integers(shape[0])
    expected = by_integers(frozen, x)
    assert expected.abs().max() > 100 and len(expected.unique()) > 50
    with torch.no_grad():
        assert torch.equal(frozen(x.clone()), expected)
        assert torch.equal(frozen(x.contiguous(memory_format=torch.channels_last)), expected)
        assert torch.equal(torch.cat([frozen(part) for part in x.split(1)]), expected)
        with torch.backends.mkldnn.flags(enabled=False):
            assert torch.equal(frozen(x.clone()), expected)
        torch.set_num_threads(2)
        assert torch.equal(frozen(x.clone()), expected)
        torch.set_num_threads(1)
        assert torch.equal(frozen.double()(x.double()).float(), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_training_through_the_integers_computes_the_frozen_layer(shape: tuple[int, int, int, int]) -> None:
    conv, x = layer(shape), integers(shape[0])
    frozen = conv.freeze()
    conv.through = True
    real = (x / 2**SOURCE.frac).requires_grad_()
    out = conv(real)
    assert torch.equal(out.detach() * 2**TARGET.frac, by_integers(frozen, x))
    out.sum().backward()
    assert conv.weight.grad is not None and float(conv.weight.grad.abs().sum()) > 0 and real.grad is not None


def test_freezing_loses_little() -> None:
    conv, x = layer(SHAPES["1x1"]), integers(12)
    with torch.no_grad():
        exact = conv(x / 2**SOURCE.frac)
        assert float((conv.freeze()(x) / 2**TARGET.frac - exact).abs().max()) < 0.2  # of outputs up to some hundreds


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_the_bound_is_proven_for_small_and_large_weights(scale: float) -> None:
    frozen = layer(SHAPES["3x3"], scale=scale).freeze()
    weight, bias, _ = (t.double() for t in frozen.integers)
    assert float((weight.abs().sum((1, 2, 3)) * SOURCE.limit + bias.abs()).max()) < 2**24


def test_weights_that_could_overflow_the_carrier_are_refused() -> None:
    frozen = layer(SHAPES["1x1"]).freeze()
    weight, bias, fraction = frozen.integers
    with pytest.raises(ValueError, match="sums may reach"):
        IntegerConv2d(weight=weight * 4, bias=bias, fraction=fraction, source=SOURCE, target=TARGET)
    with pytest.raises(ValueError, match="no bit is left"):
        IntegerConv2d(weight=weight, bias=bias, fraction=torch.full_like(fraction, -2), source=SOURCE, target=TARGET)


def test_what_the_bound_forbids_really_goes_wrong() -> None:
    """Without the bound float32 rounds: the proof is needed."""
    weight = torch.full((1, 4096, 1, 1), 4095.0)
    x = torch.from_numpy(np.random.default_rng(0).integers(-2048, 2049, (1, 4096, 1, 1))).float()
    x[:, ::2] = 2047
    exact = F.conv2d(x.to(torch.int64), weight.to(torch.int64))
    assert F.conv2d(x, weight).to(torch.int64).item() != exact.item()


def test_leaky_floors_to_integers() -> None:
    x = torch.arange(-40, 41).float()
    assert torch.equal(leaky(x), torch.where(x >= 0, x, torch.floor(x / 8)))
    assert torch.equal(leaky(x / 64, 6) * 64, leaky(x))
