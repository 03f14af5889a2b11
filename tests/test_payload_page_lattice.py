"""docs/FORMAT.md is enough to write a decoder of lattice: here is one in plain numpy, made from sections 12 and 16 and the preset's weights alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import latentpress
from latentpress import container
from latentpress.codecs.base import Signal, Target
from latentpress.codecs.registry import load_codec
from tests.test_payload_page import Array
from tests.test_payload_page_grid import Reader

PRESET = Path(latentpress.__file__).parent / "presets" / "lattice" / "weights.safetensors"
WHOLE, LINEAR, FLOATING, ORDERED = range(4)


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def v(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def s(self) -> int:
        value = self.v()
        return -(value >> 1) - 1 if value & 1 else value >> 1


def inflate(part: bytes) -> bytes:
    return zlib.decompress(part) if part else b""


class FieldReader(Reader):
    """Section 12 with what section 16 adds: points apart, shifts, no linear predictors across planes, wide integers."""

    def __init__(self, weights: dict[str, Array], payload: bytes, known: Array, shifts: Array, wide: bool, closed: bool) -> None:
        super().__init__(weights, payload, len(known), known.shape[1:])
        self.known, self.shifts, self.closed, self.octaves = known, shifts + 4 if closed else shifts, closed, 5 if closed else 0
        self.peak = 2**24 - 1 if wide else 65535
        self.scales, self.lows, self.base_limit = (255, 20, 1 << 28) if wide else (207, 12, 1 << 20)

    def read(self) -> Array:
        h, w = self.x.shape[1:]
        n = 0
        while max(-(-h // 2**n), -(-w // 2**n)) > 8:
            n += 1
        every = np.s_[:, :: 2**n, :: 2**n]
        base, known = self.x[: self.count][every], self.known[every]
        shifts = np.broadcast_to(self.shifts, self.known.shape)[every]
        rows = np.full(self.count, 356)
        if self.closed:
            rows = 3225 + self.group(np.full(self.count, 3213 + 7 - 1))
        found = iter(self.group(np.repeat(rows, known.sum((1, 2)))))
        for k in range(self.count):
            last = 0
            for y, x in np.ndindex(*base.shape[1:]):
                j = int(shifts[k, y, x])
                last = (last >> j) + int(next(found)) if known[k, y, x] else int(np.clip(last >> j, -(self.peak >> j), self.peak >> j))
                last <<= j
                base[k, y, x] = last
        misses = np.full((3, *base.shape[1:]), 64)
        for o in reversed(range(n)):
            misses = self.octave(o, misses)
        for stream in self.streams:
            stream.close()
        return self.x[: self.count]

    def linear(self, name: str, k: int, d: Array, rest: list[Array]) -> Array:
        return self.layer(name, np.stack(d[k::3]), 2, (4, self.base_limit))[0]

    def values(self, shape: int, location: Array, scale: Array) -> Array:
        known, j = self.known[shape % 3][self.points].ravel(), self.shifts[self.points].ravel().astype(np.int64)
        if self.closed:
            index = (scale - 8 * j - 44) // 2 + 40
            low = np.clip((index - 61) // 4, 0, self.lows)
            row = 3225 + 65 * shape + np.clip(index - 4 * low, 0, 64)
            origin = np.clip(location + 8 >> 4, -self.peak, self.peak)
            steps = self.residual(row[known], low[known]) - (1 << low[known] >> 1)
            origin[known] += steps << j[known]
            return origin
        location, scale = location >> j, np.maximum(scale - 8 * j, 0)
        found = np.clip(location + 8 >> 4, -(self.peak >> j), self.peak >> j)
        found[known] = super().values(shape, location[known], scale[known])
        return found << j


def ordered(x: Array) -> Array:
    bits = x.view(f"i{x.itemsize}").astype(np.int64)
    return np.where(bits < 0, -1 - (bits & (1 << 8 * x.itemsize - 1) - 1), bits)


def from_ordered(k: Array, dtype: Any) -> Array:
    whole, size = np.dtype(f"i{dtype.itemsize}"), 8 * dtype.itemsize
    bits = np.where(k < 0, (-1 - k) - (1 << size - 1), k) if size == 32 else np.where(k < 0, (-1 - k) | np.iinfo(np.int64).min, k)
    return bits.astype(whole).view(dtype)


def decode(payload: bytes, shape: tuple[int, int, int], dtype: Any) -> Array:
    cursor = Cursor(payload)
    maps, shift_part, mask, apart, tails = (cursor.take(cursor.v()) for _ in range(5))
    inner, planes = Cursor(maps), []
    closed, origin = bool(maps[0] & 16), 0
    for _ in range(shape[0]):
        if maps[inner.at] & 8:
            flags, origin = inner.take(1)[0], origin + inner.s()
        else:
            flags, reference, step = struct.unpack("<Bdd", inner.take(17))
            multiple, origin = inner.v(), inner.s()
            amends = np.frombuffer(inflate(inner.take(inner.v())), "<i4").reshape(2, -1)
        planes.append((flags & 3, flags >> 2 & 1, reference, step, multiple, origin, amends))
    known = np.ones(shape, bool)
    if mask:
        bits = np.unpackbits(np.frombuffer(inflate(mask[1:]), np.uint8), count=known.size).astype(bool).reshape(shape)
        known = np.logical_xor.accumulate(~bits if mask[0] else bits, 0)
    shifts = np.zeros(shape[1:], np.int64)
    if shift_part:
        cells = np.frombuffer(inflate(shift_part), np.int8).reshape(-(-shape[1] // 8), -(-shape[2] // 8)).astype(np.int64)
        shifts = np.cumsum(cells, 1).repeat(8, 0).repeat(8, 1)[: shape[1], : shape[2]]
    q, weights = np.zeros(shape, np.int64), load_file(PRESET)
    for n in range(0, shape[0], 3):
        size = cursor.v()
        q[n : n + 3] = FieldReader(weights, cursor.take(size >> 1), known[n : n + 3], shifts, bool(size & 1), closed).read()
    assert cursor.at == len(payload)
    out, bits_of = np.zeros(shape, dtype), []
    for n, (kind, delta, reference, step, multiple, origin, amends) in enumerate(planes):
        q[n] = np.where(known[n], q[n], 0)
        if delta:
            q[n] += q[n - 1]
            q[n] = np.where(known[n], q[n], 0)
        k = (q[n] + origin) * multiple
        if kind == ORDERED:
            out[n] = from_ordered(k, dtype)
        elif kind == WHOLE:
            out[n] = np.clip(k * int(step) + int(reference), np.iinfo(dtype).min, np.iinfo(dtype).max)
        else:
            out[n] = (step * k.astype(np.float64) + (reference if kind == LINEAR else 0)).astype(dtype)
        if amends.size:
            by = np.zeros(shape[1:], np.int64)
            for where, places in amends.T:
                by[q[n] == where] = places
            out[n] = np.where(by == 0, out[n], from_ordered(ordered(out[n]) + by, dtype))
        bits = np.zeros(shape[1:], np.int64)
        if kind == WHOLE:
            bits[:] = round(np.log2(step))
        elif kind == FLOATING:
            distance = np.log2(np.spacing(np.abs(out[n])).astype(np.float64))
            bits = np.where(out[n] == 0, 0, np.clip(round(np.log2(step)) - distance, 0, np.finfo(dtype).nmant)).astype(np.int64)
        bits_of.append(bits[known[n]])
    last = unpacked(inflate(tails), np.concatenate(bits_of))
    for n, bits in enumerate(bits_of):
        mine, last = last[: len(bits)], last[len(bits) :]
        if planes[n][0] == WHOLE:
            out[n][known[n]] += mine.astype(dtype)
        elif planes[n][0] == FLOATING:
            base = out[n][known[n]]
            out[n][known[n]] = from_ordered(ordered(base) + np.where(base < 0, -mine, mine), dtype)
    values = np.frombuffer(inflate(apart), f"<u{dtype.itemsize}").view(dtype)
    out[~known] = values if len(values) != 1 else values[0]
    return out


def unpacked(raw: bytes, bits: Array) -> Array:
    flat, values, at = np.unpackbits(np.frombuffer(raw, np.uint8)), np.zeros(len(bits), np.int64), 0
    for b in range(int(bits.max(initial=0))):
        where = np.flatnonzero(bits > b)
        values[where] |= flat[at : at + len(where)].astype(np.int64) << b
        at += len(where)
    return values


def field(*shape: int, noise: float = 0.05) -> Array:
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    smooth = 10 * np.sin(y / 5) + 7 * np.cos(x / 6 + y / 9) + np.arange(int(np.prod(shape[:-2]))).reshape(*shape[:-2], 1, 1)
    return (smooth + np.random.default_rng(3).normal(0, noise, shape)).astype(np.float32)


def with_land(x: Array) -> Array:
    x[:, 2:7, 3:12] = np.nan
    x[0, 0, 0] = -0.0
    return x


BOUND = 10.0 ** np.linspace(-3, 0, 25) * np.ones((20, 1))


@pytest.mark.parametrize(("make", "target"), [
    (lambda: field(1, 20, 25), Target(max_error=0.05)),
    (lambda: with_land(field(4, 20, 25)), Target(max_error=0.05)),
    (lambda: with_land(field(2, 20, 25)), Target(max_error=0.0)),
    (lambda: field(1, 12, 9).astype(np.float64), Target(max_error=0.0)),
    (lambda: (280 + np.round(field(3, 20, 25) * 512) / 512).astype(np.float32), Target(max_error=0.0)),
    (lambda: field(2, 20, 25), Target(max_rel_error=0.001)),
    (lambda: with_land(field(2, 20, 25, noise=1.0)), Target(max_error=np.broadcast_to(BOUND, (2, 20, 25)))),
    (lambda: np.repeat(field(1, 20, 25, noise=2.0), 4, 0), Target(max_error=0.01)),
    (lambda: field(1, 20, 25, noise=5.0), Target(max_error=0.00002)),
    (lambda: np.random.default_rng(5).integers(-(2**31), 2**31, (2, 9, 10)).astype(np.int32), Target(max_error=0.0)),
    (lambda: np.round(field(1, 20, 25) * 100).astype(np.int16), Target(max_error=3.0)),
    (lambda: np.round(field(2, 20, 25) * 100).astype(np.int16), Target(max_error=300.0)),
    (lambda: with_land(field(5, 20, 25)), Target(max_error=0.5)),
    (lambda: with_land(field(2, 20, 25)), Target(max_rel_error=0.1)),
    (lambda: np.repeat(field(1, 20, 25, noise=2.0), 4, 0), Target(max_error=1.0)),
    (lambda: with_land(field(2, 20, 25)), Target(max_error=np.broadcast_to(BOUND + 0.5, (2, 20, 25)))),
    (lambda: 1e5 + 1000.0 * field(1, 20, 25).astype(np.float64), Target(max_error=0.03)),
])  # fmt: skip
def test_the_page_decodes_what_the_package_wrote(make: Any, target: Target) -> None:
    data = make()
    codec: Any = load_codec("lattice")
    encoded = container.read(container.write(codec.encode(Signal(data=data, dims=("plane", "y", "x")), target))).encoded
    assert len(encoded.chunks) == 1
    back = decode(encoded.chunks[0].payload, data.shape, data.dtype)
    assert back.tobytes() == codec.decode(encoded).data.tobytes()


def test_both_ways_of_coding_are_read_above() -> None:
    codec: Any = load_codec("lattice")
    first = (codec.encode(Signal(data=field(1, 20, 25), dims=("plane", "y", "x")), Target(max_error=e)).chunks[0].payload for e in (0.5, 0.001))
    assert [bool(Cursor(payload[1:]).take(1)[0] & 16) for payload in first] == [True, False]
