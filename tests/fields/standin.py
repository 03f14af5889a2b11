"""A codec of fields for tests: rounded samples, deflated, in blocks of 1 on leading axes and 8 on the last two. Counts the chunks it decodes."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentpress.codecs import registry
from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.errors import FormatError, UnsupportedError

SIDE = 8
DECODED: Counter[tuple[int, ...]] = Counter()
TARGETS: list[tuple[Target, Any]] = []


class StandIn(Codec):
    id, domain, dims, bounded = "lattice", "field", (), True
    name = "lattice"

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> StandIn:
        """The real one has a preset of this name."""
        return cls()

    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        data, fill = signal.data, signal.meta.get("fill")
        if data.dtype.kind not in "iuf" or data.ndim < 1:
            raise UnsupportedError(f"{data.dtype}{data.shape}")
        TARGETS.append((target, fill))
        kept = ~np.isfinite(data) if data.dtype.kind == "f" else np.zeros(data.shape, bool)
        if fill is not None:
            kept |= data == fill
        rounded = np.where(kept, data, _rounded(data, target)).astype(data.dtype)
        empty = Encoded(codec=self.name, digest=b"", shape=data.shape, dtype=data.dtype.name, dims=signal.dims, parameters={"side": SIDE}, chunks=())
        little = rounded.astype(rounded.dtype.newbyteorder("<"))
        return replace(empty, chunks=tuple(
            Chunk(payload=zlib.compress(little[_box(p, data.shape)].tobytes()), position=p) for p in _positions(data.shape)))  # fmt: skip

    def decode(self, encoded: Encoded) -> Signal:
        return self.decode_region(encoded, tuple(slice(0, n) for n in encoded.shape))

    def places(self, encoded: Encoded) -> int:
        _check(encoded)
        return math.prod(_grid(encoded.shape))

    def chunks_of(self, encoded: Encoded, region: tuple[slice, ...]) -> list[tuple[int, ...]]:
        _check(encoded)
        sides = _sides(encoded.shape)
        return list(itertools.product(*(range(r.start // s, (r.stop - 1) // s + 1) for r, s in zip(region, sides, strict=True))))

    def decode_region(self, encoded: Encoded, region: tuple[slice, ...]) -> Signal:
        _check(encoded)
        shape, dtype = encoded.shape, np.dtype(encoded.dtype)
        out = np.full([r.stop - r.start for r in region], np.nan if dtype.kind == "f" else 0, dtype)
        for chunk in encoded.chunks:
            position = chunk.position or (0,) * len(shape)
            if len(position) != len(shape) or any(p >= n for p, n in zip(position, _grid(shape), strict=True)):
                raise FormatError(f"no chunk of this field is at {position}")
            DECODED[position] += 1
            box = _box(position, shape)
            part = _samples(chunk.payload, [b.stop - b.start for b in box], dtype)
            both = [slice(max(b.start, r.start), min(b.stop, r.stop)) for b, r in zip(box, region, strict=True)]
            if all(b.start < b.stop for b in both):
                out[tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(both, region, strict=True))] = part[
                    tuple(slice(b.start - x.start, b.stop - x.start) for b, x in zip(both, box, strict=True))]  # fmt: skip
        return Signal(data=out, dims=encoded.dims)

    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        return tuple(np.frombuffer(chunk.payload, np.uint8).astype(np.int32) for chunk in encoded.chunks)

    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        return replace(encoded, chunks=tuple(replace(c, payload=s.astype(np.uint8).tobytes()) for c, s in zip(encoded.chunks, symbols, strict=True)))


def _check(encoded: Encoded) -> None:
    if dict(encoded.parameters) != {"side": SIDE} or len(encoded.shape) != len(encoded.dims):
        raise FormatError("lattice: other parameters expected")


def _rounded(data: NDArray[Any], target: Target) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        if target.quality is not None:
            bound: Any = (100 - target.quality) / 100 * float(np.nanstd(data.astype(np.float64)))
        elif target.max_rel_error is not None:
            bound = np.abs(data.astype(np.float64)) * target.max_rel_error
        else:
            bound = target.max_error
        bound = np.broadcast_to(np.asarray(bound, np.float64), data.shape)
        step = 2 * np.floor(bound) + 1 if data.dtype.kind in "iu" else bound
        rounded = np.where(step > (1 if data.dtype.kind in "iu" else 0), np.round(data / np.where(step > 0, step, 1)) * step, data)
        if data.dtype.kind in "iu":
            info = np.iinfo(data.dtype)
            rounded = np.where((rounded < info.min) | (rounded > info.max), data, rounded)
    return rounded


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (len(shape) - 2) + (SIDE,) * min(2, len(shape))


def _grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(shape, _sides(shape), strict=True))


def _positions(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, _grid(shape))))


def _box(position: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(p * s, min(n, p * s + s)) for p, s, n in zip(position, _sides(shape), shape, strict=True))


def _samples(payload: bytes, shape: list[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    size, stream = math.prod(shape) * dtype.itemsize, zlib.decompressobj()
    try:
        raw = stream.decompress(payload, size + 1)
    except zlib.error as error:
        raise FormatError(f"damaged stream: {error}") from error
    if len(raw) != size or not stream.eof or stream.unused_data:
        raise FormatError("damaged stream")
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def register(patch: pytest.MonkeyPatch) -> None:
    """Under the name of the codec whose contract it keeps."""
    point = EntryPoint("lattice", f"{__name__}:StandIn", "latentpress.codecs")
    usual = registry.codec_entry_points
    patch.setattr(registry, "codec_entry_points", lambda: {**usual(), "lattice": point})
    registry.load_installed.cache_clear()
