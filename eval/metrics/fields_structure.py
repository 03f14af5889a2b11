"""What was lost of the structure of a gridded field: similarity of windows, power spectrum, gradients. Arrays as in fields_points.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import UnsupportedError
from latentpress.eval.metrics.fields_points import check_fields, known_points

Array = NDArray[Any]
SIDE, SIGMA = 11, 1.5  # of the Gaussian window
STEPS = 255
STABILISER = 1e-8  # C1 and C2


def dssim(reference: Array, decoded: Array) -> float:
    """Data SSIM, at most 1, of the worst plane: SSIM of floating-point fields, no picture drawn.

    Both planes are scaled to 0 .. 1 by their common range and rounded to 256 levels; windows are Gaussian, 11 x 11; windows that leave the plane
    do not count, missing points have no weight. Baker, Pinard, Hammerling, "On a structural similarity index approach for floating-point data",
    IEEE TVCG 2023, section 4.
    Raises UnsupportedError for planes of less than 11 rows or columns.
    """
    check_fields("dssim", reference, decoded)
    if min(reference.shape[-2:]) < SIDE:
        raise UnsupportedError(f"dssim of planes of {reference.shape[-2:]}: at least {SIDE} x {SIDE} expected")
    values = [_plane_dssim(reference[i], decoded[i]) for i in np.ndindex(reference.shape[:-2])]
    found = [v for v in values if not math.isnan(v)]
    if not found:
        raise UnsupportedError("dssim of fields without a point")
    return min(found)


def _plane_dssim(reference: Array, decoded: Array) -> float:
    known = np.isfinite(reference) & np.isfinite(decoded)
    a, b = np.where(known, reference, np.nan).astype(np.float64), np.where(known, decoded, np.nan).astype(np.float64)
    if not known.any():
        return math.nan
    low, high = min(np.nanmin(a), np.nanmin(b)), max(np.nanmax(a), np.nanmax(b))
    if low == high:
        return 1.0
    a, b = (np.where(known, np.round((x - low) / (high - low) * STEPS) / STEPS, 0.0) for x in (a, b))
    total = _smooth(known.astype(np.float64))
    edge = SIDE // 2
    inside = known[edge:-edge, edge:-edge]
    if not inside.any():
        return math.nan
    total = np.where(inside, total, 1.0)
    mean_a, mean_b, square_a, square_b, product = (_smooth(x) / total for x in (a, b, a * a, b * b, a * b))
    variance_a, variance_b, covariance = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + STABILISER) / (mean_a**2 + mean_b**2 + STABILISER)
    structure = (2 * covariance + STABILISER) / (variance_a + variance_b + STABILISER)
    return float(np.mean((luminance * structure)[inside]))


def _smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean over windows that lie wholly in the plane."""
    kernel = np.exp(-(np.arange(SIDE, dtype=np.float64) - SIDE // 2) ** 2 / (2 * SIGMA**2))
    kernel /= kernel.sum()
    height, width = x.shape[0] - SIDE + 1, x.shape[1] - SIDE + 1
    rows = sum(k * x[i : i + height] for i, k in enumerate(kernel))
    return np.asarray(sum(k * rows[:, i : i + width] for i, k in enumerate(kernel)))  # type: ignore[index]


def spectrum(data: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Isotropic power spectrum of [..., y, x]: wavenumbers in cycles a grid step (0 to .5) and mean power of each annulus, summed over planes.

    Missing points get the plane's mean, which is then subtracted; a Hann window keeps the planes' edges from leaking into all wavenumbers.
    """
    height, width = data.shape[-2:]
    count = max(1, min(height, width) // 2)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.minimum((radius * 2 * count).astype(np.int64), count)  # the last one, beyond .5, is dropped
    double = np.full(width // 2 + 1, 2.0)  # columns of the half plane stand for two
    double[0] = 1.0
    if width % 2 == 0:
        double[-1] = 1.0
    twice = np.broadcast_to(double, radius.shape)
    window = _hann(height)[:, None] * _hann(width)
    power = np.zeros(count + 1)
    for i in np.ndindex(data.shape[:-2]):
        plane = data[i].astype(np.float64)
        known = np.isfinite(plane)
        centred = np.where(known, plane - (plane[known].mean() if known.any() else 0.0), 0.0)
        power += np.bincount(ring.ravel(), (twice * np.abs(np.fft.rfft2(centred * window)) ** 2).ravel(), count + 1)
    points = np.bincount(ring.ravel(), twice.ravel(), count + 1)
    return (np.arange(count) + 0.5) / (2 * count), (power / np.maximum(points, 1))[:count]


def _hann(n: int) -> NDArray[np.float64]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n))


def spectrum_ratio(reference: Array, decoded: Array) -> float:
    """Power of decoded over that of reference in the finest octave, wavelengths of 2 to 4 grid steps; 1 where detail is neither lost nor made."""
    known_points("spectrum_ratio", reference, decoded)
    wave, a = spectrum(reference)
    b = spectrum(decoded)[1]
    fine = wave >= 0.25
    if not a[fine].sum() > 0:
        raise UnsupportedError("spectrum_ratio of a field without detail")
    return float(b[fine].sum() / a[fine].sum())


def gradient_error(reference: Array, decoded: Array) -> float:
    """Root mean square error of the differences of neighbours along x and y, over the root mean square of the reference's."""
    a, b, known = known_points("gradient_error", reference, decoded)
    error = size = 0.0
    a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)
    for axis in (-1, -2):
        both = _pairs(known, axis)
        of_a, of_b = np.diff(a, axis=axis)[both], np.diff(b, axis=axis)[both]
        error, size = error + float(np.sum((of_b - of_a) ** 2)), size + float(np.sum(of_a**2))
    if size == 0:
        raise UnsupportedError("gradient_error of a constant field")
    return math.sqrt(error / size)


def _pairs(known: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    first, second = np.take(known, range(known.shape[axis] - 1), axis), np.take(known, range(1, known.shape[axis]), axis)
    return first & second
