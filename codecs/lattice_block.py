"""One block of planes to bytes and back: what each plane's integers mean, which points are apart, and the integers themselves.

    fields: planes of (kind, reference, step, multiple, origin, amends) | shifts | points apart | last bits | grid stream

Points apart (NaN, infinities, fill values, and what a map cannot give back) are kept as they are, bit for bit, and nothing is coded for them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.inflate import inflated
from latentpress.codecs.lattice_map import FLOATING, KINDS, MANTISSA, WHOLE, Map, Values, from_ordered, ordered
from latentpress.codecs.varint import read_signed, read_varint, signed_varint, varint
from latentpress.entropy.grid_network import COARSE
from latentpress.errors import FormatError

CELL = 8  # side of a cell of the map of shifts
MAX_SHIFT = 30
_PLANE = struct.Struct("<Bdd")
KIND, DELTA, AGAIN, CLOSED = 3, 4, 8, 16  # of a plane's first byte: kind of its map, a difference, the map before again, steps from predictions


@dataclass(frozen=True)
class Block:
    """maps: one a plane; deltas [n]: plane n is coded as its difference from the plane before; known [n, h, w]: False at points apart;
    apart: their values, in scan order; shifts [h, w] or None; tails: last bits, packed; stream: of the grid prior; closed: it counts steps
    from its predictions."""

    maps: tuple[Map, ...]
    deltas: tuple[bool, ...]
    known: NDArray[np.bool_]
    apart: Values
    shifts: NDArray[np.int32] | None
    tails: bytes
    stream: bytes
    closed: bool = False


def pack(block: Block) -> bytes:
    maps, shifts = _packed_maps(block.maps, block.deltas, block.closed), _packed_shifts(block.shifts)
    parts = [maps, shifts, *_packed_apart(block.known, block.apart), _deflated(block.tails)]
    return b"".join(varint(len(p)) + p for p in parts) + block.stream


def unpack(payload: bytes, shape: tuple[int, int, int], dtype: str) -> Block:
    """Raises FormatError."""
    cursor, parts = 0, []
    for _ in range(5):
        size, cursor = read_varint(payload, cursor)
        if cursor + size > len(payload):
            raise FormatError("damaged block: a part reaches beyond its end")
        parts.append(payload[cursor : cursor + size])
        cursor += size
    maps, deltas, closed = _unpacked_maps(parts[0], shape[0], dtype)
    known, apart = _unpacked_apart(parts[2], parts[3], shape, dtype)
    tails = inflated(parts[4], 8 * known.size + 8, "block") if parts[4] else b""
    shifts = _unpacked_shifts(parts[1], shape)
    if closed and shifts is not None and shifts.max(initial=0) > MAX_SHIFT - COARSE:
        raise FormatError("damaged block: a step is out of range")
    return Block(maps, deltas, known, apart, shifts, tails, payload[cursor:], closed)


# ---- maps


def _packed_maps(maps: Sequence[Map], deltas: Sequence[bool], closed: bool) -> bytes:
    out, before = [], None
    for m, delta in zip(maps, deltas, strict=True):
        kind = m.kind | DELTA * delta | CLOSED * closed
        if before is not None and _alike(m, before):
            out.append(bytes([kind | AGAIN]) + signed_varint(m.origin - before.origin))
        else:
            amends = _deflated(m.amended.astype("<i4").tobytes() + m.by.astype("<i4").tobytes())
            out.append(_PLANE.pack(kind, m.reference, m.step) + varint(m.multiple) + signed_varint(m.origin) + varint(len(amends)) + amends)
        before = m
    return b"".join(out)


def _alike(one: Map, other: Map) -> bool:
    """Whether they are the same but for their origins."""
    same = (one.kind, one.reference, one.step, one.multiple) == (other.kind, other.reference, other.step, other.multiple)
    return same and not len(one.amended) and not len(other.amended)


def _unpacked_maps(part: bytes, planes: int, dtype: str) -> tuple[tuple[Map, ...], tuple[bool, ...], bool]:
    maps: list[Map] = []
    deltas: list[bool] = []
    cursor, flags = 0, 0
    for n in range(planes):
        if cursor >= len(part):
            raise FormatError("damaged block: a plane is missing")
        before, flags = flags, part[cursor]
        if flags & AGAIN and n and not flags & ~(KIND | DELTA | CLOSED | AGAIN):
            beside, cursor = read_signed(part, cursor + 1)
            maps.append(_checked(flags, replace(maps[-1], origin=maps[-1].origin + beside), dtype, n))
        else:
            m, cursor = _unpacked_map(part, cursor)
            maps.append(_checked(flags, m, dtype, n))
        if n and (flags ^ before) & CLOSED:
            raise FormatError("damaged block: planes of both ways of coding")
        deltas.append(bool(flags & DELTA))
    if cursor != len(part):
        raise FormatError("damaged block: more maps than planes")
    closed = bool(flags & CLOSED)
    if closed and any(m.kind == FLOATING or len(m.amended) for m in maps):
        raise FormatError("damaged block: a plane's map does not fit its way of coding")
    return tuple(maps), tuple(deltas), closed


def _unpacked_map(part: bytes, cursor: int) -> tuple[Map, int]:
    if cursor + _PLANE.size > len(part):
        raise FormatError("damaged block: a plane is missing")
    flags, reference, step = _PLANE.unpack_from(part, cursor)
    multiple, cursor = read_varint(part, cursor + _PLANE.size)
    origin, cursor = read_signed(part, cursor)
    size, cursor = read_varint(part, cursor)
    amends = inflated(part[cursor : cursor + size], 1 << 26, "block") if size else b""
    if flags & ~(KIND | DELTA | CLOSED) or not np.isfinite([reference, step]).all() or not 1 <= multiple < 1 << 53 or len(amends) % 8:
        raise FormatError("damaged block: a plane's map is out of range")
    both = np.frombuffer(amends, "<i4").astype(np.int64).reshape(2, -1)
    if (np.diff(both[0]) <= 0).any():
        raise FormatError("damaged block: amended values out of order")
    m = Map(kind=flags & KIND, reference=reference, step=step, multiple=multiple, origin=origin, amended=both[0], by=both[1])
    return m, cursor + size


def _checked(flags: int, m: Map, dtype: str, n: int) -> Map:
    whole = np.dtype(dtype).kind in "iu"
    if abs(m.origin) > 1 << 55 or flags & KIND != m.kind:
        raise FormatError("damaged block: a plane's map is out of range")
    fits = (KINDS[m.kind] == "whole") == whole and not (n == 0 and flags & DELTA) and (not whole or abs(m.reference) <= 1 << 32)
    if not fits or (m.kind in (WHOLE, FLOATING) and np.frexp(m.step)[0] != 0.5) or (whole and not 1 <= m.step <= 1 << 32):
        raise FormatError("damaged block: a plane's map does not fit its dtype")
    if whole and len(m.amended):
        raise FormatError("damaged block: amended values of whole numbers")
    return m


# ---- shifts, cell by cell


def _packed_shifts(shifts: NDArray[np.int32] | None) -> bytes:
    if shifts is None:
        return b""
    cells = shifts[::CELL, ::CELL].astype(np.int8)
    return zlib.compress(np.diff(cells, axis=1, prepend=np.int8(0)).tobytes(), 9)


def _unpacked_shifts(part: bytes, shape: tuple[int, int, int]) -> NDArray[np.int32] | None:
    if not part:
        return None
    rows, columns = -(-shape[1] // CELL), -(-shape[2] // CELL)
    raw = inflated(part, rows * columns, "block")
    if len(raw) != rows * columns:
        raise FormatError("damaged block: the map of shifts has another size")
    cells = np.cumsum(np.frombuffer(raw, np.int8).reshape(rows, columns), 1, dtype=np.int32)
    if cells.size and (cells.min() < 0 or cells.max() > MAX_SHIFT):
        raise FormatError("damaged block: a shift is out of range")
    return np.ascontiguousarray(spread(cells, shape[1:]))


def spread(cells: NDArray[np.int32], size: tuple[int, ...]) -> NDArray[np.int32]:
    return cells.repeat(CELL, 0).repeat(CELL, 1)[: size[0], : size[1]]


# ---- points apart


def _packed_apart(known: NDArray[np.bool_], apart: Values) -> tuple[bytes, bytes]:
    """Masks of all planes, each as its difference from the one before; their values, one if they are all the same."""
    if known.all():
        return b"", b""
    change = known.copy()
    change[1:] ^= known[:-1]
    mask = zlib.compress(np.packbits(~change if not change[0].any() else change).tobytes(), 9)
    bits = apart.view(f"u{apart.dtype.itemsize}")
    values = bits[:1] if (bits == bits[0]).all() else bits
    flag = bytes([not change[0].any()])
    return flag + mask, zlib.compress(values.astype(f"<u{bits.itemsize}").tobytes(), 9)


def _unpacked_apart(mask: bytes, values: bytes, shape: tuple[int, int, int], dtype: str) -> tuple[NDArray[np.bool_], Values]:
    if not mask:
        return np.ones(shape, bool), np.zeros(0, dtype)
    count = int(np.prod(shape))
    raw = inflated(mask[1:], -(-count // 8), "block")
    if len(raw) != -(-count // 8):
        raise FormatError("damaged block: the mask has another size")
    change = np.unpackbits(np.frombuffer(raw, np.uint8), count=count).astype(bool).reshape(shape)
    change = ~change if mask[0] else change
    known = np.logical_xor.accumulate(change, 0)
    wanted, itemsize = count - int(known.sum()), np.dtype(dtype).itemsize
    found = np.frombuffer(_whole(inflated(values, wanted * itemsize, "block"), itemsize), f"<u{itemsize}")
    if len(found) not in (1, wanted):
        raise FormatError("damaged block: values of the points apart are missing")
    return known, np.broadcast_to(found, wanted).astype(f"u{itemsize}").view(dtype)


def _whole(raw: bytes, itemsize: int) -> bytes:
    if len(raw) % itemsize:
        raise FormatError("damaged block: a value is cut off")
    return raw


# ---- last bits of planes whose integers do not say all


def has_tails(m: Map) -> bool:
    return m.kind == FLOATING or (m.kind == WHOLE and m.step > 1)


def tail_bits(m: Map, q: NDArray[np.int64], dtype: str) -> NDArray[np.int64]:
    """How many bits of each float its integer does not say: none where floats lie as wide apart as the step, all where the integer is zero."""
    if m.kind == WHOLE:
        return np.full(q.shape, round(np.log2(m.step)), np.int64)
    x = np.abs(m.values(q, dtype))
    mantissa = MANTISSA[dtype]
    lowest = np.frexp(x)[1].astype(np.int64) - 1 - mantissa
    step = round(np.log2(m.step))
    return np.where(x == 0, 0, np.clip(step - np.maximum(lowest, np.frexp(np.finfo(dtype).tiny)[1] - 1 - mantissa), 0, mantissa))


def split_tails(m: Map, x: Values, q: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """(which values come back, their last bits, how many of these) of flat values; zeros and what rounds to them do not come back, unless +0."""
    dtype = str(x.dtype)
    bits = tail_bits(m, q, dtype)
    if m.kind == WHOLE:
        last = x.astype(np.int64) - m.values(q, dtype)
        return last >= 0, last, bits
    base = ordered(m.values(q, dtype))
    last = np.where(x < 0, base - ordered(x), ordered(x) - base)
    return (last >= 0) & (last < np.int64(1) << bits), last, bits


def join_tails(m: Map, q: NDArray[np.int64], dtype: str, last: NDArray[np.int64]) -> Values:
    base = m.values(q, dtype)
    if m.kind == WHOLE:
        return (base + last).astype(dtype)
    k = ordered(base)
    return from_ordered(np.where(base < 0, k - last, k + last), dtype)


def pack_bits(values: NDArray[np.int64], bits: NDArray[np.int64]) -> bytes:
    """Bit plane by bit plane, the lowest first: of each plane the points that have it."""
    planes = [(values[bits > b] >> b & 1).astype(np.uint8) for b in range(int(bits.max(initial=0)))]
    return np.packbits(np.concatenate(planes)).tobytes() if planes else b""


def unpack_bits(raw: bytes, bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Raises FormatError where there are too few."""
    total = int(bits.sum())
    if len(raw) < -(-total // 8):
        raise FormatError("damaged block: last bits are missing")
    flat = np.unpackbits(np.frombuffer(raw, np.uint8), count=total).astype(np.int64)
    values, cursor = np.zeros(len(bits), np.int64), 0
    for b in range(int(bits.max(initial=0))):
        where = np.flatnonzero(bits > b)
        values[where] |= flat[cursor : cursor + len(where)] << b
        cursor += len(where)
    return values


def _deflated(raw: bytes) -> bytes:
    return zlib.compress(raw, 6) if raw else b""
