"""Where chunks are lost: what stands in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.fields.description import Variable
from latentpress.fields.exact import TEXT, known_dtype

Region = tuple[slice, ...]


def fill_of(v: Variable) -> Any:
    """NaN, an empty text, or the variable's fill value, else 0."""
    dtype = known_dtype(v.dtype)
    if v.dtype == TEXT:
        return ""
    if dtype.kind in "fc":
        return np.nan
    for key in ("_FillValue", "missing_value"):
        value = np.asarray(v.attrs.get(key, ())).ravel()
        if value.size and value.dtype.kind in "iu" and dtype.kind in "iu":
            return value[:1].astype(dtype)[0]
    return np.zeros((), dtype)[()]


def mark_lost(data: NDArray[Any], v: Variable, region: Region, whole: Callable[[Region], list[bool]]) -> NDArray[Any]:
    """`data` of `region` with `fill_of(v)` wherever its chunk is not whole. whole(region): of each chunk that covers it, whether it is there.

    The codec alone knows where its chunks lie, so regions are halved until all of their chunks are there, or none.
    """
    if all(whole(region)):
        return data
    out, fill, pending = np.array(data), fill_of(v), [region]
    while pending:
        part = pending.pop()
        there = whole(part)
        if not any(there):
            out[tuple(slice(p.start - r.start, p.stop - r.start) for p, r in zip(part, region, strict=True))] = fill
        elif not all(there):
            pending += _halves(part)
    return out


def _halves(region: Region) -> list[Region]:
    axis = max(range(len(region)), key=lambda a: region[a].stop - region[a].start)
    start, stop = region[axis].start, region[axis].stop
    if stop - start < 2:
        return []
    middle = (start + stop) // 2
    return [(*region[:axis], part, *region[axis + 1 :]) for part in (slice(start, middle), slice(middle, stop))]
