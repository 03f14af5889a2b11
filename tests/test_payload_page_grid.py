"""docs/FORMAT.md is enough to write a decoder of grid-rgb: here is one in plain numpy, made from section 12 and the preset's weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import latentpress
from latentpress import api, container
from tests.helpers import deep, natural
from tests.test_payload_page import Array, Stream, act, convolve

PRESET = Path(latentpress.__file__).parent / "presets" / "grid-rgb" / "weights.safetensors"
SQUARE = [(y, x) for y in range(-1, 3) for x in range(-1, 3) if not (0 <= y <= 1 and 0 <= x <= 1)]


def places(text: str) -> list[tuple[str, int, int]]:
    """"ee (0,0) (0,1) oo (-1,0)" as triples."""
    found, group = [], ""
    for word in text.split():
        if word.startswith("("):
            y, x = word.strip("()").split(",")
            found.append((group, int(y), int(x)))
        else:
            group = word
    return found


PLACES = {
    "oo": places("ee (0,0) (0,1) (1,0) (1,1)") + [("ee", y, x) for y, x in SQUARE],
    "eo": places("ee (0,0) (0,1) oo (-1,0) (0,0) ee (-1,0) (-1,1) (1,0) (1,1) (0,-1) (0,2) oo (-1,-1) (-1,1) (0,-1) (0,1) (-2,0) (1,0)"),
    "oe": places("ee (0,0) (1,0) oo (0,-1) (0,0) eo (0,-1) (0,0) (1,-1) (1,0) ee (0,-1) (0,1) (1,-1) (1,1) (-1,0) (2,0) "
                 "oo (0,-2) (0,1) eo (-1,0) (2,0) (0,-2) (0,1)"),
}  # fmt: skip
CELLS = {"oo": (1, 1), "eo": (0, 1), "oe": (1, 0)}
BITS = [4] * 18 + [3] * 4 + [2] * 4 + [1] * 4 + [0] * 13


def lg(x: Array) -> Array:
    e = np.floor(np.log2(x)).astype(np.int64)
    e += (2 ** (e + 1) <= x).astype(np.int64) - (2**e > x).astype(np.int64)
    return 8 * e + 8 * x // 2**e - 8


def eleven_bits(values: Array) -> Array:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 2.0**11), exponent - 11)


LOGS = np.arange(256.0)
Q = 2.0 ** np.floor(LOGS / 8) * (1 + (LOGS % 8 + 0.5) / 8)
R, A, S = eleven_bits(192 / Q), eleven_bits(Q / 3), eleven_bits(2.0 ** (-LOGS / 8 + np.log2(48)))


def near(part: Array, dy: int, dx: int) -> Array:
    h, w = part.shape[1:]
    return part[:, np.clip(np.arange(h) + dy, 0, h - 1)][:, :, np.clip(np.arange(w) + dx, 0, w - 1)]


def rounded(x: Array) -> Array:
    return np.clip(np.floor(x + 0.5), -96, 96).astype(np.int64)


class Reader:
    scales, lows, octaves = 207, 12, 0  # octaves: the row of `octave` that stands for the finest one
    peak, lanes = 255, 2

    def __init__(self, weights: dict[str, Array], payload: bytes, planes: int, size: tuple[int, int]) -> None:
        self.weights, self.count, self.streams = weights, planes, []
        for _ in range(self.lanes - 1 if -(-size[0] // 2) * -(-size[1] // 2) >= 4096 else 0):
            words = int.from_bytes(payload[:4], "little")
            self.streams.append(Stream(payload[4 : 4 + 4 * words]))
            payload = payload[4 + 4 * words :]
        self.streams.append(Stream(payload))
        self.stream = self.streams[0]
        self.x = np.zeros((3, *size), np.int64)

    def layer(self, name: str, x: Array, source: int, target: tuple[int, int]) -> Array:
        weight, bias, fraction = (self.weights[f"network.groups.{name}.{k}"].astype(np.int64) for k in ("weight", "bias", "fraction"))
        shift = (fraction + source - target[0])[:, None, None]
        total = np.rint(convolve(x, weight)).astype(np.int64) + bias[:, None, None] + (1 << shift - 1)
        return np.clip(total >> shift, -target[1], target[1])

    def group(self, rows: Array) -> Array:
        return self.stream.group(rows, self.weights, "tables")

    def read(self) -> Array:
        h, w = self.x.shape[1:]
        n = 0
        while max(-(-h // 2**n), -(-w // 2**n)) > 8:
            n += 1
        base = self.x[: self.count, :: 2**n, :: 2**n]
        values = self.group(np.full(base.size, 356)).reshape(self.count, -1)
        base[:] = np.cumsum(values, 1).reshape(base.shape)
        misses = np.full((3, *base.shape[1:]), 64)
        for o in reversed(range(n)):
            misses = self.octave(o, misses)
        for stream in self.streams:
            stream.close()
        return self.x[: self.count]

    def octave(self, o: int, misses: Array) -> Array:
        grid = self.x[:, :: 2**o, :: 2**o]
        parts, missed = {"ee": grid[:, ::2, ::2].copy()}, {"ee": misses}
        full = np.zeros_like(grid)
        full[:, ::2, ::2] = misses
        size = parts["ee"].shape[1:]
        for g, (name, (i, j)) in enumerate(CELLS.items()):
            target = grid[:, i::2, j::2]
            if not target.size:
                parts[name], missed[name] = parts["ee"], missed["ee"]
                continue
            error = full[:, i::2, j::2]
            self.points = np.s_[i * 2**o :: 2 ** (o + 1), j * 2**o :: 2 ** (o + 1)]
            self.one(g, name, o, parts, missed, target, error)
            more = ((0, 0), (0, size[0] - target.shape[1]), (0, size[1] - target.shape[2]))
            parts[name], missed[name] = np.pad(target, more, mode="edge"), np.pad(error, more, mode="edge")
        return full

    def one(self, g: int, name: str, o: int, parts: dict[str, Array], missed: dict[str, Array], target: Array, error: Array) -> None:
        around = np.stack([near(parts[p], y, x) for p, y, x in PLACES[name]])
        total = around[:4].sum(0)
        d = 4 * around - total
        log = lg(19 + np.abs(d[:12]).sum(0))
        m = np.stack([near(np.abs(missed[p]), y, x) for p, y, x in PLACES[name][:4]]).sum(0)
        features = [rounded(d * R[log]).reshape(-1, *log.shape[1:]), np.clip(log - 61, -96, 96), np.clip(2 * (lg(8 + m) - log - 3), -96, 96)]
        activation = (6, 2047)

        def clip(x: Array) -> Array:
            return np.clip(x, -2047, 2047)

        bias = self.weights[f"network.groups.{name}.octave"][self.octaves + min(o, 4)].astype(np.int64)[:, None, None]
        h = clip(self.layer(f"{name}.enter", np.concatenate(features), 4, activation) + bias)
        for b in range(2):
            t = act(self.layer(f"{name}.blocks.{b}.0", h, 6, activation))
            t = act(self.layer(f"{name}.blocks.{b}.1", t, 6, activation))
            h = clip(h + self.layer(f"{name}.blocks.{b}.2", t, 6, activation))
        inside = np.s_[:, : target.shape[1], : target.shape[2]]
        h, total, log, d = act(h)[inside], total[inside], log[inside], d[:, :, : target.shape[1], : target.shape[2]]
        missing = np.stack([near(missed[p], y, x) for p, y, x in PLACES[name][:4]])[:, :, : target.shape[1], : target.shape[2]]
        rows, points = target.shape[1], self.points
        count = self.lanes if target[0].size >= 4096 else 1
        for lane in range(count):
            part = np.s_[..., rows * lane // count : rows * (lane + 1) // count, :]
            self.stream = self.streams[lane]
            self.points = tuple(np.arange(self.x.shape[1 + i])[p][np.s_[part[1]] if i == 0 else np.s_[:]] for i, p in enumerate(points))
            self.points = np.ix_(*self.points)
            self.lane(g, name, h[part], total[part], log[part], d[part], missing[part], target[part], error[part])
        self.stream = self.streams[0]

    def lane(
        self, g: int, name: str, h: Array, total: Array, log: Array, d: Array, missing: Array, target: Array, error: Array
    ) -> None:  # fmt: skip
        seen: list[Array] = []
        rest: list[Array] = []
        for k in range(self.count):
            t = act(self.layer(f"{name}.head.{k}.0", np.stack([*h, *seen]), 6, (6, 2047)))
            a, b2 = self.layer(f"{name}.head.{k}.1", t, 6, (6, 1023))
            location = 4 * total[k] + self.linear(f"{name}.linear.{k}", k, d.reshape(-1, *d.shape[2:]), rest)
            location = location + np.floor(a * A[log[k]] / 64).astype(np.int64)
            scale = np.clip((2 * (8 * log[k] + b2) + 8) // 16, 0, self.scales)
            if location.size >= 1024:
                location, scale = self.fitted(k, location, scale, d, rest, error, missing)
            value = self.values(3 * g + k, location.ravel(), scale.ravel()).reshape(location.shape)
            target[k] = value
            error[k] = 16 * value - location
            seen += [4 * rounded((4 * value - total[k]) * R[log[k]]), 4 * rounded((16 * value - location) * S[scale])]
            rest.append(4 * value - total[k])

    def fitted(
        self, k: int, location: Array, scale: Array, d: Array, rest: list[Array], error: Array, missing: Array
    ) -> tuple[Array, Array]:  # fmt: skip
        f = int(self.group(np.array([192]))[0])
        if not f:
            return location, scale
        bend = np.zeros_like(scale)
        if int(self.group(np.array([192]))[0]):
            p = int(self.group(np.array([3218]))[0])
            bend = self.group(np.full(6, 312))[sum((scale >= 4 * p + t).astype(int) for t in (-12, -6, -2, 2, 8))]
        scale = np.clip(scale + abs(f) - 8 + bend, 0, self.scales)
        if f > 0:
            return location, scale
        r = int(self.group(np.array([3218]))[0])
        features = [*(4 * d[:, k])]
        for other in range(self.count):
            if other != k:
                features += [*(4 * d[:8, other])]
        e = [*error[:k], *missing[:, k]]
        features += [*(4 * v for v in rest), *(np.clip(v, -4095, 4095) if self.peak == 255 else v for v in e), np.full_like(location, 16)]
        c = self.group(np.full(len(features), sum(1 << b for b in BITS[:r])))
        moved = (np.tensordot(c, np.stack(features), 1) + 64) // 128
        limit = 16 * self.peak
        return np.clip(location + np.clip(moved, -limit, limit), -limit, limit), scale

    def linear(self, name: str, k: int, d: Array, rest: list[Array]) -> Array:
        return self.layer(name, np.stack([*d, *rest]), 2, (4, 1 << 20))[0]

    def values(self, shape: int, location: Array, scale: Array) -> Array:
        index = (scale - 44) // 2 + 18
        low = np.clip((index - 39) // 4, 0, self.lows)
        row = np.clip(index - 4 * low, 0, 42)
        base, table = np.zeros_like(location), np.zeros_like(location)
        for p in range(len(location)):
            bits = BITS[row[p]]
            if low[p]:
                base[p] = (location[p] >> 4) - (1 << low[p] - 1)
                fraction = 0
            else:
                fine = location[p] if bits == 4 else (location[p] + (1 << 3 - bits)) >> 4 - bits << 4 - bits
                base[p], fraction = fine >> 4, (fine % 16) >> 4 - bits
            table[p] = 357 * shape + sum(1 << b for b in BITS[: row[p]]) + fraction
        return base + self.residual(table, low)

    def residual(self, table: Array, low: Array) -> Array:
        symbols = self.group(table)
        flat = np.zeros_like(symbols)
        for first in range(0, self.lows, 12):
            wide = np.flatnonzero(low > first)
            if len(wide):
                flat[wide] += self.group(3213 + np.minimum(low[wide] - first, 12) - 1) << first
        return (symbols << low) + flat


def samples(planes: Array, dtype: Any) -> Array:
    if len(planes) == 1:
        return planes[0].astype(dtype)
    y, co, cg = planes
    t = y - (cg >> 1)
    g = cg + t
    b = t - (co >> 1)
    return np.stack([b + co, g, b], 2).astype(dtype)


@pytest.mark.parametrize("make", [
    lambda: natural(40, 52), lambda: natural(17, 33)[..., 0], lambda: deep(natural(18, 21)), lambda: natural(1, 30), lambda: natural(5, 5),
    lambda: natural(150, 170), lambda: natural(131, 128)[..., 1], lambda: deep(natural(130, 140)),
    lambda: np.random.default_rng(4).integers(0, 65536, (12, 10, 3)).astype(np.uint16),
])  # fmt: skip
def test_the_page_decodes_what_the_package_wrote(make: Any) -> None:
    data = make()
    encoded = container.read(api.encode(data, lossless=True)).encoded
    planes = 3 if data.ndim == 3 else 1
    reader = Reader(load_file(PRESET), encoded.chunks[0].payload, planes, data.shape[:2])
    reader.peak = 255 if data.dtype == np.uint8 else 65535
    assert np.array_equal(samples(reader.read(), data.dtype), data)
