"""Coding that keeps the area-weighted mean of each plane, within the bound: at a little less than the bound, then steps that bring the mean back.

    values --codec, at less than the bound--> values near by --mean of what is missing--> Means, for the decoder
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Codec, Encoded, Signal, Target
from latentpress.errors import BoundError, InputError
from latentpress.fields.bounds import Request
from latentpress.fields.means import MOST_POINTS, MOST_STEPS, Means, corrected, there

ATTRIBUTE = "latentpress_keeps_mean"
SHARES = (1 - 2**-6, 0.5)  # of the bound that coding gets: what the mean is off by seldom needs more than the rest; a half is always enough
CLOSE = 0.5  # steps that a mean may be off by, at most: of a plane of many points it is thousands of times less
COARSER = 2.0**16  # steps of float64, whose last places mean nothing
_ROUNDS = 8
Values = NDArray[Any]


def refuse(request: Request) -> None:
    """Raises InputError for bounds that leave no room for a shift of all points."""
    if request.max_rel_error is not None or np.ndim(request.max_error if request.max_error is not None else 0):
        raise InputError("keep-mean moves all points alike: give one absolute bound (max-error), or a quality, for the variable")


def row_weights(dataset: Any, v: Any) -> NDArray[np.float64]:
    """[rows]: the cosine of latitude, where the rows of a variable are latitudes (by units or name), else 1. dataset, v: raw, of xarray."""
    rows, name = int(v.shape[-2]), v.dims[-2]
    coordinate = dataset.variables.get(name)
    if coordinate is None or coordinate.dims != (name,) or coordinate.dtype.kind not in "iuf" or not _is_latitude(str(name), coordinate.attrs):
        return np.ones(rows)
    degrees = np.asarray(coordinate.values, np.float64)
    if not (np.abs(degrees) <= 90.001).all():
        return np.ones(rows)
    found = np.clip(np.cos(np.deg2rad(degrees)), 0, None)
    return found if found.any() else np.ones(rows)


def _is_latitude(name: str, attrs: Any) -> bool:
    units = str(attrs.get("units", "")).lower()
    if units:
        return units.startswith("degree") and units.endswith(("north", "n"))
    return attrs.get("standard_name") == "latitude" or name.lower() in ("lat", "latitude")


def encode_keeping(
    codec: Codec, signal: Signal, target: Target, *, effort: int, weights: NDArray[np.float64], missing: Sequence[Any]
) -> tuple[Encoded, Means | None]:
    """weights [rows]; missing: values that stand for no value. None for means that are kept without corrections.

    A bound that leaves no room ends as lossless. Raises BoundError where a codec without a bound cannot be corrected; as the codec.
    """
    data = signal.data
    if math.prod(data.shape[-2:]) > MOST_POINTS:
        raise InputError(f"keep-mean: planes of at most {MOST_POINTS} points")
    known = there(data, missing)
    for part in _targets(target, data.dtype):
        encoded = codec.encode(signal, part, effort=effort)
        decoded = np.asarray(codec.decode(encoded).data)
        means = fitted(data, decoded, known, weights)
        back = corrected(decoded, means, region=tuple(slice(0, n) for n in data.shape), shape=data.shape, missing=missing)
        if _holds(data, back, known, target, missing) and (_off(data, back, known, weights) <= CLOSE * np.asarray(means.step)).all():
            return encoded, means if any(means.whole) or any(means.some) else None
    if target.max_error is None:
        raise BoundError(f"{codec.name}: the mean cannot be kept; give a bound, or leave keep-mean out")
    return codec.encode(signal, Target(max_error=0.0), effort=effort), None


def _targets(target: Target, dtype: np.dtype[Any]) -> Iterator[Target]:
    if target.max_error is None:
        yield target
        return
    for share in SHARES:
        bound = np.asarray(target.max_error, np.float64) * share
        bound = np.floor(bound) if dtype.kind in "iu" else bound
        if bound.max(initial=0) > 0:
            yield Target(max_error=bound if bound.ndim else float(bound))


def _holds(data: Values, back: Values, known: NDArray[np.bool_], target: Target, missing: Sequence[Any]) -> bool:
    """The bound at points that have a value, bit for bit at all others, and none of the former looks like one of the latter."""
    whole = f"u{data.dtype.itemsize}"
    same = data.view(whole) == back.view(whole)
    if not same[~known].all() or not (there(back, missing) == known).all():
        return False
    if target.max_error is None:
        return True
    return bool((np.abs(_difference(data, back, known)) <= target.max_error).all())


def fitted(data: Values, decoded: Values, known: NDArray[np.bool_], weights: NDArray[np.float64]) -> Means:
    """Steps of each plane that bring the mean of `decoded` [.., h, w] as near to that of `data` as they can. A step is the distance of floats at
    the largest value of a plane, 2^16 times that of float64, of integers 1."""
    h, w = data.shape[-2:]
    planes = [a.reshape(-1, h, w) for a in (data, decoded, known)]
    found = [_fitted_plane(x, near, at, weights) for x, near, at in zip(*planes, strict=True)]
    step, whole, some = zip(*found, strict=True)
    return Means(step=step, whole=whole, some=some)


def _fitted_plane(data: Values, decoded: Values, known: NDArray[np.bool_], weights: NDArray[np.float64]) -> tuple[float, int, int]:
    step = _step(decoded, known)
    points = data.size
    index = np.arange(points, dtype=np.int64).reshape(data.shape)
    best, least = (0, 0), abs(_missing(data, decoded, known, weights))
    total = 0  # in steps of one point
    for _ in range(_ROUNDS):
        whole, some = divmod(total, points)
        made = Means(step=(step,), whole=(whole,), some=(some,))
        off = _missing(data, made.plane(0, decoded, known, index=index, points=points), known, weights)
        if abs(off) < least:
            best, least = (whole, some), abs(off)
        change = off / step * points
        if not abs(change) >= 0.5 or not abs(total + change) < MOST_STEPS * points:
            break
        total += round(change)
    return step, *best


def _step(decoded: Values, known: NDArray[np.bool_]) -> float:
    if decoded.dtype.kind in "iu" or not known.any():
        return 1.0
    step = float(np.spacing(np.abs(decoded[known]).max())) * (COARSER if decoded.dtype == np.float64 else 1)
    return step if math.isfinite(step) else 1.0


def _missing(data: Values, back: Values, known: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """Weighted mean of data - back over the points that have a value, 0 where there are none."""
    share = np.where(known, weights[:, None], 0.0)
    total = float(share.sum())
    return float((_difference(data, back, known) * share).sum() / total) if total > 0 else 0.0


def _difference(data: Values, back: Values, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """data - back, 0 at points without a value."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(known, data.astype(np.float64) - back.astype(np.float64), 0.0)


def _off(data: Values, back: Values, known: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """[planes]: by how much each mean is off."""
    planes = [a.reshape(-1, *data.shape[-2:]) for a in (data, back, known)]
    return np.abs([_missing(x, near, at, weights) for x, near, at in zip(*planes, strict=True)])
