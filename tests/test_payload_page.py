"""docs/FORMAT.md is enough to write a decoder: here is one in plain numpy, made from sections 9 and 10 and a preset's weights alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import latentpress
from latentpress import api, container
from latentpress.codecs.base import Signal, Target
from latentpress.codecs.registry import load_codec
from latentpress.codecs.tiled import Tiled
from latentpress.entropy.coder import Encoder, SequentialEncoder
from latentpress.entropy.tables import Tables, gaussian_tables
from tests.helpers import natural

GOLDEN = Path(__file__).parent / "golden"
PRESETS = Path(latentpress.__file__).parent / "presets"
FORMATS = {"hyper": (0, 127), "hidden": (6, 1024), "activation": (6, 2048), "latent": (4, 8192), "output": (4, 16384)}
POSITIONS = ((0, 0), (1, 1), (0, 1), (1, 0))
Array = np.ndarray[Any, np.dtype[Any]]


class Stream:
    """[9.2]"""

    def __init__(self, payload: bytes) -> None:
        self.words = [int(w) for w in np.frombuffer(payload, "<u4")]
        self.state = 0
        self._fill()
        self._fill()

    def _fill(self) -> None:
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, c: Array) -> int:
        q = self.state & 0xFFFFFF
        k = int(np.searchsorted(c, q, "right")) - 1
        self.state = (self.state >> 24) * int(c[k + 1] - c[k]) + q - int(c[k])
        self._fill()
        return k

    def bits(self, b: int) -> int:
        q, p = self.state & 0xFFFFFF, 1 << 24 - b
        self.state = (self.state >> 24) * p + q % p
        self._fill()
        return q // p

    def group(self, rows: Array, weights: dict[str, Array], name: str) -> Array:
        start, low, cdf = (weights[f"{name}.{k}"] for k in ("start", "low", "cdf"))
        out, escaped = np.zeros(len(rows), np.int64), []
        for r in sorted(set(rows.tolist())):
            c = cdf[start[r] : start[r + 1]]
            for at in np.flatnonzero(rows == r):
                k = self.symbol(c)
                out[at] = low[r] + k
                if k == len(c) - 2:
                    escaped.append(int(at))
        escaped.sort()
        digits = {at: self.bits(5) for at in escaped}
        values = {at: 1 << d for at, d in digits.items()}
        for part, size in itertools.product((0, 16), range(1, 17)):
            for at, d in digits.items():
                if min(d - part, 16) == size:
                    values[at] |= self.bits(size) << part
        for at, v in values.items():
            first, above = int(low[rows[at]]), int(out[at])
            out[at] = above + (v - 1) // 2 if v % 2 else first - v // 2
        return out

    def close(self) -> None:
        assert self.state == 0 and not self.words


class RangeStream(Stream):
    """[11] the same interface over the range coder"""

    def __init__(self, payload: bytes) -> None:
        self.words = [int(w) for w in np.frombuffer(payload, "<u4")]
        self.lower, self.range, self.point = 0, 2**64 - 1, 0
        for _ in range(2):
            self._next()

    def _next(self) -> None:
        self.point = (self.point << 32) % 2**64 + (self.words.pop(0) if self.words else 0)

    def symbol(self, c: Array) -> int:
        scale = self.range >> 24
        q = (self.point - self.lower) % 2**64 // scale
        assert q < 2**24, "damage"
        k = int(np.searchsorted(c, q, "right")) - 1
        self.lower, self.range = (self.lower + scale * int(c[k])) % 2**64, scale * int(c[k + 1] - c[k])
        if self.range < 2**32:
            self.lower, self.range = (self.lower << 32) % 2**64, self.range << 32
            self._next()
        return k

    def bits(self, b: int) -> int:
        return self.symbol(np.arange(2**b + 1) << 24 - b)


def convolve(x: Array, weight: Array, pad: str = "constant") -> Array:
    """[channels, h, w] in float64, groups from the shapes."""
    outputs, inputs, size, _ = weight.shape
    groups, r = x.shape[0] // inputs, size // 2
    _, h, w = x.shape
    x = np.pad(x.astype(np.float64), ((0, 0), (r, r), (r, r)), mode=pad)  # type: ignore[call-overload]
    x, weight = x.reshape(groups, inputs, *x.shape[1:]), weight.astype(np.float64).reshape(groups, -1, inputs, size, size)
    out = np.zeros((groups, outputs // groups, h * w))
    for i, j in itertools.product(range(size), repeat=2):
        out += weight[:, :, :, i, j] @ x[:, :, i : i + h, j : j + w].reshape(groups, inputs, h * w)
    return out.reshape(outputs, h, w)


def shuffle(x: Array, r: int) -> Array:
    c, h, w = x.shape
    return x.reshape(c // r**2, r, r, h, w).transpose(0, 3, 1, 4, 2).reshape(c // r**2, h * r, w * r)


def act(x: Array) -> Array:
    return np.maximum(x, x >> 3)


def clip(x: Array) -> Array:
    return np.clip(x, -2048, 2048)


class Prior:
    """[9.3 to 9.5]"""

    def __init__(self, weights: dict[str, Array], level: int, skip: int) -> None:
        self.weights, self.level, self.skip = weights, level, skip

    def layer(self, name: str, x: Array, source: str, target: str) -> Array:
        weight, bias, fraction = (self.weights[f"network.{name}.{k}"].astype(np.int64) for k in ("weight", "bias", "fraction"))
        shift = (fraction + FORMATS[source][0] - FORMATS[target][0])[:, None, None]
        total = convolve(x, weight).astype(np.int64) + bias[:, None, None] + (1 << shift - 1)
        return np.clip(total >> shift, -FORMATS[target][1], FORMATS[target][1])

    def base(self, z: Array) -> Array:
        table, i = self.weights["network.level_bias"].astype(np.int64), min(self.level // 128, 6)
        t = self.level - 128 * i
        bias = (table[i] * (128 - t) + table[i + 1] * t + 64) // 128
        x = act(shuffle(self.layer("up.0", z, "hyper", "hidden"), 2))
        x = act(shuffle(self.layer("up.2", self.layer("up.1", x, "hidden", "hidden"), "hidden", "hidden"), 2))
        return clip(self.layer("up.3", x, "hidden", "activation") + bias[:, None, None])

    def decode(self, payload: bytes, h: int, w: int) -> tuple[Array, Array]:
        """All symbols, and the latents in sixteenths."""
        stream, a = Stream(payload), "activation"
        group = self.level * (len(self.weights["z_tables.low"]) // 64) // 897
        z = stream.group(np.tile(np.arange(64) + group * 64, h * w // 16), self.weights, "z_tables")
        symbols, known = [z], np.zeros((320, h, w), np.int64)
        base = self.base(z.reshape(h // 4, w // 4, 64).transpose(2, 0, 1))
        for k in range(4):
            f = base
            if k:
                near = self.layer(f"near.{k - 1}", np.clip(known, -8192, 8192), "latent", a)
                f = clip(base + self.layer(f"mix.{k - 1}", near, a, a))
            f = act(f)
            inner = act(self.layer("block.1", act(self.layer("block.0", f, a, a)), a, a))
            f = act(clip(f + self.layer("block.2", inner, a, a)))
            places = [POSITIONS[(k + g) % 4] for g in range(4)]
            out = [self.layer(f"out.{4 * k + g}", f[:, i::2, j::2], a, "output") for g, (i, j) in enumerate(places)]
            mean, scale = np.concatenate([o[:80] for o in out]), np.concatenate([o[80:] for o in out])
            row = np.clip((scale + 1) // 2 + 18, 0, 63).transpose(1, 2, 0).ravel()
            residual = np.zeros(row.shape, np.int64)
            residual[row >= self.skip] = stream.group(row[row >= self.skip], self.weights, "y_tables")
            symbols.append(residual[row >= self.skip])
            values = mean + 16 * residual.reshape(h // 2, w // 2, 320).transpose(2, 0, 1)
            for g, (i, j) in enumerate(places):
                known[80 * g : 80 * g + 80, i::2, j::2] = values[80 * g : 80 * g + 80]
        stream.close()
        return np.concatenate(symbols), known


def dense(x: Array, weights: dict[str, Array], name: str, pad: str = "constant") -> Array:
    return convolve(x, weights[f"{name}.weight"], pad) + weights[f"{name}.bias"].astype(np.float64)[:, None, None]


def lrelu(x: Array) -> Array:
    return np.maximum(x, x / 8)


def blocks(x: Array, weights: dict[str, Array], name: str, pad: str = "constant") -> Array:
    for n in range(4):
        at = f"{name}.blocks.{n}"
        inner = lrelu(dense(lrelu(dense(x, weights, f"{at}.enter")), weights, f"{at}.depthwise", pad))
        x = x + dense(inner, weights, f"{at}.leave")
        x = x + dense(lrelu(dense(x, weights, f"{at}.widen")), weights, f"{at}.narrow")
    return x


def synthesis(known: Array, weights: dict[str, Array], level: int) -> Array:
    """[9.6] [3, h, w] in 0..1"""
    i = min(level // 128, 6)
    t, d = (level - 128 * i) / 128, weights["log_inverse"].astype(np.float64) - weights["log_gain"]
    y = known / 16 * np.exp(d[i] * (1 - t) + d[i + 1] * t)[:, None, None]
    x = blocks(shuffle(dense(y, weights, "synthesis.enter"), 2), weights, "synthesis")
    return shuffle(dense(x, weights, "synthesis.leave"), 8) + 0.5


# ---- [10]

AROUND: dict[int, list[tuple[int, int]]] = {
    0: [],
    1: [(-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (-3, -1), (-3, 1), (3, -1), (3, 1)],
    2: [(0, -1), (0, 1), (-1, 0), (1, 0), (-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2)],
    3: [(0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -2), (-1, 2), (1, -2), (1, 2)],
}
CELLS = {1: (1, 1), 2: (0, 1), 3: (1, 0)}


def inside(at: int, n: int, s: int) -> int:
    """May be below 0: then there is no such point."""
    if at < 0:
        at %= 2 * s
    while at >= n:
        at -= 2 * s
    return at


def groups(channels: int) -> Iterator[tuple[int, int, int]]:
    for c in range(channels):
        yield c, 8, 0
        yield from ((c, s, kind) for s in (4, 2, 1) for kind in (1, 2, 3))


def planes(payload: bytes, weights: dict[str, Array], channels: int, h: int, w: int) -> Array:
    stream, q, miss = Stream(payload), np.zeros((channels, h, w), np.int64), np.zeros((channels, h, w), np.int64)
    at_mean = at_scale = 0
    square = list(itertools.product((-1, 0, 1), repeat=2))

    def nearest(plane: Array, y: int, x: int) -> int:
        return int(plane[min(max(y, 0), h - 1), min(max(x, 0), w - 1)])

    def around(plane: Array, y: int, x: int, s: int, points: list[tuple[int, int]]) -> list[int]:
        spots = [(inside(y + s * i, h, s), inside(x + s * j, w, s)) for i, j in points]
        return [int(plane[i, j]) if i >= 0 and j >= 0 else 0 for i, j in spots]

    for index, (c, s, kind) in enumerate(groups(channels)):
        sizes = len(AROUND[kind]) + 9 * min(c, 4), len(AROUND[kind][:8]) + 2 * min(c, 12)
        mean_weights = weights["prior.mean"][at_mean : at_mean + sizes[0]].astype(np.int64)
        scale_weights = weights["prior.scale"][at_scale : at_scale + sizes[1]].astype(np.int64)
        at_mean, at_scale = at_mean + sizes[0], at_scale + sizes[1]
        r, t = CELLS.get(kind, (0, 0))
        period = 2 * s if kind else s
        points = [(y, x) for y in range(r * s, h, period) for x in range(t * s, w, period)]
        means, rows = [], []
        for y, x in points:
            features = around(q[c], y, x, s, AROUND[kind])
            features += [nearest(q[e], y + i, x + j) for e in range(min(c, 4)) for i, j in square]
            total = int(mean_weights @ np.array(features, np.int64)) + int(weights["prior.mean_bias"][index])
            mean = min(max(total >> 10, -508), 508)
            features = around(miss[c], y, x, s, AROUND[kind][:8])
            for e in range(max(0, c - 12), c):
                features += [int(miss[e, y, x]), sum(nearest(miss[e], y + i, x + j) for i, j in square if (i, j) != (0, 0))]
            scale = (int(scale_weights @ np.array(features, np.int64)) + int(weights["prior.scale_bias"][index])) >> 6
            means.append(mean)
            rows.append(4 * int((weights["prior.thresholds"] <= scale).sum()) + mean % 4)
        for (y, x), mean, symbol in zip(points, means, stream.group(np.array(rows, int), weights, "prior.tables"), strict=True):
            q[c, y, x] = symbol + mean // 4
            miss[c, y, x] = abs(4 * q[c, y, x] - mean)
    stream.close()
    assert (at_mean, at_scale) == (len(weights["prior.mean"]), len(weights["prior.scale"]))
    return q


def merge(low: Array, high: Array, axis: int) -> Array:
    gain = 1.149604398860241
    even, odd = low / gain, -gain * high
    even = even - 0.443506852043971 * (odd + np.roll(odd, 1, axis))
    odd = odd - 0.882911075530934 * (even + np.roll(even, -1, axis))
    even = even + 0.052980118572961 * (odd + np.roll(odd, 1, axis))
    odd = odd + 1.586134342059924 * (even + np.roll(even, -1, axis))
    shape = list(low.shape)
    shape[axis] *= 2
    return np.stack([even, odd], axis + 1).reshape(shape)


def torus(q: Array, weights: dict[str, Array]) -> Array:
    normal = np.array([NormalDist().inv_cdf(min(max(v / 254.998 + 0.5, 1e-4), 1 - 1e-4)) for v in range(-127, 128)])
    x = blocks(dense(normal[q + 127], weights, "decoder.enter"), weights, "decoder", "wrap")
    b = dense(x, weights, "decoder.leave")
    for _ in range(3):
        left, right = merge(b[0::4], b[2::4], 2), merge(b[1::4], b[3::4], 2)
        b = merge(left, right, 1)
    return np.clip(b, -0.5, 0.5) + 0.5


@pytest.mark.parametrize("case", ["rgb", "low", "high", "odd"])
@pytest.mark.parametrize("name", ["walloc-rgb", "walloc-rgb-16x", "walloc-rgb-4x"])
def test_a_decoder_made_from_the_page_agrees(name: str, case: str) -> None:
    if name == "walloc-rgb-4x" and case == "rgb":
        pytest.skip("slow, and the others cover it")
    blob = (GOLDEN / f"{name}-{case}.lpz").read_bytes()
    encoded = container.read(blob).encoded
    codec = api.codec_of(encoded)
    weights = load_file(PRESETS / name / "weights.safetensors")
    level, (height, width) = encoded.parameters["level"], encoded.shape[:2]
    (expected,), (chunk,) = codec.symbols(encoded), encoded.chunks
    if name == "walloc-rgb":
        skip = int(codec.core.preset.description["skip"])  # type: ignore[attr-defined]
        symbols, known = Prior(weights, level, skip).decode(chunk.payload, -(-height // 64) * 4, -(-width // 64) * 4)
        x = synthesis(known, weights, level)
    else:
        q = planes(chunk.payload, weights, 12 if name.endswith("16x") else 48, -(-height // 8), -(-width // 8))
        symbols, x = q.ravel(), torus(q, weights)
    np.testing.assert_array_equal(symbols, expected)
    samples = np.floor(np.clip(255 * x + 0.5, 0, 255)).transpose(1, 2, 0)[:height, :width]
    difference = np.abs(samples - latentpress.decode(blob).data)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_tiles_of_the_page() -> None:
    codec = load_codec("walloc-rgb")
    assert isinstance(codec, Tiled)
    small = Tiled(codec.core, name=codec.name, digest=codec.digest, tile=64)
    encoded = small.encode(Signal(data=natural(70, 140), dims=("y", "x", "band")), Target(quality=40))
    assert [chunk.position or (0, 0) for chunk in encoded.chunks] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    weights = load_file(PRESETS / "walloc-rgb" / "weights.safetensors")
    for chunk, expected in zip(encoded.chunks, codec.symbols(encoded), strict=True):
        prior = Prior(weights, encoded.parameters["level"], int(codec.core.preset.description["skip"]))  # type: ignore[attr-defined]
        np.testing.assert_array_equal(prior.decode(chunk.payload, 4, 4)[0], expected)


def test_escapes_of_the_page() -> None:
    random = np.random.default_rng(7)
    tables = Tables.from_masses([random.random(n) for n in (3, 9, 40)], [-1, -4, 100])
    rows = random.integers(0, 3, 400)
    symbols = (random.integers(-3, 4, 400) * 2.0 ** random.uniform(0, 28, 400)).astype(np.int32)
    encoder = Encoder()
    encoder.push(symbols, rows, tables)
    encoder.push(symbols[:7], rows[:7], tables)
    stream, weights = Stream(encoder.finish()), {k: v.astype(np.int64) for k, v in tables.state("t").items()}
    np.testing.assert_array_equal(stream.group(rows, weights, "t"), symbols)
    np.testing.assert_array_equal(stream.group(rows[:7], weights, "t"), symbols[:7])
    stream.close()


def test_the_range_coder_of_the_page_reads_what_is_written() -> None:
    random, scales = np.random.default_rng(3), np.array([0.3, 1.0, 5.0, 20.0])
    tables = gaussian_tables(scales.tolist())
    groups = [random.integers(0, 4, n) for n in (700, 1, 300)]
    symbols = [np.rint(random.normal(0, 1.4 * scales[rows])).astype(np.int32) for rows in groups]
    symbols[2][:5] = (-70_000, 70_000, 1 << 20, 300, -300)
    encoder = SequentialEncoder()
    for values, rows in zip(symbols, groups, strict=True):
        encoder.push(values, rows, tables)
    stream = RangeStream(encoder.finish())
    for values, rows in zip(symbols, groups, strict=True):
        assert np.array_equal(stream.group(rows, tables.state("t"), "t"), values)
    assert not stream.words
