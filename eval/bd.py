"""Bjontegaard deltas of two rate-distortion curves: PCHIP or Akima in log rate, over what both curves cover.

    BD-rate   mean over the common *quality* range of log(rate), test against anchor, as a percentage: -10 = a tenth fewer bytes
    BD-PSNR   mean over the common *log rate* range of quality, test minus anchor, in dB

A delta means nothing without the range it was taken over, so `Delta` carries it, and curves that share no range are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError

METHOD = "PCHIP over log rate, integrated over the common range"
Method = Literal["pchip", "akima"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Operating points of one codec, any order: rate (bits per pixel, > 0) and quality (dB), one number each a point.

    unit: of the quality, for messages; any scale that grows with quality will do (MS-SSIM in dB, a distance with its sign turned).
    """

    name: str
    rate: Sequence[float]
    quality: Sequence[float]
    unit: str = "dB"


@dataclass(frozen=True, kw_only=True)
class Delta:
    """value: percent (BD-rate) or dB (BD-PSNR); low, high: common range, in units of quality (BD-rate) or bits per pixel (BD-PSNR).

    share: that range over the range that the two curves span together (1: both cover the same), dB or log rate.
    """

    value: float
    low: float
    high: float
    share: float


def bd_rate(anchor: Curve, test: Curve, *, method: Method = "pchip") -> Delta:
    """Percent of rate that `test` needs more (or, negative, less) than `anchor` at equal quality. Raises InputError without overlap."""
    (log_a, quality_a), (log_t, quality_t) = _checked(anchor), _checked(test)
    low, high, share = _common(anchor.name, quality_a, test.name, quality_t, anchor.unit)
    mean = _mean(quality_t, log_t, low, high, method) - _mean(quality_a, log_a, low, high, method)
    return Delta(value=100 * float(np.expm1(mean)), low=low, high=high, share=share)


def bd_psnr(anchor: Curve, test: Curve, *, method: Method = "pchip") -> Delta:
    """dB that `test` gains (or, negative, loses) against `anchor` at equal rate. Raises InputError without overlap."""
    (log_a, quality_a), (log_t, quality_t) = _checked(anchor), _checked(test)
    low, high, share = _common(anchor.name, log_a, test.name, log_t, "log rate")
    mean = _mean(log_t, quality_t, low, high, method) - _mean(log_a, quality_a, low, high, method)
    return Delta(value=mean, low=float(np.exp(low)), high=float(np.exp(high)), share=share)


def _checked(curve: Curve) -> tuple[NDArray[Any], NDArray[Any]]:
    """Log rate and quality, both strictly rising [points]: what the interpolation needs, or InputError."""
    rate, quality = np.asarray(curve.rate, np.float64), np.asarray(curve.quality, np.float64)
    if rate.ndim != 1 or rate.shape != quality.shape or rate.size < 2:
        raise InputError(f"{curve.name}: rates {rate.shape} and qualities {quality.shape}: two or more points of each expected")
    if not (np.isfinite(rate).all() and np.isfinite(quality).all() and (rate > 0).all()):
        raise InputError(f"{curve.name}: rates must be positive and all values finite (a lossless point has no place on a curve)")
    order = np.argsort(rate, kind="stable")
    rate, quality = rate[order], quality[order]
    bad = np.flatnonzero((np.diff(rate) <= 0) | (np.diff(quality) <= 0))
    if bad.size:
        i = int(bad[0])
        a, b = (f"({rate[j]:g}, {quality[j]:g})" for j in (i, i + 1))
        raise InputError(f"{curve.name}: points {a} and {b}: rate and quality must both rise")
    return np.log(rate), quality


def _common(name_a: str, a: NDArray[Any], name_t: str, t: NDArray[Any], unit: str) -> tuple[float, float, float]:
    low, high = float(max(a[0], t[0])), float(min(a[-1], t[-1]))
    if low >= high:
        raise InputError(
            f"{name_a} spans {a[0]:.4g} to {a[-1]:.4g} and {name_t} {t[0]:.4g} to {t[-1]:.4g} ({unit}): no overlap, so no BD figure; "
            "measure more operating points"
        )
    return low, high, (high - low) / float(max(a[-1], t[-1]) - min(a[0], t[0]))


def _mean(x: NDArray[Any], y: NDArray[Any], low: float, high: float, method: Method) -> float:
    """Mean of the interpolant through (x, y) between low and high."""
    from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

    if method not in METHODS:
        raise InputError(f"BD method {method!r}: one of {', '.join(METHODS)}")
    interpolator = PchipInterpolator if method == "pchip" else Akima1DInterpolator
    return float(interpolator(x, y).integrate(low, high)) / (high - low)
