"""Planes as the grid prior takes them where it counts steps from its predictions: real numbers, sixteen to a step, and the maps back to values.

A step is twice the bound. Any value within half of it of a prediction is coded as nothing at all, so this is the way of smooth fields and loose
bounds; at tight bounds it costs what integers at fixed places cost (lattice_map), which alone can be lossless.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.lattice_map import LINEAR, ORDERED, WHOLE, Map, Values, ordered, ulp
from latentpress.entropy.grid_network import COARSE

UNITS = 1 << COARSE  # of a step
MOST = (1 << 24) - 1 - 64 * UNITS  # magnitude of targets that the prior takes, with room for a few steps
LEAST_MULTIPLE = 4 * UNITS  # of whole numbers in a step, so that its units are whole and lose little; of integers a quarter of it may do


def closed_maps(x: Values, known: NDArray[np.bool_], error: float, relative: float | None, *, shifted: bool) -> tuple[Map, ...] | None:
    """One map a plane, alike but for their origins, or None where steps cannot be counted. x [n, h, w]; error: the (least) bound, > 0 unless
    `relative` is given; shifted: it is another one for each point."""
    if not known.any():
        return None
    if relative is not None and x.dtype.kind == "f":
        multiple = int(2 * relative * (1 - 1e-9) * 2.0 ** np.finfo(x.dtype).nmant)
        return _whole(x, known, ORDERED, multiple) if multiple >= LEAST_MULTIPLE and relative < 0.5 else None
    if relative is not None:
        return None
    if x.dtype.kind in "iu":
        multiple = 2 * int(min(error, 2.0**31)) + 1
        return _whole(x, known, WHOLE, multiple) if multiple >= UNITS and not shifted else None
    values = x[known]
    step = 2 * (error * (1 - 2.0**-20) - ulp(x.dtype.type(np.abs(values).max()))) / UNITS
    low, high = float(values.min()), float(values.max())
    if not (step > 0 and math.isfinite(step) and math.isfinite(high - low)):
        return None
    reference = float(x.dtype.type(low / 2 + high / 2))
    shared = Map(kind=LINEAR, reference=reference, step=step)
    middles = [_middle(p[k]) for p, k in zip(x, known, strict=True)]
    origins = [0 if m is None else round((m - reference) / step / UNITS) * UNITS for m in middles]
    return tuple(replace(shared, origin=o) for o in origins) if max(map(abs, origins)) < 1 << 50 else None


def _whole(x: Values, known: NDArray[np.bool_], kind: int, multiple: int) -> tuple[Map, ...] | None:
    """Maps whose unit is a whole number: a sixteenth of the step, rounded down."""
    unit = multiple // UNITS
    reference = float(x[known].min()) if kind == WHOLE else 0.0
    shared = Map(kind=kind, reference=reference, multiple=unit)
    origins = []
    for plane, k in zip(x, known, strict=True):
        ends = _places(shared, np.array([plane[k].min(), plane[k].max()], x.dtype)) if k.any() else np.zeros(2, np.int64)
        origins.append(int(ends[0] // 2 + ends[1] // 2) // unit)
    return tuple(replace(shared, origin=o) for o in origins)


def _middle(values: Values) -> float | None:
    return float(values.min()) / 2 + float(values.max()) / 2 if len(values) else None


def _places(m: Map, x: Values) -> NDArray[np.int64]:
    return ordered(x) if m.kind == ORDERED else x.astype(np.int64) - int(m.reference)


def targets_of(x: Values, known: NDArray[np.bool_], maps: tuple[Map, ...]) -> NDArray[np.float64] | None:
    """What `Map.values` would take for exactly x, were it not integers: float64 [n, h, w], 0 at points apart. None where they reach too far."""
    out = np.zeros(x.shape, np.float64)
    for n, m in enumerate(maps):
        at = known[n]
        if m.kind == LINEAR:
            out[n][at] = (x[n][at].astype(np.float64) - m.reference) / m.step - m.origin
        else:
            out[n][at] = (_places(m, x[n][at]) - np.int64(m.origin * m.multiple)) / m.multiple
    return out if np.abs(out).max(initial=0) <= MOST else None


def rounded(targets: NDArray[Any], shifts: NDArray[np.int32] | None) -> NDArray[np.int64]:
    """Targets in whole steps, for estimates."""
    steps = UNITS if shifts is None else np.ldexp(float(UNITS), shifts)
    return np.rint(targets / steps).astype(np.int64)
