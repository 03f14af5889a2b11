"""What surrounds the transform of a field codec: units of a plane, missing points, rings of longitude, filling up to whole blocks.

    plane --mean, deviation--> around 0 --missing points filled smoothly--> --filled up--> what a transform sees

The mean and deviation are float32 in the file, and the encoder normalises by those very numbers. Missing points (NaN) are a mask of bits.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import FormatError

MISSING, CONSTANT, FIELD = 0, 1, 2  # kinds of a plane
OWN_MASK, SAME_MASK = 4, 8  # added to CONSTANT or FIELD: a mask follows; the mask is that of the plane before
RING_JUMP = 1.5  # times the usual difference of neighbouring columns that the last and first may differ on a ring
RING_LEAST = 16  # columns of the narrowest ring
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Unit:
    """Of one plane, or a tile of one: kind, what 0 and 1 of the transform stand for, and which points are known (None: all)."""

    kind: int
    mean: float = 0.0
    deviation: float = 0.0
    known: Mask | None = None


def unit_of(plane: NDArray[np.floating]) -> Unit:
    """Kind, mean and deviation of [h, w] over its known points. A plane whose deviation float32 cannot hold is CONSTANT."""
    known = ~np.isnan(plane)
    if not known.any():
        return Unit(MISSING)
    values = plane[known].astype(np.float64)
    mean = float(np.float32(values.mean()))
    deviation = float(np.float32(np.sqrt(np.square(values - mean).mean())))
    kind = FIELD if deviation >= np.finfo(np.float32).tiny else CONSTANT
    return Unit(kind, mean, deviation if kind == FIELD else 0.0, None if known.all() else known)


def normalised(plane: NDArray[np.floating], unit: Unit) -> NDArray[np.float32]:
    """[h, w] of a FIELD around 0, missing points filled."""
    x = (plane.astype(np.float64) - unit.mean) / unit.deviation
    return (x if unit.known is None else filled(x, unit.known)).astype(np.float32)


def restored(x: NDArray[np.float32] | None, unit: Unit, shape: tuple[int, int], dtype: str) -> NDArray[np.floating]:
    """Inverse of `normalised`, missing points NaN; x is not needed for other kinds than FIELD."""
    if unit.kind == MISSING:
        return np.full(shape, np.nan, dtype)
    if unit.kind == CONSTANT or x is None:
        out = np.full(shape, unit.mean, dtype)
    else:
        out = (x.astype(np.float64) * unit.deviation + unit.mean).astype(dtype)
    if unit.known is not None:
        out[~unit.known] = np.nan
    return out


def filled(x: NDArray[np.float64], known: Mask) -> NDArray[np.float64]:
    """Unknown points get means of known ones near by: known points are averaged over ever larger cells, and cells without any take the next size."""
    if known.all():
        return x
    if not known.any():
        return np.zeros_like(x)
    h, w = x.shape
    even = ((0, h % 2), (0, w % 2))
    count = np.pad(known, even).astype(np.float64)
    total = np.pad(np.where(known, x, 0.0), even)
    count, total = (a.reshape(-(-h // 2), 2, -(-w // 2), 2).sum((1, 3)) for a in (count, total))
    coarse = filled(np.divide(total, count, out=np.zeros_like(total), where=count > 0), count > 0)
    return np.where(known, x, doubled(coarse)[:h, :w])


def doubled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the size along both axes, linear between the centres of cells."""
    for axis in (0, 1):
        first, last = np.take(x, [0], axis), np.take(x, [-1], axis)
        before, after = np.concatenate([first, x], axis), np.concatenate([x, last], axis)
        low, high = 0.25 * np.delete(before, -1, axis) + 0.75 * x, 0.75 * x + 0.25 * np.delete(after, 0, axis)
        x = np.stack([low, high], axis + 1).reshape([2 * n if a == axis else n for a, n in enumerate(x.shape)])
    return x


def is_ring(plane: NDArray[np.floating]) -> bool:
    """Whether the last column of [h, w] goes on at the first, as on a global grid: their difference is like that of neighbours."""
    if plane.shape[1] < RING_LEAST:
        return False
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(plane.astype(np.float64), axis=1, append=plane[:, :1]))
    counted = np.isfinite(steps)
    if counted[:, -1].sum() * 2 < max(1, counted.any(1).sum()):
        return False
    sums, counts = np.where(counted, steps, 0).sum(0), counted.sum(0)
    means = sums[counts > 0] / counts[counts > 0]
    return bool(means[-1] <= RING_JUMP * np.median(means)) and bool(means.max() > 0)


def padded(x: NDArray[np.float32], height: int, width: int, ring: bool) -> NDArray[np.float32]:
    """[n, h, w] filled up to [n, height, width]. The last row repeats (at a pole all meridians meet in one value, and a value costs nothing to
    repeat); columns repeat too, or, on a ring, lead over to the first column in even steps, so that the ring stays one."""
    _, h, w = x.shape
    if ring and width > w:
        share = (np.arange(1, width - w + 1, dtype=np.float32) / (width - w + 1))[None, None]
        x = np.concatenate([x, x[:, :, -1:] * (1 - share) + x[:, :, :1] * share], 2)
    return np.pad(x, ((0, 0), (0, height - h), (0, width - x.shape[2])), mode="edge")


# ---- what stands before the stream of a chunk


def pack_units(units: list[Unit]) -> bytes:
    """Kinds, float32 numbers and masks of the planes of a chunk; docs/FORMAT.md has the bytes."""
    out, last = b"", None
    for unit in units:
        mask = None if unit.known is None else np.packbits(~unit.known).tobytes()
        flag = 0 if mask is None else SAME_MASK if mask == last else OWN_MASK
        numbers = {MISSING: (), CONSTANT: (unit.mean,), FIELD: (unit.mean, unit.deviation)}[unit.kind]
        out += bytes([unit.kind + flag]) + struct.pack(f"<{len(numbers)}f", *numbers)
        if flag == OWN_MASK:
            assert mask is not None
            deflated = zlib.compress(mask, 9)
            out += struct.pack("<I", len(deflated)) + deflated
        last = mask if mask is not None else last
    return out


def unpack_units(payload: bytes, planes: int, shape: tuple[int, int]) -> tuple[list[Unit], int]:
    """(units, bytes used) of a chunk with so many planes of this shape. Raises FormatError."""
    units: list[Unit] = []
    at, last = 0, None
    for _ in range(planes):
        code = _bytes(payload, at, 1)[0]
        at += 1
        kind, flag = code & 3, code & ~3
        if kind > FIELD or flag not in (0, OWN_MASK, SAME_MASK) or (kind == MISSING and flag) or (flag == SAME_MASK and last is None):
            raise FormatError(f"damaged chunk: no plane is of kind {code}")
        numbers = struct.unpack(f"<{kind}f", _bytes(payload, at, 4 * kind))
        at += 4 * kind
        if not np.isfinite(numbers).all() or (kind == FIELD and numbers[1] <= 0):
            raise FormatError(f"damaged chunk: mean and deviation {numbers}")
        if flag == OWN_MASK:
            (size,) = struct.unpack("<I", _bytes(payload, at, 4))
            last = _mask(_bytes(payload, at + 4, size), shape)
            at += 4 + size
        mean, deviation = (*numbers, 0.0, 0.0)[:2]
        units.append(Unit(kind, mean, deviation, last if flag else None))
    return units, at


def _bytes(payload: bytes, at: int, size: int) -> bytes:
    part = payload[at : at + size]
    if len(part) != size:
        raise FormatError("damaged chunk: it ends inside what is said of its planes")
    return part


def _mask(deflated: bytes, shape: tuple[int, int]) -> Mask:
    size = -(-shape[0] * shape[1] // 8)
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(deflated, size + 1)
    except zlib.error as error:
        raise FormatError(f"damaged chunk: the mask of missing points does not inflate ({error})") from error
    if len(raw) != size or not stream.eof or stream.unused_data:
        raise FormatError(f"damaged chunk: a mask of {size} bytes expected")
    return np.unpackbits(np.frombuffer(raw, np.uint8), count=shape[0] * shape[1]).reshape(shape) == 0
