"""Corrections that keep the mean of each plane: all points are moved by whole steps, and some, spread evenly, by one step more.

    x at point i of N of a plane, in C order  ->  x + step (whole + e),  e = 1 where floor((i + 1) some / N) > floor(i some / N), else 0

Points that are missing stay so. Floats that are 0 stay 0, and none changes its sign: it ends at 0. Integers stop at the ends of their type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import FormatError

MOST_POINTS = 1 << 31  # of a plane
MOST_STEPS, LARGEST_STEP = 1 << 53, 1e300
Values = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Means:
    """One number a plane, planes in C order. step: float, of integers a whole number; whole: of any sign; some: 0 to the points of a plane."""

    step: tuple[float, ...]
    whole: tuple[int, ...]
    some: tuple[int, ...]

    def plane(self, number: int, values: Values, known: NDArray[np.bool_], *, index: NDArray[np.int64], points: int) -> Values:
        """values, known [h, w] of a part of plane `number`, index: place of each point in the plane of so many points."""
        step, whole, some = self.step[number], self.whole[number], self.some[number]
        more = ((index + 1) * some) // points > (index * some) // points
        if values.dtype.kind in "iu":
            limits = np.iinfo(values.dtype)
            moved = np.clip(values.astype(np.int64) + int(step) * (whole + more), limits.min, limits.max)
        else:
            before = values.astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                moved = before + step * (whole + more).astype(np.float64)
                moved = np.where((moved < 0) == (before < 0), moved, 0.0)
            known = known & (before != 0)
        with np.errstate(over="ignore"):
            return np.where(known, moved.astype(values.dtype), values)

    def json(self) -> dict[str, Any]:
        return {"step": list(self.step), "whole": list(self.whole), "some": list(self.some)}


def means_of(plain: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Means:
    """Inverse of `Means.json`. Raises FormatError."""
    planes, points = math.prod(shape[:-2]), math.prod(shape[-2:])
    fits = isinstance(plain, Mapping) and set(plain) == {"step", "whole", "some"} and len(shape) >= 2 and 0 < points <= MOST_POINTS
    if not fits or not all(isinstance(numbers, list) and len(numbers) == planes for numbers in plain.values()):
        raise FormatError(f"means of {name!r}: lists of {planes} steps expected")
    step, whole, some = (tuple(plain[key]) for key in ("step", "whole", "some"))
    whole_numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (*whole, *some))
    steps = all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n <= LARGEST_STEP for n in step)
    if not whole_numbers or not steps or any(abs(n) > MOST_STEPS for n in whole) or any(not 0 <= n <= points for n in some):
        raise FormatError(f"means of {name!r}: numbers out of range")
    if dtype.kind in "iu" and any(n != int(n) or n > 1 << 32 or n * (abs(w) + 1) > 1 << 62 for n, w in zip(step, whole, strict=True)):
        raise FormatError(f"means of {name!r}: whole steps expected")
    return Means(step=tuple(map(float, step)), whole=whole, some=some)


def corrected(data: Values, means: Means, *, region: Sequence[slice], shape: tuple[int, ...], missing: Sequence[Any]) -> Values:
    """data: `region` of a variable of `shape`, as its codec gives it. missing: values that stand for no value."""
    out = np.array(data)
    numbers = np.arange(math.prod(shape[:-2])).reshape(shape[:-2])[tuple(region[:-2])].ravel()
    rows, columns = (np.arange(r.start, r.stop, dtype=np.int64) for r in region[-2:])
    index = rows[:, None] * shape[-1] + columns
    planes = out.reshape(-1, *out.shape[-2:])
    for number, plane in zip(numbers, planes, strict=True):
        plane[...] = means.plane(int(number), plane, there(plane, missing), index=index, points=math.prod(shape[-2:]))
    return out


def there(values: Values, missing: Sequence[Any]) -> NDArray[np.bool_]:
    """Points that have a value."""
    known = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    for value in missing:
        known &= values != value
    return known
