"""Values to integers and back, plane by plane: the lattice of a bound, or the lattice that the data were packed on.

    values --integers--> q - origin --grid prior--> bytes

    WHOLE, LINEAR  value = reference + step * (multiple * q)
    FLOATING       value = step * q, a power of two, and the last bits of the float apart (WHOLE has them too, where integers reach far)
    ORDERED        every multiple-th float

Reanalysis fields were packed before anybody got them: float32 of reference + step * k. Where such a lattice is found, a bound takes the largest
odd multiple of its step whose roundings stay inside, and lossless means its indices. Integers in, integers out: what is decoded cannot drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHOLE, LINEAR, FLOATING, ORDERED = range(4)
KINDS = ("whole", "linear", "floating", "ordered")
REACH = (1 << 23) - 1  # magnitude of q - origin that the prior takes
MANTISSA = {"float32": 23, "float64": 52}
Values = NDArray[Any]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Map:
    """How the values of one plane become integers. step of FLOATING and WHOLE: a power of two; of ORDERED: unused. multiple: >= 1.

    amended: rising integers (as `integers` gives them) whose values lie some floats beside what reference and step say; by: how many, within 2**31.
    """

    kind: int
    reference: float = 0.0
    step: float = 1.0
    multiple: int = 1
    origin: int = 0
    amended: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    by: Integers = field(default_factory=lambda: np.zeros(0, np.int64))

    def integers(self, x: Values, shifts: Any = 0) -> Integers:
        """Nearest integers (towards zero for FLOATING) of finite values, minus the origin; of LINEAR and WHOLE maps of origin 0 the nearest
        multiples of 2**shifts."""
        if self.kind == FLOATING:
            return np.trunc(np.divide(x, self.step, dtype=np.float64)).astype(np.int64) - self.origin
        if self.kind == ORDERED:
            k: Any = ordered(x)
        elif self.kind == WHOLE:
            k = (x.astype(np.int64) - int(self.reference)) // int(self.step)
        else:
            return self._nearest(x, shifts)
        multiple = self.multiple << np.asarray(shifts, np.int64)
        return ((k + multiple // 2) // multiple << np.asarray(shifts, np.int64)) - self.origin  # type: ignore[no-any-return]

    def _nearest(self, x: Values, shifts: Any) -> Integers:
        shifts = np.asarray(shifts, np.int64)
        k = np.rint((x.astype(np.float64) - self.reference) / np.ldexp(self.step, shifts)).astype(np.int64)
        return ((k + self.multiple // 2) // self.multiple << shifts) - self.origin

    def values(self, q: Integers, dtype: str) -> Values:
        """Inverse of `integers` up to rounding, elementwise and the same on every machine; FLOATING: without the last bits."""
        k = (q.astype(np.int64) + self.origin) * self.multiple
        if self.kind == ORDERED:
            return from_ordered(k, dtype)
        if self.kind == WHOLE:
            info = np.iinfo(dtype)
            return np.clip(k * int(self.step) + int(self.reference), info.min, info.max).astype(dtype)
        with np.errstate(over="ignore"):
            scaled = self.step * k.astype(np.float64)
            x = (scaled if self.kind == FLOATING else self.reference + scaled).astype(dtype)
        return self._amend(x, q, dtype) if len(self.amended) else x

    def _amend(self, x: Values, q: Integers, dtype: str) -> Values:
        at = np.minimum(np.searchsorted(self.amended, q), len(self.amended) - 1)
        by = np.where(self.amended[at] == q, self.by[at], 0)
        return np.where(by == 0, x, from_ordered(ordered(x) + by, dtype))


def centred(kind: int, x: Values, **parameters: Any) -> Map | None:
    """The map whose integers lie around 0, or None where they reach too far. x: finite values, flat, not empty."""
    raw = Map(kind=kind, **parameters)
    ends = raw.integers(np.array([x.min(), x.max()], x.dtype))
    origin = int(ends[0] + ends[1]) // 2
    if ends[1] - ends[0] >= 2 * REACH or abs(origin) > 1 << 55:
        return None
    return Map(kind=kind, origin=origin, **parameters)


# ---- floats in order


def ordered(x: Values) -> Integers:
    """Floats to integers in the same order: the bits of a float, negative ones mirrored; -0.0 comes just before 0.0."""
    bits = x.view(f"i{x.dtype.itemsize}").astype(np.int64)
    mirrored = np.int64(-1) - (bits & np.int64((1 << (8 * x.dtype.itemsize - 1)) - 1))
    return np.where(bits < 0, mirrored, bits)


def from_ordered(k: Integers, dtype: str) -> Values:
    """Inverse; numbers beyond the largest float become it."""
    whole = np.dtype(f"i{np.dtype(dtype).itemsize}")
    top = int(np.array(np.finfo(dtype).max, dtype).view(whole))
    k = np.clip(k, -1 - top, top)
    magnitude = np.where(k < 0, np.int64(-1) - k, k).astype(whole)
    return np.where(k < 0, magnitude | np.iinfo(whole).min, magnitude).astype(whole).view(dtype)


def ulp(x: Any) -> float:
    """Distance of a positive float to the next smaller one."""
    return float(x) - float(np.nextafter(x, x.dtype.type(0)))


# ---- which map


def lossless_map(x: Values) -> Map:
    """x: finite values, flat, not empty. The packing lattice where there is one, else FLOATING (last bits apart) or WHOLE."""
    if x.dtype.kind in "iu":
        return _whole(x, 0.0) or _whole(x, 0.0, 2.0**10)
    found = packing_lattice(x)
    if found is not None:
        chosen = centred(LINEAR, x, reference=found[0], step=found[1])
        exact = _with_amends(np.unique(x), chosen) if chosen is not None else None
        if exact is not None:
            return exact
    return _floating(x)


def bounded_map(x: Values, bound: float) -> Map:
    """|x - values(integers(x))| <= bound, but for the last places of floats; bound > 0."""
    if x.dtype.kind in "iu":
        return _whole(x, bound) or lossless_map(x)
    scale = float(np.abs(x).max())
    step = 2 * (bound - ulp(x.dtype.type(scale)))
    if step <= 0 or not math.isfinite(step):
        return lossless_map(x)
    found = packing_lattice(x)
    if found is not None:
        multiple = 2 * int(bound / found[1] * (1 + 1e-9)) + 1
        if multiple * found[1] >= step:
            chosen = centred(LINEAR, x, reference=found[0], step=found[1], multiple=multiple)
            if chosen is not None:
                return chosen
    return centred(LINEAR, x, reference=float(x.min()), step=step) or lossless_map(x)


def relative_map(x: Values, bound: float) -> Map:
    """|x - values(integers(x))| <= bound * |x|: every so many-th float, as floats lie at distances that grow with them."""
    multiple = 2 * int(bound * 2.0 ** MANTISSA[str(x.dtype)] * (1 - 1e-12)) + 1
    chosen = centred(ORDERED, x, multiple=multiple) if multiple > 1 else None
    return chosen or lossless_map(x)


def _whole(x: Values, bound: float, step: float = 1.0) -> Any:
    return centred(WHOLE, x, reference=float(x.min()), step=step, multiple=2 * int(min(bound, 2.0**31)) + 1)


def _floating(x: Values) -> Map:
    """The finest power of two that a bounded number of integers reaches with."""
    largest = float(np.abs(x).max())
    finest = math.log2(ulp(x.dtype.type(largest))) if largest else 0.0
    span = float(x.max()) / 2 - float(x.min()) / 2
    exponent = max(finest, math.ceil(math.log2(max(span, 1e-300)) - math.log2(REACH)) + 1, math.ceil(math.log2(max(largest, 1e-300))) - 54)
    for up in range(64):
        chosen = centred(FLOATING, x, step=2.0 ** min(exponent + up, 1010))
        if chosen is not None:
            return chosen
    raise AssertionError("a step of 2**1010 covers every float")


def _with_amends(distinct: Values, chosen: Map) -> Map | None:
    """Values of the lattice that were rounded once more on their way lie a float or two beside it: kept in a list, where it is short."""
    q = chosen.integers(distinct)
    by = ordered(distinct) - ordered(chosen.values(q, str(distinct.dtype)))
    wrong = np.flatnonzero(by)
    if len(wrong) > len(distinct) / 4 or np.abs(by).max(initial=0) >= 1 << 31 or (np.diff(q) == 0).any():
        return None
    return replace(chosen, amended=q[wrong], by=by[wrong])


# ---- the packing lattice


def packing_lattice(x: Values) -> tuple[float, float] | None:
    """(reference, step) such that x is reference + step * k, rounded to its dtype, for integers k; None where there are none.

    Neighbouring values differ by small multiples of the step, so the smallest difference shows it, and the whole range measures it:
    every difference is then rounded to its multiple, and their sum divides the range.
    """
    distinct = np.unique(x)
    if len(distinct) < 3 or len(distinct) > len(x) * 0.9 + 16:
        return None
    wide = distinct.astype(np.float64)
    last = ulp(np.abs(distinct).max())
    gaps = np.diff(wide)
    least = float(gaps.min())
    if least < 3 * last or not math.isfinite(float(wide[-1] - wide[0])):
        return None
    for tolerance in (4, 12, 40):  # in units of the noise: too little follows rounding errors, which Euclid multiplies, too much ends early
        found = _measured(wide, gaps, _common(gaps, 1.5 * last, tolerance), last)
        if found is not None:
            return _fitted(distinct, *found)
    return None


def _measured(wide: NDArray[np.float64], gaps: NDArray[np.float64], step: float, last: float) -> tuple[NDArray[np.float64], float] | None:
    """(k of each value, step) where all gaps are multiples of the step up to rounding."""
    if step < 3 * last:
        return None
    for reach in (8, 64, 512):  # what is known from small multiples is exact enough for larger ones
        short = gaps[gaps < reach * step]
        count = np.rint(short / step).sum()
        step = float(short.sum() / count) if count else step
    multiples = np.rint(gaps / step)
    if not 1 <= multiples.min() <= multiples.sum() <= 4 * REACH:
        return None
    step = float((wide[-1] - wide[0]) / multiples.sum())
    if np.abs(gaps - step * multiples).max() > 1.01 * last + 1e-9 * step:
        return None
    return np.concatenate([[0.0], np.cumsum(multiples)]), step


def _common(gaps: NDArray[np.float64], noise: float, tolerance: float) -> float:
    """Greatest common divisor of the smallest gaps, each known but for the noise: Euclid, stopped by it; 0 where nothing common is left."""
    smallest = np.sort(np.unique(np.rint(gaps / (2 * noise)))[:128] * 2 * noise)
    clusters = [gaps[np.abs(gaps - g) <= 2 * noise] for g in smallest[:32]]
    near = [float(c.mean()) for c in clusters if len(c)] or [0.0]
    common = near[0]
    for gap in near[1:]:
        a, b = gap, common
        while b > tolerance * noise:
            a, b = b, abs(a - b * round(a / b))
        common = a
        if common < tolerance * noise:
            return 0.0
    return common


def _fitted(distinct: Values, k: NDArray[np.float64], step: float) -> tuple[float, float]:
    """Reference and step from which every value rounds as it did, where such are found: for a step, references may lie in an interval, whose
    length is concave in the step."""
    low, high = _roundings(distinct)
    uncertain = ulp(np.abs(distinct).max()) / max(float(k[-1]), 1.0)

    def interval(s: float) -> tuple[float, float]:
        return float((low - s * k).max()), float((high - s * k).min())

    for nice in _nice(step, 2 * uncertain):
        a, b = interval(nice)
        if a <= b:
            return _short(a, b), nice
    left, right = step - 2 * uncertain, step + 2 * uncertain
    for _ in range(80):
        third = (right - left) / 3
        (a, b), (c, d) = interval(left + third), interval(right - third)
        left, right = (left + third, right) if b - a < d - c else (left, right - third)
    best = (left + right) / 2
    a, b = interval(best)
    return (a + b) / 2, best


def _roundings(distinct: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where a real number must lie to round to each value, a little less for safety."""
    wide = distinct.astype(np.float64)
    if distinct.dtype == np.float64:
        return wide - np.spacing(np.abs(wide)) / 2, wide + np.spacing(np.abs(wide)) / 2
    below = np.nextafter(distinct, distinct.dtype.type(-np.inf)).astype(np.float64)
    above = np.nextafter(distinct, distinct.dtype.type(np.inf)).astype(np.float64)
    return wide - (wide - below) * 0.499, wide + (above - wide) * 0.499


def _nice(step: float, uncertain: float) -> list[float]:
    """Steps that people choose, within what is known: powers of two, then few decimals (times a power of two)."""
    found = [2.0 ** min(round(math.log2(step)), 1023)]
    for digits in range(-12, 13):
        for power in (0, -1, -2, 1, 2, 3, 4):
            scaled = step * 10.0**digits / 2.0**power
            if 0.6 < scaled < 1000.4:
                found.append(round(scaled) * 2.0**power / 10.0**digits)
    with np.errstate(over="ignore"):
        found.append(float(np.float32(step)))
    return [s for s in found if abs(s - step) <= uncertain]


def _short(low: float, high: float) -> float:
    """The number between that has the fewest bits."""
    middle = (low + high) / 2
    for bits in range(2, 53):
        mantissa, exponent = math.frexp(middle)
        short = math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits)
        if low <= short <= high:
            return short
    return middle
