"""lattice: gridded fields with a bound that always holds, or lossless: integers in, integers out, by the hierarchical integer grid.

    planes --lattice_map--> integers --(differences in time)--> GridPrior, three planes at a time --lattice_block--> chunk
    planes --lattice_closed--> real targets --(the same)--> GridPrior, which counts steps from its predictions, ...

float32, float64 and integers of up to 32 bits, any number of dimensions; the last two are the grid, those before are stacked. Missing values,
fill values, infinities and -0.0 come back bit for bit. What a map cannot hold within the bound is kept exactly, so the bound holds everywhere,
and that is checked on what decoding gives before anything is returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs import lattice_block as block
from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.grid_preset import GridPriors
from latentpress.codecs.lattice_chunks import BESIDE, Chunks
from latentpress.codecs.lattice_planes import Bounds, Planes, bounds_of, prepare, restore
from latentpress.codecs.presets import Preset, built
from latentpress.codecs.varint import read_varint, varint
from latentpress.entropy.grid import Fits
from latentpress.entropy.grid_closed import Targets
from latentpress.entropy.grid_network import COARSE
from latentpress.errors import BoundError, FormatError, UnsupportedError

NARROW, WIDE = 65535, (1 << 24) - 1  # magnitudes of the integers: most planes, and all that a map makes
DTYPES = ("float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32")
BOTH_WAYS = 4  # effort from which on a chunk is coded in both ways, and the smaller one kept
FITS = 1  # effort from which on predictions are fitted to the field
FULL_CHECK = 2  # effort from which on a file is decoded again as it was written


class Lattice(Codec):
    """The bounded codec of fields. Chunks: stacks of planes (a multiple of three), tiles of rows and columns where planes are large."""

    id: ClassVar[str] = "lattice"
    domain: ClassVar[str] = "field"
    dims: ClassVar[tuple[str, ...]] = ("plane", "y", "x")
    bounded: ClassVar[bool] = True

    def __init__(self, preset: Preset) -> None:
        self.name, self.digest, self.preset = preset.name, preset.digest, preset
        self.priors = GridPriors(preset)
        self.priors.prior(NARROW)  # a preset that does not fit is found when it loads

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> Lattice:
        """Raises FormatError for a damaged preset."""
        return built(directory, name, cls)

    # ---- encode

    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """target: max_error (a number or an array; 0: lossless), max_rel_error, or quality. signal.meta["fill"]: a value that is exact and outside
        any bound. The bound is checked on what decoding gives: from the bytes, or with effort 0 and 1 from the integers that go into them, in half
        the time. Raises UnsupportedError for other targets and dtypes, BoundError should the bound not hold."""
        data = np.ascontiguousarray(signal.data)
        if str(data.dtype) not in DTYPES or data.ndim < 1:
            raise UnsupportedError(f"{self.name} codes arrays of {', '.join(DTYPES)}, not {data.dtype}{data.shape}")
        if not data.size:
            raise UnsupportedError(f"{self.name} codes arrays that have points, not one of shape {data.shape}")
        if target.max_error is None and target.max_rel_error is None and target.quality is None:
            raise UnsupportedError(f"{self.name} aims for max_error, max_rel_error or quality; leave bpp, psnr and max_bytes out")
        bounds = bounds_of(data, target, signal.meta.get("fill"))
        chunks = Chunks.fitting(data.shape)
        stack = data.reshape(chunks.stack)
        made = []
        for position, where in chunks.all():
            payload = self._smallest(stack[where], bounds.at(where), target.max_rel_error, effort)
            if payload is None:
                raise BoundError(f"{self.name}: the bound does not hold in chunk {position}; this is a defect of the codec, nothing was written")
            made.append(Chunk(payload=payload, position=position))
        return Encoded(
            codec=self.name, digest=self.digest, shape=data.shape, dtype=str(data.dtype), dims=signal.dims,
            parameters=chunks.parameters, chunks=tuple(made),
        )  # fmt: skip

    def _smallest(self, x: NDArray[Any], bounds: Bounds, relative: float | None, effort: int) -> bytes | None:
        """The payload of a chunk, of those ways of coding that are tried and hold; None if none does."""
        closable = self.priors.closable
        first = prepare(x, bounds, relative, closed=None if closable else False)
        ways = [first]
        if closable and (first.unsure or effort >= BOTH_WAYS):
            ways.append(prepare(x, bounds, relative, closed=first.targets is None))
        held = list(self._held(ways, effort))
        if not held and first.targets is not None:  # integers at fixed places are there for what steps from predictions do not hold
            held = list(self._held([prepare(x, bounds, relative, closed=False)], effort))
        return min(held, key=len, default=None)

    def _held(self, ways: list[Planes], effort: int) -> Iterator[bytes]:
        """Payloads of those whose bound holds."""
        for planes in ways:
            coded, payload = self._coded(planes, effort >= FITS)
            if coded.holds(self._checked(coded, payload, effort)):
                yield payload

    def _checked(self, planes: Planes, payload: bytes, effort: int) -> NDArray[Any]:
        if effort >= FULL_CHECK:
            return self._values(payload, planes.source.shape, str(planes.source.dtype))
        return restore(planes.head, np.where(planes.known, planes.integers, 0).astype(np.int32), str(planes.source.dtype))

    def _coded(self, planes: Planes, fits: bool = True) -> tuple[Planes, bytes]:
        """(the planes with the integers that decoding gives, payload)."""
        if planes.targets is None:
            return planes, block.pack(planes.head) + self._streams(planes.integers, planes.head, repeat(fits))
        integers, before = np.zeros(planes.known.shape, np.int32), None
        out = []
        for n in range(0, len(planes.targets), BESIDE):
            part = slice(n, n + BESIDE)
            targets = Targets(planes.targets[part], planes.deltas[part], planes.known[part], before)
            stream, integers[part] = self._stream(targets, planes.shifts, fits)
            out.append(stream)
            before = targets.decoded[-1]
        return dataclasses.replace(planes, integers=integers), block.pack(planes.head) + b"".join(out)

    def _stream(self, targets: Targets, shifts: NDArray[np.int32] | None, fits: Fits | bool) -> tuple[bytes, NDArray[np.int32]]:
        """Steps counted to targets: (stream with its length, integers that decoding gives)."""
        steps = None if shifts is None else shifts + np.int32(COARSE)
        top = COARSE if steps is None else int(steps.max(initial=0))
        wide = targets.reach + (1 << top) > NARROW
        stream, integers = self.priors.prior(WIDE if wide else NARROW).approximate(targets, steps, fits)
        return varint(len(stream) << 1 | wide) + stream, integers

    def _streams(self, integers: NDArray[np.int32], head: block.Block, fits: Iterable[Fits | bool]) -> bytes:
        out = []
        for n, fit in zip(range(0, len(integers), BESIDE), fits, strict=False):
            part, mask = integers[n : n + BESIDE], head.known[n : n + BESIDE]
            if head.closed:
                out.append(self._stream(Targets(np.where(mask, part, 0).astype(np.float64), known=mask), head.shifts, fit)[0])
                continue
            wide = bool(np.abs(part).max(initial=0) > NARROW)
            stream = self.priors.prior(WIDE if wide else NARROW).encode(part, **_given(mask, head), fits=fit)
            out.append(varint(len(stream) << 1 | wide) + stream)
        return b"".join(out)

    # ---- decode

    def decode(self, encoded: Encoded) -> Signal:
        """Missing chunks leave NaN, or 0 in integers."""
        whole = tuple(slice(0, n) for n in encoded.shape)
        return self.decode_region(encoded, whole)

    def chunks_of(self, encoded: Encoded, region: tuple[slice, ...]) -> list[tuple[int, ...]]:
        """Positions of the chunks that a region touches: one slice of step 1 a dimension, inside the shape."""
        return [position for position, _ in self._chunks(encoded).touching(region)]

    def decode_region(self, encoded: Encoded, region: tuple[slice, ...]) -> Signal:
        """Only that region, from the chunks that are there."""
        chunks = self._chunks(encoded)
        dtype = np.dtype(encoded.dtype)
        out = np.full(tuple(s.stop - s.start for s in region), np.nan if dtype.kind == "f" else 0, dtype)
        wanted = dict(chunks.touching(region))
        for chunk in encoded.chunks:
            where = wanted.pop(chunk.position or (0, 0, 0), None)
            if where is None:
                if chunk.position and chunk.position not in dict(chunks.all()):
                    raise FormatError(f"chunk {chunk.position} lies outside the field, or twice in the file")
                continue
            size = tuple(s.stop - s.start for s in where)
            chunks.place(out, region, where, self._values(chunk.payload, size, encoded.dtype))
        return Signal(data=out, dims=encoded.dims)

    def _values(self, payload: bytes, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        found = block.unpack(payload, (shape[0], shape[1], shape[2]), dtype)
        integers = np.empty(found.known.shape, np.int32)
        for n, part in self._parts(found, shape):
            integers[n : n + len(part)] = part
        return restore(found, integers, dtype)

    def _parts(
        self, found: block.Block, shape: tuple[int, ...], fits: list[Fits] | None = None
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:  # fmt: skip
        """(number of the first plane, integers) of planes that are coded together; `fits` takes those of their streams."""
        cursor = 0
        for n in range(0, shape[0], BESIDE):
            size, cursor = read_varint(found.stream, cursor)
            if cursor + (size >> 1) > len(found.stream):
                raise FormatError("damaged block: a stream reaches beyond its end")
            stream, mask = found.stream[cursor : cursor + (size >> 1)], found.known[n : n + BESIDE]
            prior = self.priors.prior(WIDE if size & 1 else NARROW)
            planes = (len(mask), shape[1], shape[2])
            own = Fits.none()
            yield n, prior.decode(stream, planes, **_given(mask, found), closed=found.closed, fits=own)
            if fits is not None:
                fits.append(own)
            cursor += size >> 1
        if cursor != len(found.stream):
            raise FormatError("damaged block: bytes are left over")

    # ---- what every codec offers

    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        """The integers of each chunk, flat; 0 at points apart."""
        return tuple(integers.ravel() for _, integers, _, _ in self._opened(encoded))

    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        made = []
        for (chunk, integers, found, fits), flat in zip(self._opened(encoded), symbols, strict=True):
            streams = self._streams(flat.reshape(integers.shape), found, fits)
            made.append(dataclasses.replace(chunk, payload=block.pack(dataclasses.replace(found, stream=b"")) + streams))
        return dataclasses.replace(encoded, chunks=tuple(made))

    def _opened(self, encoded: Encoded) -> Iterator[tuple[Chunk, NDArray[np.int32], block.Block, list[Fits]]]:
        places = dict(self._chunks(encoded).all())
        for chunk in encoded.chunks:
            where = places.pop(chunk.position or (0, 0, 0), None)
            if where is None:
                raise FormatError(f"chunk {chunk.position} lies outside the field, or twice in the file")
            shape = tuple(s.stop - s.start for s in where)
            found = block.unpack(chunk.payload, (shape[0], shape[1], shape[2]), encoded.dtype)
            fits: list[Fits] = []
            integers = np.concatenate([part for _, part in self._parts(found, shape, fits)])
            yield chunk, np.where(found.known, integers, 0).astype(np.int32), found, fits

    def places(self, encoded: Encoded) -> int:
        return self._chunks(encoded).count

    def describe(self) -> Mapping[str, Any]:
        return self.priors.describe(NARROW)

    def _chunks(self, encoded: Encoded) -> Chunks:
        if encoded.dtype not in DTYPES or len(encoded.shape) < 1 or len(encoded.dims) != len(encoded.shape):
            raise FormatError(f"header does not fit {self.name}: {encoded.dtype} {encoded.shape} {encoded.dims}")
        return Chunks.of(encoded.shape, encoded.parameters)


def _given(mask: NDArray[np.bool_], head: block.Block) -> dict[str, Any]:
    """Arguments of the prior where there is something to say."""
    shifts = None if head.shifts is None else head.shifts + np.int32(COARSE if head.closed else 0)
    return ({} if mask.all() else {"known": mask}) | ({} if shifts is None else {"shifts": shifts})
