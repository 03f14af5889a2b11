"""What the caller asks of each variable, and what its codec is then given.

    Request(max_error=0.05) + a variable --plan--> Plan(target, fill, recorded attributes), or None: the variable is kept exactly

Bounds are in decoded units. Of packed integers (scale_factor, add_offset) that is as many steps as fit into the bound, so a reader that unpacks
in float32 may see the bound exceeded by its own rounding.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Target
from latentpress.errors import InputError

MOST_AXES = 7  # a position in a file is the variable's number and its chunk's position: 8 numbers
COORDINATE_ATTRIBUTES = ("coordinates", "bounds", "climatology", "grid_mapping")
_DEGREES = frozenset(f"degree{s}{joint}{side}" for s in ("", "s") for joint in ("_", "") for side in ("north", "east", "N", "E"))
_BOUNDS_DIMS = frozenset(("bnds", "nv", "nbnds", "bounds", "vertices", "nvertex", "nb2"))
DEFAULT_QUALITY = 50.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """At most one is set; none: quality 50. max_error: a number, or what broadcasts to the variable's shape, 0 or more and in its units."""

    max_error: float | NDArray[Any] | None = None
    max_rel_error: float | None = None
    quality: float | None = None
    lossless: bool = False

    def __post_init__(self) -> None:
        given = self.given()
        if len(given) > 1:
            raise InputError(f"give one of {', '.join(n.replace('_', '-') for n in given)}, not {'both' if len(given) == 2 else 'all'}")
        for name, value in given.items():
            low = np.min(np.asarray(value, np.float64), initial=np.inf) if name != "lossless" else 0
            if not np.isfinite(np.asarray(value, np.float64)).all() or low < 0 or (name == "quality" and value > 100):
                raise InputError(f"{name.replace('_', '-')}: {'0 to 100' if name == 'quality' else 'finite numbers of 0 and more'} expected")

    def given(self) -> dict[str, Any]:
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None and value is not False}


def requests_of(dataset: Any, common: Request, special: Mapping[str, Mapping[str, Any]]) -> dict[str, Request]:
    """One Request a field, a variable that a codec takes. Raises InputError for unknown variables, with those of near names, for others than
    fields, and for unknown settings."""
    exact = coordinates_of(dataset)
    known = [str(name) for name, v in dataset.variables.items() if name not in exact and is_field(v)]
    for name, settings in special.items():
        if name in dataset.variables and name not in known:
            raise InputError(f"{name} is kept exactly: it is a coordinate, or no numbers on a grid of two dimensions; leave its setting out")
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            raise InputError(f"no variable is called {name!r}; {'did you mean' if near else 'there are'} {', '.join(near or known)}?")
        if unknown := set(settings) - {f.name for f in fields(Request)}:
            raise InputError(f"{name}: unknown setting {sorted(unknown)[0]!r}; known: {', '.join(f.name for f in fields(Request))}")
    return {name: Request(**special[name]) if name in special else common for name in known}


def coordinates_of(dataset: Any) -> frozenset[str]:
    """Names of the variables of an xarray.Dataset, raw as on disk, that say where and when: they are kept exactly."""
    found = set(dataset.coords)
    for attrs in (dataset.attrs, *(v.attrs for v in dataset.variables.values())):
        for key in COORDINATE_ATTRIBUTES:
            found |= set(str(attrs.get(key, "")).replace(":", " ").split())
    for name, v in dataset.variables.items():
        if v.attrs.get("units") in _DEGREES or (v.dims and str(v.dims[-1]) in _BOUNDS_DIMS) or str(name).endswith(("_bnds", "_bounds")):
            found.add(name)
    return frozenset(map(str, found & set(dataset.variables)))


def is_field(v: Any) -> bool:
    """Whether a codec takes a variable (or an array): numbers on a grid."""
    dtype, shape = v.dtype, v.shape
    numbers = (dtype.kind == "f" and dtype.itemsize in (4, 8)) or (dtype.kind in "iu" and dtype.itemsize <= 4)
    return bool(numbers and 2 <= len(shape) <= MOST_AXES and min(shape[-2:]) >= 2 and math.prod(shape) > 0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """fill: a value whose points are exact; recorded: attributes that say what was lost."""

    target: Target
    fill: Any
    recorded: Mapping[str, Any]


def plan(data: NDArray[Any], attrs: Mapping[str, Any], request: Request) -> Plan:
    """data: raw values as on disk, their attributes."""
    fill, others = fill_values(data.dtype, attrs)
    kept = np.isin(data, others) if others else None
    losses = _lossy_request(data, attrs, request)
    if losses.lossless:
        return Plan(target=Target(max_error=0.0), fill=fill, recorded={})
    if losses.quality is not None:
        exact = kept is not None and bool(kept.any())
        target = Target(max_error=0.0) if exact else Target(quality=losses.quality)
        return Plan(target=target, fill=fill, recorded={} if exact else recorded_of(losses))
    bound = _steps(data, attrs, losses)
    if kept is not None and kept.any():
        bound = np.where(kept, 0.0, data_bound(data, bound, losses))
    return Plan(target=_target(bound, losses), fill=fill, recorded=recorded_of(losses))


def _lossy_request(data: NDArray[Any], attrs: Mapping[str, Any], request: Request) -> Request:
    """Flags, and whole numbers without units of their own that are asked for by quality, are kept as they are."""
    wanted = request if request.given() else Request(quality=DEFAULT_QUALITY)
    flags = any(key in attrs for key in ("flag_values", "flag_masks", "flag_meanings"))
    nothing = wanted.max_rel_error == 0 or (wanted.max_error is not None and np.max(wanted.max_error, initial=0) == 0)
    counts = wanted.quality is not None and data.dtype.kind in "iu" and "scale_factor" not in attrs
    return Request(lossless=True) if wanted.lossless or flags or nothing or counts else wanted


def fill_values(dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """(the fill value, other values that mean "missing"), of the data's type."""
    values = [v for key in ("_FillValue", "missing_value") if key in attrs for v in np.atleast_1d(attrs[key])]
    typed = [v for v in (_typed(value, dtype) for value in values) if v is not None and v == v]
    different = list(dict.fromkeys(typed))
    return (different[0] if different else None), different[1:]


def missing_values(dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> list[Any]:
    """All values that mean "missing" besides NaN, of the data's type."""
    fill, others = fill_values(dtype, attrs)
    return others if fill is None else [fill, *others]


def _typed(value: Any, dtype: np.dtype[Any]) -> Any:
    try:
        typed = np.asarray(value).astype(dtype)[()]
    except (ValueError, TypeError, OverflowError):
        return None
    return typed


def _unpacking(attrs: Mapping[str, Any]) -> tuple[float, float]:
    scale, offset = (np.asarray(attrs.get(key, usual)).ravel() for key, usual in (("scale_factor", 1.0), ("add_offset", 0.0)))
    good = scale.size == offset.size == 1 and scale.dtype.kind in "iuf" and offset.dtype.kind in "iuf"
    return (float(scale[0]), float(offset[0])) if good and np.isfinite(scale[0]) and scale[0] != 0 else (1.0, 0.0)


def _steps(data: NDArray[Any], attrs: Mapping[str, Any], request: Request) -> float | NDArray[np.float64]:
    """The bound in the units of the raw values: absolute, or relative for floats that are not packed."""
    scale, offset = _unpacking(attrs)
    if request.max_rel_error is not None:
        if (scale, offset) == (1.0, 0.0):
            return request.max_rel_error
        decoded = np.abs(data.astype(np.float64) * scale + offset)
        return _whole(np.where(np.isfinite(decoded), decoded, 0.0) * request.max_rel_error, scale, data.dtype)
    bound = np.asarray(request.max_error, np.float64)
    try:
        np.broadcast_shapes(bound.shape, data.shape)
    except ValueError as error:
        raise InputError(f"bounds of shape {bound.shape} do not fit values of shape {data.shape}") from error
    if bound.ndim == 0:
        steps = Fraction(float(bound)) / abs(Fraction(scale))
        return float(steps if data.dtype.kind == "f" else steps // 1)
    return _whole(bound, scale, data.dtype)


def _whole(bound: NDArray[np.float64], scale: float, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """As many steps as fit."""
    steps = bound / abs(scale)
    if dtype.kind == "f":
        return steps
    whole = np.floor(steps)
    return np.where(whole * abs(scale) > bound, np.maximum(whole - 1, 0), whole)


def data_bound(data: NDArray[Any], bound: float | NDArray[np.float64], request: Request) -> NDArray[np.float64]:
    """An absolute bound for every point."""
    if request.max_rel_error is not None and np.ndim(bound) == 0:
        size = np.abs(data.astype(np.float64))
        return np.where(np.isfinite(size), size, 0.0) * float(bound)
    return np.broadcast_to(np.asarray(bound, np.float64), data.shape)


def _target(bound: float | NDArray[np.float64], request: Request) -> Target:
    if request.max_rel_error is not None and np.ndim(bound) == 0:
        return Target(max_rel_error=float(bound))
    return Target(max_error=bound if isinstance(bound, np.ndarray) and bound.ndim else float(bound))


def recorded_of(request: Request) -> dict[str, Any]:
    """Attributes that say what was lost; of a lossless request none."""
    if request.lossless or not request.given():
        return {}
    if request.quality is not None:
        return {"latentpress_quality": float(request.quality)}
    if request.max_rel_error is not None:
        return {"latentpress_max_rel_error": float(request.max_rel_error)}
    bound = np.asarray(request.max_error, np.float64)
    if bound.ndim == 0:
        return {"latentpress_max_error": float(bound)}
    return {"latentpress_max_error": np.array([bound.min(), bound.max()]), "latentpress_max_error_of": "each point, between these two"}
