"""A block of planes to integers, as the lattice codec codes them, and back: maps, differences in time, points apart, last bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Target
from latentpress.codecs.lattice_block import CELL, MAX_SHIFT, Block, has_tails, join_tails, pack_bits, split_tails, spread, tail_bits, unpack_bits
from latentpress.codecs.lattice_chunks import stacked
from latentpress.codecs.lattice_closed import LEAST_MULTIPLE, closed_maps, rounded, targets_of
from latentpress.codecs.lattice_map import LINEAR, REACH, Map, Values, bounded_map, lossless_map, relative_map
from latentpress.entropy.grid_network import COARSE
from latentpress.errors import FormatError, InputError

CLOSED_BITS = 2.0  # bits a point, about, up to which steps are counted from predictions; beyond, integers at fixed places cost the same or less
FINE_PACKING = 8  # packing steps in a step of the bound, from which on it does not matter that data were packed
MAX_CLOSED_SHIFT = MAX_SHIFT - COARSE
GAIN = 0.3  # bits a point that differences in time must seem to save before they are taken
LOOSEST, DECADES = 0.4, 3.6  # quality: a bound of so many deviations of the data at 0, and so many decades less at 100
Integers = NDArray[np.int32]


@dataclass(frozen=True)
class Bounds:
    """Absolute bound of every point: a number or an array like the stack; fill: the value that is outside it; relative: of |x|."""

    error: float | NDArray[np.float64]
    fill: Any = None

    def at(self, where: tuple[slice, slice, slice]) -> Bounds:
        return self if isinstance(self.error, float) else Bounds(self.error[where], self.fill)


def bounds_of(data: NDArray[Any], target: Target, fill: Any) -> Bounds:
    """Raises InputError for a bound of another shape."""
    if target.quality is not None:
        values = data[finite(data, fill)].astype(np.float64)
        return Bounds(bound_of_quality(target.quality, float(values.std()) if values.size else 0.0), fill)
    error = 0.0 if target.max_error is None else np.asarray(target.max_error, np.float64)
    if np.ndim(error) == 0:
        return Bounds(float(error), fill)
    try:
        return Bounds(np.broadcast_to(error, data.shape).reshape(stacked(data.shape)), fill)
    except ValueError:
        raise InputError(f"a bound of shape {np.shape(error)} for data of shape {data.shape}: give one number, or one for each point") from None


def bound_of_quality(quality: float, deviation: float) -> float:
    """quality 0 to 100 -> a bound, continuous and falling."""
    return LOOSEST * deviation * 10.0 ** (-DECADES * quality / 100) if math.isfinite(deviation) else 0.0


def finite(x: NDArray[Any], fill: Any) -> NDArray[np.bool_]:
    known = np.isfinite(x) if x.dtype.kind == "f" else np.ones(x.shape, bool)
    return known if fill is None else known & (x != fill)


@dataclass(frozen=True)
class Planes:
    """What `prepare` makes: see lattice_block.Block; integers [n, h, w], or targets float64 [n, h, w] that steps are counted to (integers are then
    what coding made of them); source and bound to check against."""

    maps: tuple[Map, ...]
    deltas: tuple[bool, ...]
    known: NDArray[np.bool_]
    apart: Values
    shifts: Integers | None
    tails: bytes
    integers: Integers
    source: Values
    error: NDArray[np.float64] | float
    relative: float | None
    targets: NDArray[np.float64] | None = None
    fill: Any = None
    unsure: bool = False  # the other way of coding may well be smaller

    @property
    def head(self) -> Block:
        return Block(self.maps, self.deltas, self.known, self.apart, self.shifts, self.tails, b"", self.targets is not None)

    def holds(self, back: Values) -> bool:
        """Points apart bit for bit, all others within the bound and not what readers take as missing."""
        whole = f"u{back.dtype.itemsize}"
        same = back.view(whole) == self.source.view(whole)
        close = self.known & within(self.source, back, self.error, self.relative) & finite(back, self.fill)
        return bool((same | close).all())


def within(x: Values, back: Values, error: NDArray[np.float64] | float, relative: float | None) -> NDArray[np.bool_]:
    """Counted in float64 (integers: exactly). Where the bound is 0 the bits must be the same."""
    with np.errstate(invalid="ignore", over="ignore"):
        miss = np.abs(back.astype(np.float64) - x.astype(np.float64))
        bound = error if relative is None else relative * np.abs(x.astype(np.float64))
        close = (miss <= bound) & (np.asarray(bound) > 0)
    whole = f"u{x.dtype.itemsize}"
    return close | (back.view(whole) == x.view(whole))


def prepare(x: Values, bounds: Bounds, relative: float | None, *, closed: bool | None = None) -> Planes:
    """x [n, h, w] of one dtype. closed: whether steps are counted from predictions where they can be; None: where it seems to pay."""
    x = np.ascontiguousarray(x)
    dtype, known = str(x.dtype), finite(x, bounds.fill)
    shifts, finest = _shifts(x, known, bounds)
    unsure = False
    if closed is not False and (finest > 0 or relative is not None):
        found = _closed(x, known, shifts, finest, bounds, relative)
        places = 0 if found is None or closed or _bits(found) >= CLOSED_BITS else _packing_places(x, known, finest)
        if found is not None and (closed or places >= FINE_PACKING):
            return found
        unsure = places > 1
    maps = _maps(x, known, finest, relative, shifted=shifts is not None)
    q = np.zeros(x.shape, np.int64)
    back = np.zeros_like(x)
    tails = []
    for n, m in enumerate(maps):
        at = known[n]
        q[n][at] = m.integers(x[n][at], 0 if shifts is None else shifts[at])
        back[n][at] = m.values(q[n][at], dtype)
        if has_tails(m):
            kept, last, bits = split_tails(m, x[n][at], q[n][at])
            back[n][at] = np.where(kept, x[n][at], back[n][at])
            tails.append((n, last, bits))
    known &= within(x, back, finest if shifts is None else bounds.error, relative) & finite(back, bounds.fill)
    packed = _packed_tails(tails, finite(x, bounds.fill), known)
    deltas = _deltas(q, known, maps)
    coded = np.where(known, q, 0)
    for n in reversed(range(len(q))):
        if deltas[n]:
            coded[n] = coded[n] - coded[n - 1]
    return Planes(maps, deltas, known, x[~known], shifts, packed, coded.astype(np.int32), x, bounds.error, relative, fill=bounds.fill, unsure=unsure)


def _closed(
    x: Values, known: NDArray[np.bool_], shifts: Integers | None, finest: float, bounds: Bounds, relative: float | None
) -> Planes | None:
    """The planes with targets, where there can be any: no point whose bound is 0, and none so far off that they do not fit."""
    if shifts is not None and (shifts.max() > MAX_CLOSED_SHIFT or not (np.where(known, bounds.error, 1.0) >= finest).all()):
        return None
    maps = closed_maps(x, known, finest, relative, shifted=shifts is not None)
    targets = None if maps is None else targets_of(x, known, maps)
    if maps is None or targets is None:
        return None
    deltas = _deltas(rounded(targets, shifts), known, maps)
    if any(deltas) and np.abs(targets).max() > REACH:
        deltas = (False,) * len(maps)
    nothing = np.zeros(0, np.int32)
    return Planes(maps, deltas, known, x[~known], shifts, b"", nothing, x, bounds.error, relative, targets, bounds.fill)


def _packing_places(x: Values, known: NDArray[np.bool_], error: float) -> int:
    """How many places of the packing lattice that the first plane lies on, if it does, a step of the bound covers: 1 where the bound leaves all
    of them, at most FINE_PACKING. Of integers: whether steps of sixteenths that are whole numbers come close to it."""
    n = int(np.argmax(known.any((1, 2))))
    if error <= 0:
        return FINE_PACKING
    m = bounded_map(x[n][known[n]], error)
    if x.dtype.kind != "f":
        return FINE_PACKING if m.multiple >= LEAST_MULTIPLE else FINE_PACKING - 1
    packed = m.kind == LINEAR and (m.multiple > 1 or m.step > 2 * error)
    return min(m.multiple, FINE_PACKING) if packed else FINE_PACKING


def _bits(planes: Planes) -> float:
    """Bits a point, about, of planes with targets."""
    if planes.targets is None:
        return math.inf
    q = rounded(planes.targets, planes.shifts)
    return float(np.mean([_roughness(q[n] - q[n - 1] if planes.deltas[n] else q[n]) for n in range(len(q))]))


def _packed_tails(tails: list[tuple[int, Any, Any]], before: NDArray[np.bool_], known: NDArray[np.bool_]) -> bytes:
    """Only of points that are not apart; one after the other, plane by plane."""
    if not tails:
        return b""
    chosen = [(last[known[n][before[n]]], bits[known[n][before[n]]]) for n, last, bits in tails]
    return pack_bits(np.concatenate([c[0] for c in chosen]), np.concatenate([c[1] for c in chosen]))


def _maps(x: Values, known: NDArray[np.bool_], error: float, relative: float | None, *, shifted: bool) -> tuple[Map, ...]:
    def one(values: Values) -> Map:
        if not len(values):
            return Map(kind=LINEAR if x.dtype.kind == "f" else 0)
        if shifted:
            return _plain(values, error)
        if relative is not None and x.dtype.kind == "f":
            return relative_map(values, relative)
        return bounded_map(values, error) if error > 0 else lossless_map(values)

    maps = tuple(one(p[k]) for p, k in zip(x, known, strict=True))
    if len(x) > 1 and error > 0 and relative is None and known.any():
        joint = one(x[known])  # one reference for all planes: differences between them are then whole numbers
        if joint.kind == LINEAR and joint.step * joint.multiple >= max(m.step * m.multiple for m in maps) * (1 - 1e-6):
            return (joint,) * len(x)
    return maps


def _plain(values: Values, error: float) -> Map:
    """A lattice of the finest bound of a block, or as fine as integers reach; what lies outside its bound then is kept apart."""
    span = float(values.max()) / 2 - float(values.min()) / 2
    step = max(2 * error * (1 - 2.0**-20), span / REACH * 1.01, 1e-300)
    middle = float(values.min()) + span
    if values.dtype.kind in "iu":
        return Map(kind=0, reference=float(round(middle)), multiple=max(1, int(2 * error)))
    return Map(kind=LINEAR, reference=middle, step=step)


def _shifts(x: Values, known: NDArray[np.bool_], bounds: Bounds) -> tuple[Integers | None, float]:
    """(power of two of each cell's bound above the finest, or None where one bound holds everywhere; that finest bound)."""
    if isinstance(bounds.error, float):
        return None, bounds.error
    error = np.where(known, bounds.error, np.inf)
    positive = error[(error > 0) & np.isfinite(error)]
    if not positive.size or ((positive == positive[0]).all() and not (error == 0).any()):
        return None, float(positive[0]) if positive.size else 0.0
    least = np.where(error > 0, error, np.inf).min(0)
    rows, columns = -(-least.shape[0] // CELL), -(-least.shape[1] // CELL)
    cells = np.pad(least, ((0, rows * CELL - least.shape[0]), (0, columns * CELL - least.shape[1])), constant_values=np.inf)
    cells = cells.reshape(rows, CELL, columns, CELL).min((1, 3))
    finest = float(positive.min())
    values = x[known]
    span = (float(values.max()) - float(values.min())) / 2
    finest = max(finest, span / REACH)
    with np.errstate(divide="ignore"):
        powers = np.floor(np.log2(np.minimum(cells, 1e300) / finest) + 1e-12)
    shifts = np.clip(np.where(np.isfinite(cells), powers, 0), 0, MAX_SHIFT).astype(np.int32)
    return np.ascontiguousarray(spread(shifts, least.shape)), finest


def _deltas(q: NDArray[np.int64], known: NDArray[np.bool_], maps: tuple[Map, ...]) -> tuple[bool, ...]:
    """Planes that seem cheaper as differences from the plane before, by how far points lie from their diagonal neighbours."""
    deltas = [False]
    for n in range(1, len(q)):
        one, other = maps[n - 1], maps[n]
        alike = one.kind == other.kind and not has_tails(other) and one.step * one.multiple == other.step * other.multiple
        both = known[n] & known[n - 1]
        difference = np.where(both, q[n] - q[n - 1], 0)
        fits = alike and np.abs(difference).max(initial=0) <= REACH
        deltas.append(bool(fits and _roughness(difference) + GAIN < _roughness(np.where(both, q[n], 0))))
    return tuple(deltas)


def _roughness(q: NDArray[np.int64]) -> float:
    """Bits a point, about."""
    if min(q.shape) < 3:
        return 0.0
    near = (q[:-2, :-2] + q[2:, 2:] + q[:-2, 2:] + q[2:, :-2]) / 4
    return float(np.log2(1 + 2 * np.abs(q[1:-1, 1:-1] - near)).mean())


def restore(found: Block, integers: Integers, dtype: str) -> Values:
    """Inverse of `prepare` up to the bound: integers [n, h, w] -> values. Raises FormatError for damage."""
    q = integers.astype(np.int64)
    out = np.zeros(q.shape, dtype)
    offset = 0
    bits_of = [tail_bits(m, q[n][found.known[n]], dtype) if has_tails(m) else None for n, m in enumerate(found.maps)]
    every = [b for b in bits_of if b is not None]
    last = unpack_bits(found.tails, np.concatenate(every)) if every else np.zeros(0, np.int64)
    for n, m in enumerate(found.maps):
        at = found.known[n]
        if found.deltas[n]:
            q[n] = np.where(at, q[n], 0) + np.where(found.known[n - 1], q[n - 1], 0)
        bits = bits_of[n]
        if bits is None:
            out[n][at] = m.values(q[n][at], dtype)
        else:
            if found.deltas[n]:
                raise FormatError("damaged block: planes with last bits as differences")
            out[n][at] = join_tails(m, q[n][at], dtype, last[offset : offset + len(bits)])
            offset += len(bits)
    out[~found.known] = found.apart
    return out
