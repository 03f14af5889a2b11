"""The transform against PyWavelets, coefficient by coefficient, and against itself."""

from itertools import product

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs import wavelet


def reference(x: np.ndarray, levels: int) -> np.ndarray:
    """[bands, *size / 2**levels] by PyWavelets, in our band order: first level slowest, a h v d."""
    kind, letters = (pywt.WaveletPacket, "ad") if x.ndim == 1 else (pywt.WaveletPacket2D, "ahvd")
    packet = kind(x, "bior4.4", mode="periodization", maxlevel=levels)
    return np.stack([packet["".join(path)].data for path in product(letters, repeat=levels)])


def pad(x: np.ndarray, levels: int) -> np.ndarray:
    return np.pad(x, [(0, full - n) for full, n in zip(wavelet.padded_size(x.shape, levels), x.shape, strict=True)], mode="edge")


@pytest.mark.filterwarnings("ignore:Level value")
@settings(deadline=None, max_examples=60)
@given(size=st.lists(st.integers(1, 70), min_size=1, max_size=2), levels=st.integers(1, 3), seed=st.integers(0, 99))
def test_coefficients_are_those_of_pywavelets(size, levels, seed):
    x = np.random.default_rng(seed).normal(size=size)
    ours = wavelet.analysis(torch.from_numpy(x)[None, None], levels)[0]
    np.testing.assert_allclose(ours.numpy(), reference(pad(x, levels), levels), atol=1e-10)


@settings(deadline=None, max_examples=60)
@given(size=st.lists(st.integers(1, 70), min_size=1, max_size=2), levels=st.integers(1, 3), channels=st.integers(1, 3))
def test_synthesis_inverts_analysis(size, levels, channels):
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))
    bands = wavelet.analysis(x, levels)
    assert bands.shape == (2, channels * 2 ** (levels * len(size)), *[-(-n // 2**levels) for n in size])
    assert torch.allclose(wavelet.synthesis(bands, levels, size), x, atol=2e-6 * 4**levels)


def test_channels_do_not_mix():
    x = torch.randn(1, 3, 16, 24)
    apart = torch.cat([wavelet.analysis(x[:, c : c + 1], 2) for c in range(3)], 1)
    assert torch.equal(wavelet.analysis(x, 2), apart)


def test_three_axes_are_split_too():
    x = torch.randn(1, 1, 4, 6, 9)
    assert wavelet.analysis(x, 1).shape == (1, 8, 2, 3, 5)
    assert torch.allclose(wavelet.synthesis(wavelet.analysis(x, 1), 1, (4, 6, 9)), x, atol=1e-5)


def test_gradients_flow_through_both():
    x = torch.randn(1, 1, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: wavelet.synthesis(wavelet.analysis(v, 2) ** 2, 2, (5, 8)), x)


def test_a_constant_goes_to_the_low_band_alone():
    bands = wavelet.analysis(torch.ones(1, 1, 16, 16, dtype=torch.float64), 3)[0]
    assert torch.allclose(bands[0], torch.full((2, 2), 8.0, dtype=torch.float64))
    assert bands[1:].abs().max() < 1e-12


def test_a_wrong_size_is_refused():
    with pytest.raises(ValueError, match="expected 2"):
        wavelet.synthesis(torch.zeros(1, 4, 2, 2), 1, (4,))
