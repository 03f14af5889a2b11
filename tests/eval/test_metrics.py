import math

import numpy as np
import pytest

from latentpress.errors import InputError
from latentpress.eval.metrics import bits_per_pixel, psnr


def test_psnr_of_a_known_error():
    black, grey = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 5, np.uint8)
    assert psnr(black, grey) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(grey, black) == psnr(black, grey)  # no wrap-around of unsigned numbers


def test_psnr_averages_over_all_samples_of_all_bands():
    reference = np.zeros((2, 2, 3), np.uint8)
    decoded = reference.copy()
    decoded[0, 0, 0] = 12
    assert psnr(reference, decoded) == pytest.approx(10 * math.log10(255**2 / (144 / 12)))


def test_psnr_of_16_bits_needs_its_own_peak():
    a, b = np.zeros((3, 3), np.uint16), np.full((3, 3), 65535, np.uint16)
    assert psnr(a, b, peak=65535) == pytest.approx(0)
    assert psnr(a, b) == pytest.approx(20 * math.log10(255 / 65535))


def test_psnr_of_identical_arrays_is_infinite():
    a = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert psnr(a, a.copy()) == math.inf


@pytest.mark.parametrize(
    "a, b",
    [
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint16)),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)),
        (np.zeros((0, 2), np.uint8), np.zeros((0, 2), np.uint8)),
    ],
)
def test_psnr_refuses_what_it_would_have_to_guess(a, b):
    with pytest.raises(InputError, match="psnr"):
        psnr(a, b)


def test_bits_per_pixel_counts_pixels_not_samples():
    assert bits_per_pixel(1000, (10, 20, 3)) == 40
    assert bits_per_pixel(1000, (10, 20)) == 40
    with pytest.raises(InputError, match="shape"):
        bits_per_pixel(1000, (10,))
    with pytest.raises(InputError, match="shape"):
        bits_per_pixel(1000, (0, 4))
