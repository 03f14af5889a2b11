"""Section 9 of docs/FORMAT.md is enough to decode walloc-rgb: here is a decoder made from it, in numpy integers, beside ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from latentpress import api, container
from latentpress.codecs.base import Signal, Target
from latentpress.codecs.registry import load_codec, preset_directories
from latentpress.codecs.tiled import Tiled
from latentpress.entropy.coder import Encoder
from latentpress.entropy.tables import Tables

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "FORMAT.md").read_text(encoding="utf-8")
FOLDER = preset_directories()["walloc-rgb"]
Q = ((0, 0), (1, 1), (0, 1), (1, 0))


# ---- a decoder from the page (sections in brackets); imports nothing of latentpress, torch or constriction ----


def read_weights(path: Path) -> dict[str, np.ndarray]:  # [9]
    blob = path.read_bytes()
    size = int.from_bytes(blob[:8], "little")
    types = {"I8": "<i1", "I16": "<i2", "I32": "<i4", "F16": "<f2", "F32": "<f4"}
    weights = {}
    for name, entry in json.loads(blob[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + k for k in entry["data_offsets"])
            weights[name] = np.frombuffer(blob[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
    return weights


class Stream:  # [9.2]
    def __init__(self, payload: bytes) -> None:
        assert len(payload) % 4 == 0
        self.words = [int.from_bytes(payload[k : k + 4], "little") for k in range(0, len(payload), 4)]
        assert not self.words or self.words[-1]
        self.state = 0
        self.refill(all=True)

    def refill(self, all: bool = False) -> None:
        while self.state < 2**32 and self.words:
            self.state = self.state * 2**32 + self.words.pop()
            if not all:
                break

    def read(self, cdf: np.ndarray) -> int:
        quantile = self.state % 2**24
        symbol = int(np.searchsorted(cdf, quantile, side="right")) - 1
        self.state = self.state // 2**24 * int(cdf[symbol + 1] - cdf[symbol]) + quantile - int(cdf[symbol])
        self.refill()
        return symbol

    def bits(self, count: int) -> int:
        return self.read(np.arange(2**count + 1, dtype=np.int64) * 2 ** (24 - count))

    def end(self) -> None:
        assert self.state == 0 and not self.words, "damaged"


def pull(stream: Stream, rows: np.ndarray, start: np.ndarray, low: np.ndarray, cdf: np.ndarray) -> np.ndarray:  # [9.3]
    symbols = np.zeros(len(rows), np.int64)
    for row in np.unique(rows):
        for k in np.flatnonzero(rows == row):
            symbols[k] = low[row] + stream.read(cdf[start[row] : start[row + 1]])
    high = low + np.diff(start) - 2
    escaped = np.flatnonzero(symbols == high[rows])
    digits = [stream.bits(5) for _ in escaped]
    values = [1 << d for d in digits]
    for part in range(2):
        sizes = [min(16, max(0, d - 16 * part)) for d in digits]
        for bits in sorted(set(sizes) - {0}):
            for k in range(len(sizes)):
                if sizes[k] == bits:
                    values[k] += stream.bits(bits) << 16 * part
    for k, v in zip(escaped, values, strict=True):
        symbols[k] = high[rows[k]] + (v - 1) // 2 if v % 2 else low[rows[k]] - v // 2
    return symbols


def correlate(x: np.ndarray, weight: np.ndarray, groups: int) -> np.ndarray:
    outputs, inputs, size, _ = weight.shape
    pad = size // 2
    wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((outputs, *x.shape[1:]), np.result_type(x, weight))
    for g in range(groups):
        o, i = slice(g * outputs // groups, (g + 1) * outputs // groups), slice(g * inputs, (g + 1) * inputs)
        for a in range(size):
            for b in range(size):
                out[o] += np.tensordot(weight[o, :, a, b], wide[i, a : a + x.shape[1], b : b + x.shape[2]], 1)
    return out


LAYERS = {"up.0": (1, -6, 1024), "up.1": (8, 0, 1024), "up.2": (1, 0, 1024), "up.3": (1, 0, 2048), "near": (320, -2, 2048), "mix": (1, 0, 2048),
          "block.1": (192, 0, 2048), "block": (1, 0, 2048), "out": (1, 2, 16384)}  # fmt: skip


def shuffle(x: np.ndarray, factor: int = 2) -> np.ndarray:
    c, h, w = x.shape
    return x.reshape(c // factor**2, factor, factor, h, w).transpose(0, 3, 1, 4, 2).reshape(c // factor**2, factor * h, factor * w)


def act(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, x // 8)


def clip(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -2048, 2048)


class PageDecoder:
    def __init__(self, folder: Path) -> None:
        self.weights = read_weights(folder / "weights.safetensors")
        self.skip = json.loads((folder / "preset.json").read_text())["skip"]

    def layer(self, name: str, x: np.ndarray) -> np.ndarray:  # [9.5]
        weight, bias, fraction = (self.weights[f"network.{name}.{k}"].astype(np.int64) for k in ("weight", "bias", "fraction"))
        groups, shift, limit = LAYERS.get(name) or LAYERS[name.split(".")[0]]
        s = (fraction + shift)[:, None, None]
        assert s.min() >= 1
        return np.clip((correlate(x, weight, groups) + bias[:, None, None] + (1 << s - 1)) // (1 << s), -limit, limit)

    def pull(self, stream: Stream, rows: np.ndarray, name: str) -> np.ndarray:
        return pull(stream, rows, *(self.weights[f"{name}.{k}"].astype(np.int64) for k in ("start", "low", "cdf")))

    def base(self, z: np.ndarray, level: int) -> np.ndarray:  # [9.6]
        table, n = self.weights["network.level_bias"].astype(np.int64), min(level // 128, 6)
        m = level - 128 * n
        bias = (table[n] * (128 - m) + table[n + 1] * m + 64) // 128
        x = act(shuffle(self.layer("up.0", z)))
        x = act(shuffle(self.layer("up.2", self.layer("up.1", x))))
        return clip(self.layer("up.3", x) + bias[:, None, None])

    def chunk(self, payload: bytes, h: int, w: int, level: int) -> tuple[np.ndarray, np.ndarray]:
        """All symbols, and y^ in sixteenths [320, h, w]."""
        stream = Stream(payload)
        groups = len(self.weights["z_tables.low"]) // 64
        z_rows = np.tile(64 * (level * groups // 897) + np.arange(64), h * w // 16)
        symbols = [self.pull(stream, z_rows, "z_tables")]
        base = self.base(symbols[0].reshape(h // 4, w // 4, 64).transpose(2, 0, 1), level)
        known = np.zeros((320, h, w), np.int64)
        for k in range(4):  # [9.7]
            f = base if k == 0 else clip(base + self.layer(f"mix.{k - 1}", self.layer(f"near.{k - 1}", np.clip(known, -8192, 8192))))
            f = act(f)
            inner = act(self.layer("block.1", act(self.layer("block.0", f))))
            f = act(clip(f + self.layer("block.2", inner)))
            places = [Q[(k + g) % 4] for g in range(4)]
            outs = [self.layer(f"out.{4 * k + g}", f[:, i::2, j::2]) for g, (i, j) in enumerate(places)]
            mean, t = (np.concatenate([o[part] for o in outs]) for part in (slice(0, 80), slice(80, 160)))
            rows = np.clip((t + 1) // 2 + 18, 0, 63).transpose(1, 2, 0).ravel()
            coded = rows >= self.skip
            symbols.append(self.pull(stream, rows[coded], "y_tables"))
            residual = np.zeros(len(rows), np.int64)
            residual[coded] = symbols[-1]
            quarter = mean + 16 * residual.reshape(h // 2, w // 2, 320).transpose(2, 0, 1)
            for g, (i, j) in enumerate(places):
                known[80 * g : 80 * g + 80, i::2, j::2] = quarter[80 * g : 80 * g + 80]
        stream.end()
        return np.concatenate(symbols), known

    def conv(self, name: str, x: np.ndarray) -> np.ndarray:
        weight = self.weights[f"synthesis.{name}.weight"].astype(np.float64)
        bias = self.weights[f"synthesis.{name}.bias"].astype(np.float64)
        return correlate(x, weight, 128 if name.endswith("depthwise") else 1) + bias[:, None, None]

    def samples(self, latents: np.ndarray, level: int, shape: tuple[int, ...], peak: int) -> np.ndarray:  # [9.8]
        def leaky(x: np.ndarray) -> np.ndarray:
            return np.maximum(x, x / 8)

        difference = self.weights["log_inverse"].astype(np.float64) - self.weights["log_gain"]
        n = min(level // 128, 6)
        m = level / 128 - n
        x = latents / 16 * np.exp(difference[n] * (1 - m) + difference[n + 1] * m)[:, None, None]
        x = shuffle(self.conv("enter", x))
        for b in range(4):
            x = x + self.conv(f"blocks.{b}.leave", leaky(self.conv(f"blocks.{b}.depthwise", leaky(self.conv(f"blocks.{b}.enter", x)))))
            x = x + self.conv(f"blocks.{b}.narrow", leaky(self.conv(f"blocks.{b}.widen", x)))
        x = shuffle(self.conv("leave", x), 8) + 0.5
        if len(shape) == 2 or shape[2] == 1:
            x = x.mean(0, keepdims=True)
        out = np.floor(np.clip(peak * x + 0.5, 0, peak)).astype(np.int64).transpose(1, 2, 0)[: shape[0], : shape[1]]
        return out.reshape(shape)

    def decode(self, encoded) -> tuple[list[np.ndarray], np.ndarray]:
        """Symbols a chunk, samples."""
        level, tile = encoded.parameters["level"], encoded.parameters.get("tile", 10**9) // 16  # [9.1]
        h, w = (4 * -(-n // 64) for n in encoded.shape[:2])
        latents, symbols = np.zeros((320, h, w), np.int64), []
        for chunk in encoded.chunks:
            i, j = chunk.position or (0, 0)
            y, x = slice(tile * i, min(h, tile * (i + 1))), slice(tile * j, min(w, tile * (j + 1)))
            flat, latents[:, y, x] = self.chunk(chunk.payload, y.stop - y.start, x.stop - x.start, level)
            symbols.append(flat)
        return symbols, self.samples(latents, level, encoded.shape, np.iinfo(encoded.dtype).max)


# ---- the promises ----


def photo(height: int, width: int, bands: int = 3, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(height + width)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (5 + b) + y / 9) + np.sin(y / (3 + b)) for b in range(bands)], axis=2)
    noisy = (waves / 4 + 0.5) + random.normal(0, 0.05, waves.shape)
    return (np.clip(noisy, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def agrees(encoded) -> None:
    codec = load_codec("walloc-rgb")
    symbols, samples = PageDecoder(FOLDER).decode(encoded)
    ours = codec.symbols(encoded)
    assert len(symbols) == len(ours)
    for mine, theirs in zip(symbols, ours, strict=True):
        assert np.array_equal(mine, theirs)
    decoded = codec.decode(encoded).data
    tolerance = 1 if decoded.dtype == np.uint8 else 16  # float32 beside float64
    assert decoded.shape == samples.shape and np.abs(samples - decoded.astype(np.int64)).max() <= tolerance


@pytest.mark.parametrize("quality", [0, 47.3, 100])
def test_a_decoder_made_from_the_page_gives_our_symbols_and_samples(quality):
    agrees(container.read(api.encode(photo(70, 130), quality=quality)).encoded)


@pytest.mark.parametrize("bands, dtype", [(1, np.uint8), (3, np.uint16)])
def test_gray_and_16_bits(bands, dtype):
    agrees(container.read(api.encode(photo(30, 64, bands, dtype), quality=60)).encoded)


def test_tiles():
    codec = load_codec("walloc-rgb")
    assert isinstance(codec, Tiled)
    small = Tiled(codec.core, name=codec.name, digest=codec.digest, tile=64)
    encoded = small.encode(Signal(data=photo(70, 140), dims=("y", "x", "band")), Target(quality=40))
    assert len(encoded.chunks) == 6
    agrees(container.read(container.write(encoded)).encoded)


def test_escapes_and_the_end_of_the_stream():
    random = np.random.default_rng(7)
    tables = Tables.from_masses([random.random(n) for n in (3, 9, 40)], [-1, -4, 100])
    rows = random.integers(0, 3, 400)
    symbols = (random.integers(-3, 4, 400) * 2.0 ** random.uniform(0, 28, 400)).astype(np.int32)
    encoder = Encoder()
    encoder.push(symbols, rows, tables)
    encoder.push(symbols[:7], rows[:7], tables)
    stream = Stream(encoder.finish())
    parts = tables.start.astype(np.int64), tables.low.astype(np.int64), tables.cdf.astype(np.int64)
    assert np.array_equal(pull(stream, rows, *parts), symbols)
    assert np.array_equal(pull(stream, rows[:7], *parts), symbols[:7])
    stream.end()


def test_the_layers_of_the_page_are_those_of_the_weights():
    for name, weight in read_weights(FOLDER / "weights.safetensors").items():
        if name.startswith("network.") and name.endswith(".weight"):
            layer = name.removeprefix("network.").removesuffix(".weight")
            named = {"near": "near.0 to near.2", "mix": "mix.0 to mix.2", "out": "out.0 to out.15"}.get(layer.split(".")[0], layer)
            named = "block.0, block.2" if layer in ("block.0", "block.2") else named
            groups, shift, limit = LAYERS.get(layer) or LAYERS[layer.split(".")[0]]
            shape = ", ".join(map(str, weight.shape))
            assert f"| {named} | {weight.shape[2]} | {groups} | {shift} | {limit} | {shape} |" in PAGE
