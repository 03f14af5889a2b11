"""Rate and distortion of one image, as pure functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError


def psnr(reference: NDArray[Any], decoded: NDArray[Any], peak: float = 255) -> float:
    """Peak signal-to-noise ratio in dB; the squared error is averaged over all samples of all bands.

    Shapes  reference, decoded  equal, any; both uint8 or both uint16, kept as integers until the difference is taken
    Gives   10 log10(peak^2 / MSE), inf where both are identical
    Raises  InputError where shape or dtype differ (no broadcasting, no silent cast) or there are no samples
    """
    if reference.shape != decoded.shape or reference.dtype != decoded.dtype:
        raise InputError(f"psnr of {reference.dtype}{reference.shape} and {decoded.dtype}{decoded.shape}: shape and dtype must agree")
    if reference.dtype not in (np.uint8, np.uint16):
        raise InputError(f"psnr of dtype {reference.dtype}: uint8 or uint16 expected")
    if reference.size == 0:
        raise InputError("psnr of an empty array")
    difference = reference.astype(np.int64) - decoded.astype(np.int64)
    squares = int(np.sum(difference * difference))
    return math.inf if squares == 0 else 10 * math.log10(peak**2 * reference.size / squares)


def bits_per_pixel(size: int, shape: tuple[int, ...]) -> float:
    """Bits of a file of `size` bytes for each pixel of an image [height, width, ...]; bands do not count."""
    if len(shape) < 2 or shape[0] < 1 or shape[1] < 1:
        raise InputError(f"bits_per_pixel of shape {shape!r}: [height, width, ...] expected, both at least 1")
    return 8 * size / (shape[0] * shape[1])
