"""What was lost of a gridded field, point by point. Arrays [..., y, x], float32 or float64, NaN where points are missing.

Differences are taken in float64, which holds those of float32 values of similar size exactly; `exceedances` is exact always.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError

Array = NDArray[Any]
SPATIAL_TOLERANCE = 1e-4  # relative error from which on a point counts (Baker et al. 2014 and the tools that follow them)


def check_fields(metric: str, reference: Array, decoded: Array) -> None:
    """Raises InputError unless both are float32 or both float64, of one shape [..., y, x], with points in them."""
    for array in (reference, decoded):
        if array.dtype not in (np.float32, np.float64) or array.ndim < 2 or array.size == 0:
            raise InputError(f"{metric} of {array.dtype}{array.shape}: float32 or float64 [..., y, x] expected")
    if reference.shape != decoded.shape or reference.dtype != decoded.dtype:
        raise InputError(f"{metric} of {reference.dtype}{reference.shape} and {decoded.dtype}{decoded.shape}: shape and dtype must agree")


def known_points(metric: str, reference: Array, decoded: Array) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Reference and decoded in float64, and where both are finite. Raises InputError as `check_fields` does."""
    check_fields(metric, reference, decoded)
    known = np.isfinite(reference) & np.isfinite(decoded)
    if not known.any():
        raise InputError(f"{metric} of fields without a common point")
    return reference.astype(np.float64), decoded.astype(np.float64), known


def weights(shape: tuple[int, ...], latitude: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """cos(latitude) of each point of [..., y, x], ones without latitudes (degrees, [y]); the poles have weight 0."""
    if latitude is None:
        return np.ones(shape)
    if latitude.shape != shape[-2:-1]:
        raise InputError(f"{latitude.shape} latitudes for rows of {shape}")
    return np.broadcast_to(np.cos(np.radians(latitude)).clip(0)[:, None], shape)


def rmse(reference: Array, decoded: Array, latitude: NDArray[np.float64] | None = None) -> float:
    """Root of the mean squared error, points weighted by the area that they stand for, in the field's unit."""
    a, b, known = known_points("rmse", reference, decoded)
    w = weights(reference.shape, latitude)[known]
    return math.sqrt(float(np.sum(w * (a[known] - b[known]) ** 2) / np.sum(w)))


def normalised_mse(reference: Array, decoded: Array) -> float:
    """Mean squared error over the variance of the reference, every point alike."""
    a, b, known = known_points("normalised_mse", reference, decoded)
    variance = float(np.var(a[known]))
    error = float(np.mean((a[known] - b[known]) ** 2))
    return error / variance if variance else (math.inf if error else 0.0)


def max_abs(reference: Array, decoded: Array) -> float:
    a, b, known = known_points("max_abs", reference, decoded)
    return float(np.abs(a[known] - b[known]).max())


def max_rel(reference: Array, decoded: Array) -> float:
    """Largest |decoded - reference| / |reference|; inf where a zero did not stay zero."""
    return float(_relative("max_rel", reference, decoded).max())


def spatial_relative_error(reference: Array, decoded: Array, tolerance: float = SPATIAL_TOLERANCE) -> float:
    """Share of points, 0 to 1, whose relative error is above `tolerance`."""
    return float(np.mean(_relative("spatial_relative_error", reference, decoded) > tolerance))


def _relative(metric: str, reference: Array, decoded: Array) -> NDArray[np.float64]:
    a, b, known = known_points(metric, reference, decoded)
    error, size = np.abs(a[known] - b[known]), np.abs(a[known])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / size)


def r2(reference: Array, decoded: Array) -> float:
    """Coefficient of determination: 1 - normalised MSE."""
    return 1 - normalised_mse(reference, decoded)


def exceedances(reference: Array, decoded: Array, bound: float | NDArray[np.float64]) -> int:
    """How many points differ by more than `bound` (a number, or one for each point), exactly: no rounding forgives or invents one.

    A missing point that is not missing in the other counts, and so does an infinity that did not stay the same.
    The difference d of two floats rounds to fl(d). fl(d) > bound means d > bound, as the bound is a float; fl(d) = bound leaves open on which
    side d lies, which the rest of the rounding, itself a float, tells (Knuth, The Art of Computer Programming 2, 4.2.2, theorem B).
    """
    check_fields("exceedances", reference, decoded)
    a, b = reference.astype(np.float64), decoded.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    d = a - b
    part = d - a
    rest = (a - (d - part)) - (b + part)
    over = (np.abs(d) > bound) | ((np.abs(d) == bound) & (rest * np.sign(d) > 0))
    return int(np.count_nonzero(np.where(finite, over, ~same)))


def mask_errors(reference: Array, decoded: Array) -> int:
    """How many points are missing in one and not in the other."""
    check_fields("mask_errors", reference, decoded)
    return int(np.count_nonzero(np.isnan(reference) != np.isnan(decoded)))


def changed(reference: Array, decoded: Array) -> int:
    """How many samples do not have the same bits: what lossless must keep at 0. -0.0 is not 0.0, and NaN keep their payload."""
    check_fields("changed", reference, decoded)
    bits = np.dtype(f"u{reference.dtype.itemsize}")
    return int(np.count_nonzero(np.ascontiguousarray(reference).view(bits) != np.ascontiguousarray(decoded).view(bits)))
