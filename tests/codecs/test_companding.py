"""Constants, inversion and range of the compander."""

import math

import pytest
import torch

from latentpress.codecs.companding import CLIP, Compander


def test_constants_are_those_of_the_released_code():
    c = Compander(8)
    assert (c.peak, c.scale, c.top) == (127, 127 / 1.85, 127.499)


def test_the_law_is_the_gaussian_one():
    c, x = Compander(8), torch.linspace(-300, 300, 101, dtype=torch.float64)
    law = torch.distributions.Normal(0.0, c.scale)
    assert torch.allclose(c.to_uniform(x), 2 * c.top * (law.cdf(x) - 0.5), atol=1e-9)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_inversion(bits):
    c = Compander(bits)
    x = torch.linspace(-3.6, 3.6, 301, dtype=torch.float64) * c.scale
    assert torch.allclose(c.to_normal(c.to_uniform(x)), x, atol=1e-6 * c.scale)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_integers_stay_in_range(bits):
    c = Compander(bits)
    far = torch.tensor([-1e9, -5 * c.scale, 0.0, 5 * c.scale, 1e9])
    q = c.quantise(c.to_uniform(far), training=False)
    assert q.tolist() == [-c.peak, -c.peak, 0, c.peak, c.peak]
    back = c.to_normal(torch.tensor([-c.peak, c.peak, 1e6, -1e6]))
    assert back.isfinite().all() and back.abs().max() <= c.scale * 3.7191
    assert math.isclose(back[2].item(), c.scale * torch.special.ndtri(torch.tensor(1 - CLIP)).item(), rel_tol=1e-6)


def test_every_integer_comes_back():
    c = Compander(8)
    q = torch.arange(-c.peak, c.peak + 1, dtype=torch.float64)
    inner = q[abs(q) <= c.peak]
    assert torch.equal(torch.round(c.to_uniform(c.to_normal(inner))), inner)


def test_noise_in_training_is_half_a_step_at_most():
    noise = Compander(8).quantise(torch.zeros(10_000), training=True)
    assert noise.abs().max() <= 0.5 and abs(noise.var().item() - 1 / 12) < 0.01


@pytest.mark.parametrize("bits", [1, 9, -3])
def test_other_widths_are_refused(bits):
    with pytest.raises(ValueError, match="2 to 8"):
        Compander(bits)
