"""What a base leaves to be coded, and what of a bound is left for that: values of different machines, and roundings, are taken off first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Target

LEAST_LEFT = 0.5  # of the bound: with less of it left for the residual there is no base
MOST = (1 << 23) - 1  # steps of a residual
Values = NDArray[Any]


@dataclass(frozen=True)
class Task:
    """One stack of planes, float32 or float64, that may have a base.

    values  [n, h, w] as they are      known  points that have a bound: finite, and not the fill value
    bound   of the caller              slack  of it for what decoding may differ between machines
    step    of the residual, whose whole numbers lie around 0: where the base is near enough they are all 0
    fill    the value that +infinity of the residual stands for, or None
    avoided the caller's fill value, which no other point may become, or None
    """

    values: Values
    known: NDArray[np.bool_]
    bound: float
    slack: float
    step: float
    fill: float | None
    avoided: Any = None

    @classmethod
    def of(cls, values: Values, target: Target, fill: Any, drift: float) -> Task | None:
        """drift: of the base's values between machines, in deviations of a plane. None where a base is of no use: integers, no absolute bound
        that is the same everywhere, too tight a bound, fill values beside infinities."""
        if values.dtype.kind != "f" or target.max_error is None or np.ndim(target.max_error):
            return None
        known, avoided = np.isfinite(values), fill
        fills = None if fill is None or not np.isfinite(fill) else values == fill
        if fills is None or not fills.any():
            fill = None
        elif np.isinf(values).any():
            return None
        else:
            known &= ~fills
        if not known.any():
            return None
        rounding = float(np.spacing(np.abs(values[known]).max()))
        slack = drift * _deviation(values, known) + 2 * rounding  # of the base's values, and of the sum
        bound = float(target.max_error)
        left = bound - slack - 2 * rounding
        if not left > LEAST_LEFT * bound:
            return None
        return cls(values, known, bound, slack, 2 * left * (1 - 2.0**-20), None if fill is None else float(fill), avoided)

    @property
    def for_base(self) -> Values:
        """NaN for all that has no bound."""
        return np.where(self.known, self.values, np.nan).astype(self.values.dtype)

    def residual(self, base: Values) -> Values | None:
        """Steps that are missing to the values at known points; the values themselves at all others. None where the base is too far away."""
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.rint((self.values.astype(np.float64) - base.astype(np.float64)) / self.step) + 0.0  # no -0.0
        if not (np.abs(steps[self.known]) <= MOST).all():
            return None
        out = np.where(self.known, steps.astype(self.values.dtype), self.values)
        if self.fill is not None:
            out[self.values == self.fill] = np.inf
        return out

    def holds(self, back: Values) -> bool:
        """The bound with the slack taken off at known points, none of which became the fill value; all others bit for bit."""
        miss = np.abs(back[self.known].astype(np.float64) - self.values[self.known].astype(np.float64))
        whole = f"u{back.dtype.itemsize}"
        same = back.view(whole) == self.values.view(whole)
        apart = self.avoided is None or bool((back[self.known] != self.avoided).all())
        return apart and bool((miss <= self.bound - self.slack).all()) and bool(same[~self.known].all())


def joined(base: Values, residual: Values, step: float, fill: float | None) -> Values:
    """Inverse of `Task.residual`: base + step * residual in float64, then in the dtype. What is not finite in the residual stands for itself,
    +infinity for the fill value if there is one."""
    out = residual.copy()
    known = np.isfinite(residual)
    with np.errstate(over="ignore", invalid="ignore"):
        out[known] = (base[known].astype(np.float64) + step * residual[known].astype(np.float64)).astype(residual.dtype)
    if fill is not None:
        out[residual == np.inf] = fill
    return out


def _deviation(values: Values, known: NDArray[np.bool_]) -> float:
    """The largest of any plane."""
    return max(float(plane[at].astype(np.float64).std()) for plane, at in zip(values, known, strict=True) if at.any())
