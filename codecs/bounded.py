"""bounded/NAME: a pointwise bound for any lossy codec of fields: what it decodes to, and what is missing to the source, coded by lattice.

    planes --base at some quality--> bytes --decode--> values near by
    (source - those values) / (2 what is left of the bound) --rounded--> whole numbers around 0 --lattice, lossless--> bytes

A chunk takes whatever is smallest: the base at one of several qualities, or no base at all, which is lattice alone. Decoded values of a base are
floats that may differ a little between machines; the base says by how much (`drift`), and that is taken off the bound before the residual is rounded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.bounded_parts import packed, unpacked
from latentpress.codecs.bounded_residual import Task, Values, joined
from latentpress.codecs.bounded_search import Tried, tries
from latentpress.codecs.lattice_chunks import Chunks
from latentpress.codecs.lattice_planes import bounds_of
from latentpress.codecs.registry import load_codec, load_installed
from latentpress.codecs.varint import read_varint, varint
from latentpress.errors import FormatError, LatentpressError, MissingPresetError, UnsupportedError

DIMS = ("plane", "y", "x")
RESIDUAL = "lattice"
ALONE, OVER_BASE, FILLED = 0, 1, 2  # first byte of a chunk; FILLED is added where a fill value follows
LEAST_EFFORT = 2  # that takes a base
_NUMBERS = struct.Struct("<dd")  # step and fill value


class Bounded(Codec):
    """A chunk is a stack of whole planes, so that a base may see all of a plane. float32 and float64 may have a base; integers are lattice alone."""

    id: ClassVar[str] = "bounded"
    domain: ClassVar[str] = "field"
    dims: ClassVar[tuple[str, ...]] = DIMS
    bounded: ClassVar[bool] = True

    def __init__(self, base: Codec, residual: Codec | None = None) -> None:
        """Raises UnsupportedError for a base that is no lossy codec of fields, or does not say how its values differ between machines."""
        if base.domain != "field" or base.bounded or base.lossless or base.drift is None:
            raise UnsupportedError(f"{self.id}/{base.name}: a lossy codec of fields that states its drift is expected, such as vaeformer-field")
        self.base, self.residual, self.name = base, residual or load_installed(RESIDUAL), f"{self.id}/{base.name}"
        self.slack = base.drift
        self.digest = hashlib.sha256(base.digest + self.residual.digest).digest()[:8]

    @classmethod
    def from_name(cls, rest: str) -> Bounded:
        """What follows "bounded/": a codec's name, or a preset's folder. Raises MissingPresetError, UnsupportedError."""
        return cls(load_codec(_checked(rest)))

    @classmethod
    def from_cache(cls, rest: str) -> Bounded:
        """As `from_name`, of what is installed: a file's header can ask for this."""
        return cls(load_installed(_checked(rest)))

    # ---- encode

    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """target: max_error (a number or an array; 0: lossless) or max_rel_error; a base is of use for max_error alone. meta "fill" as in lattice.

        effort 0 and 1 take no base, 2 tries the quality of it that fits the bound best as a rule, from 3 on those beside it too. Raises
        UnsupportedError for other targets and what lattice does not code, BoundError, InputError for bounds of another shape.
        """
        data = np.ascontiguousarray(signal.data)
        if data.ndim < 1 or not data.size:
            raise UnsupportedError(f"{self.name} codes arrays that have points, not one of shape {data.shape}")
        if target.max_error is None and target.max_rel_error is None:
            raise UnsupportedError(f"{self.name} aims for max_error or max_rel_error; leave quality, bpp, psnr and max_bytes out")
        chunks = whole_planes(data.shape)
        stack, fill, made = data.reshape(chunks.stack), signal.meta.get("fill"), []
        bound = bounds_of(data, target, fill).error
        for position, where in chunks.all():
            own = target if isinstance(bound, float) else Target(max_error=bound[where])
            made.append(Chunk(payload=self._smallest(stack[where], own, fill, effort), position=position[:1]))
        return Encoded(codec=self.name, digest=self.digest, shape=data.shape, dtype=str(data.dtype), dims=signal.dims,
                       parameters={"planes": chunks.size[0]}, chunks=tuple(made))  # fmt: skip

    def _smallest(self, values: Values, target: Target, fill: Any, effort: int) -> bytes:
        meta = {} if fill is None else {"fill": fill}
        alone = bytes([ALONE]) + packed(self.residual.encode(Signal(data=values, dims=DIMS, meta=meta), target, effort=effort))
        task = Task.of(values, target, fill, self.slack) if effort >= LEAST_EFFORT else None
        if task is None:
            return alone
        try:
            over = [self._over_base(task, tried) for tried in tries(self.base, task, several=effort > LEAST_EFFORT)]
        except LatentpressError:  # of a base that does not take such planes
            over = []
        return smallest([alone, *(payload for payload in over if payload is not None)])

    def _over_base(self, task: Task, tried: Tried) -> bytes | None:
        """A chunk with a base, or None where it is too far away or the bound would not hold on every machine."""
        residual = task.residual(tried.values)
        if residual is None:
            return None
        rest = self.residual.encode(Signal(data=residual, dims=DIMS), Target(max_error=0.0), effort=0)
        kind, numbers = (OVER_BASE, 8) if task.fill is None else (OVER_BASE + FILLED, 16)
        part = packed(tried.coded)
        payload = bytes([kind]) + _NUMBERS.pack(task.step, task.fill or 0.0)[:numbers] + varint(len(part)) + part + packed(rest)
        return payload if task.holds(self._values(payload, task.values.shape, str(task.values.dtype))) else None

    # ---- decode

    def decode(self, encoded: Encoded) -> Signal:
        """Missing chunks leave NaN, or 0 in integers."""
        return self.decode_region(encoded, tuple(slice(0, n) for n in encoded.shape))

    def chunks_of(self, encoded: Encoded, region: tuple[slice, ...]) -> list[tuple[int, ...]]:
        """Positions of the chunks that a region touches: one slice of step 1 a dimension, inside the shape."""
        return [position[:1] for position, _ in self._chunks(encoded).touching(region)]

    def decode_region(self, encoded: Encoded, region: tuple[slice, ...]) -> Signal:
        """Only that region, from the chunks that are there."""
        chunks, dtype = self._chunks(encoded), np.dtype(encoded.dtype)
        out = np.full(tuple(s.stop - s.start for s in region), np.nan if dtype.kind == "f" else 0, dtype)
        wanted = {position[:1] for position, _ in chunks.touching(region)}
        for chunk, where in self._placed(encoded, chunks):
            if (chunk.position or (0,)) in wanted:
                shape = tuple(s.stop - s.start for s in where)
                chunks.place(out, region, where, self._values(chunk.payload, shape, encoded.dtype))
        return Signal(data=out, dims=encoded.dims)

    def _values(self, payload: bytes, shape: tuple[int, ...], dtype: str) -> Values:
        opened = self._opened(payload, shape, dtype)
        residual: Values = np.asarray(self.residual.decode(opened.residual).data)
        if opened.base is None:
            return residual
        return joined(np.asarray(self.base.decode(opened.base).data), residual, opened.step, opened.fill)

    def _opened(self, payload: bytes, shape: tuple[int, ...], dtype: str) -> _Opened:
        """Raises FormatError."""
        kind = payload[0] if payload else -1
        if kind not in (ALONE, OVER_BASE, OVER_BASE + FILLED) or (kind and np.dtype(dtype).kind != "f"):
            raise FormatError(f"damaged chunk: no chunk of {dtype} is of kind {kind}")
        if kind == ALONE:
            return _Opened(payload[:1], None, self._inside(self.residual, payload[1:], shape, dtype))
        at = 17 if kind & FILLED else 9
        step, fill = _NUMBERS.unpack(payload[1:at].ljust(16, b"\0"))
        if len(payload) < at or not math.isfinite(step):
            raise FormatError("damaged chunk: no step, or no fill value")
        size, start = read_varint(payload, at)
        if size > len(payload) - start:
            raise FormatError("damaged chunk: it ends inside its base")
        base = self._inside(self.base, payload[start : start + size], shape, dtype)
        residual = self._inside(self.residual, payload[start + size :], shape, dtype)
        return _Opened(payload[:at], base, residual, step, fill if kind & FILLED else None)

    def _inside(self, codec: Codec, part: bytes, shape: tuple[int, ...], dtype: str) -> Encoded:
        outside = Encoded(codec=codec.name, digest=codec.digest, shape=shape, dtype=dtype, dims=DIMS, parameters={}, chunks=())
        found = unpacked(part, outside)
        if codec.places(found) != len(found.chunks):
            raise FormatError(f"damaged chunk: {len(found.chunks)} chunks of {codec.name} inside it, there should be {codec.places(found)}")
        return found

    def _placed(self, encoded: Encoded, chunks: Chunks) -> Iterator[tuple[Chunk, tuple[slice, slice, slice]]]:
        places = {position[:1]: where for position, where in chunks.all()}
        for chunk in encoded.chunks:
            where = places.pop(chunk.position or (0,), None)
            if where is None:
                raise FormatError(f"chunk {chunk.position} lies outside the field, or twice in the file")
            yield chunk, where

    def _chunks(self, encoded: Encoded) -> Chunks:
        shape, given = encoded.shape, dict(encoded.parameters)
        if set(given) != {"planes"} or len(shape) < 1 or 0 in shape or len(encoded.dims) != len(shape):
            raise FormatError(f"header does not fit {self.name}: {encoded.dtype} {shape}, {given}")
        return Chunks.of(shape, given | dict(zip(("rows", "columns"), ((1, *shape)[-2:]), strict=True)))

    # ---- what every codec offers

    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        """Of each chunk: those of its base, then those of the residual."""
        return tuple(np.concatenate([s for part in self._symbols(opened) for s in part]) for opened in self._all_opened(encoded))

    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        made = []
        for chunk, opened, flat in zip(encoded.chunks, self._all_opened(encoded), symbols, strict=True):
            payload, at = opened.head, 0
            for coded, codec, old in zip(opened.parts, (self.base, self.residual)[-len(opened.parts) :], self._symbols(opened), strict=True):
                ends = at + np.cumsum([0, *map(len, old)])
                new = packed(codec.recode(coded, tuple(flat[a:b] for a, b in pairwise(ends))))
                payload, at = payload + (new if coded is opened.residual else varint(len(new)) + new), int(ends[-1])
            made.append(dataclasses.replace(chunk, payload=payload))
        return dataclasses.replace(encoded, chunks=tuple(made))

    def _symbols(self, opened: _Opened) -> list[tuple[NDArray[np.int32], ...]]:
        """Of the base, if there is one, and of the residual."""
        found = [] if opened.base is None else [self.base.symbols(opened.base)]
        return [*found, self.residual.symbols(opened.residual)]

    def _all_opened(self, encoded: Encoded) -> Iterator[_Opened]:
        for chunk, where in self._placed(encoded, self._chunks(encoded)):
            yield self._opened(chunk.payload, tuple(s.stop - s.start for s in where), encoded.dtype)

    def places(self, encoded: Encoded) -> int:
        return self._chunks(encoded).count

    def describe(self) -> Mapping[str, Any]:
        return {"base": self.base.name, "residual": self.residual.name}


@dataclass(frozen=True)
class _Opened:
    """A chunk taken apart. head: its bytes before the parts."""

    head: bytes
    base: Encoded | None
    residual: Encoded
    step: float = 0.0
    fill: float | None = None

    @property
    def parts(self) -> tuple[Encoded, ...]:
        return (self.residual,) if self.base is None else (self.base, self.residual)


def smallest(payloads: list[bytes]) -> bytes:
    return min(payloads, key=len)


def whole_planes(shape: tuple[int, ...]) -> Chunks:
    """As many planes as a chunk of lattice has, none of them cut."""
    planes, rows, columns = Chunks.fitting(shape).size[0], *Chunks.fitting(shape).stack[1:]
    return Chunks(shape, (planes, rows, columns))


def _checked(rest: str) -> str:
    if rest.partition("/")[0] == Bounded.id:
        raise MissingPresetError(f"{Bounded.id}/{rest}: there is one bound; leave one {Bounded.id}/ out")
    return rest
