"""`DatasetFile`: the variables of a dataset in an .lpz file, whole or a region of one, from no more chunks than the region needs."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from latentpress import api, container
from latentpress.codecs.base import Chunk, Codec, Encoded
from latentpress.container import ChunkEntry, Limits
from latentpress.errors import FormatError, InputError, LatentpressError, LimitError
from latentpress.fields.bounds import missing_values
from latentpress.fields.description import CODEC, KEY, Description, Variable, description_of, file_position, own_chunk
from latentpress.fields.exact import exact_array, known_dtype
from latentpress.fields.lost import fill_of, mark_lost
from latentpress.fields.means import corrected

Region = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    """Holds no open file, so it can go to other threads and processes.

    source    path or bytes
    partial   damaged chunks leave NaN, or the fill value of whole numbers, and a line in `damage`
    codec     that made the file, where it is not installed
    """

    source: str | bytes
    description: Description
    directory: container.Directory
    limits: Limits
    partial: bool = False
    codec: str | PathLike[str] | Codec | None = None
    damage: list[str] = field(default_factory=list)

    @property
    def entries(self) -> Mapping[tuple[int, ...], ChunkEntry]:
        """Of the data chunks, by position in the file."""
        return self.directory.entries

    @cached_property
    def width(self) -> int:
        return 1 + max((v.rank for v in self.description.variables), default=0)

    def number(self, name: str) -> int:
        for number, v in enumerate(self.description.variables):
            if v.name == name:
                return number
        raise InputError(f"no variable is called {name!r}; there are {', '.join(v.name for v in self.description.variables)}")

    def read(self, name: str, region: Sequence[slice] | None = None) -> NDArray[Any]:
        """Raw values of a variable, or of a region of it: slices of step 1, one a dimension.

        Raises FormatError, ChecksumError, LimitError, MissingPresetError.
        """
        number = self.number(name)
        v = self.description.variables[number]
        where = tuple(slice(*s.indices(n)[:2]) for s, n in zip(region or (slice(None),) * len(v.shape), v.shape, strict=True))
        shape = tuple(max(0, s.stop - s.start) for s in where)
        if math.prod(shape) > self.limits.samples:
            raise LimitError(f"{name}: {math.prod(shape)} samples at once, the limit is {self.limits.samples}; read a part, or raise Limits.samples")
        if 0 in shape:
            return np.empty(shape, known_dtype(v.dtype))
        if v.coded is None:
            return self._exact(number, v)[where]
        data = self._coded(number, v, v.coded, where, shape)
        if data.shape != shape or data.dtype != known_dtype(v.dtype):
            raise FormatError(f"{name}: the codec gave {data.dtype}{data.shape}, the file says {v.dtype}{shape}")
        return data

    def _exact(self, number: int, v: Variable) -> NDArray[Any]:
        if math.prod(v.shape) > self.limits.samples:
            raise LimitError(f"{v.name}: {math.prod(v.shape)} samples, the limit is {self.limits.samples}; raise Limits.samples for data you trust")
        found = self._chunks(number, [()])
        if not found:
            return np.full(v.shape, fill_of(v), known_dtype(v.dtype))
        return exact_array(found[0].payload, v.dtype, v.shape)

    def _coded(self, number: int, v: Variable, coded: Encoded, where: Region, shape: tuple[int, ...]) -> NDArray[Any]:
        codec: Any = api.codec_of(coded, partial=True, codec=self.codec)
        in_parts = hasattr(codec, "chunks_of") and hasattr(codec, "decode_region")
        whole = all(s == slice(0, n) for s, n in zip(where, v.shape, strict=True))
        if in_parts and (self.partial or not whole):
            wanted = codec.chunks_of(coded, where)
        else:
            wanted = [position[1 : 1 + v.rank] for position in self._positions(number)]
            if (places := codec.places(coded)) != len(wanted):
                self._lose(FormatError(f"{v.name}: {len(wanted)} chunks, a field of shape {v.shape} has {places}"))
        chunks = self._chunks(number, wanted)
        part = replace(coded, chunks=tuple(own_chunk(v, file_position(number, c.position, self.width), c.payload) for c in chunks))
        whole_or_part = codec.decode(part) if whole or not in_parts else codec.decode_region(part, where)
        data: NDArray[Any] = whole_or_part.data if whole or in_parts else whole_or_part.data[where]
        if v.means is not None and data.shape == shape and data.dtype == known_dtype(v.dtype):
            data = corrected(data, v.means, region=where, shape=v.shape, missing=missing_values(data.dtype, v.attrs))
        if self.partial and in_parts and data.shape == shape:
            there = {file_position(number, c.position, self.width) for c in chunks}
            data = mark_lost(data, v, where, lambda part: [file_position(number, p, self.width) in there for p in codec.chunks_of(coded, part)])
        return data

    def encoded(self, name: str) -> Encoded:
        """A coded variable with all its chunks. Raises InputError for exact ones; as `read`."""
        number = self.number(name)
        v = self.description.variables[number]
        if v.coded is None:
            raise InputError(f"{name} is kept exactly, by no codec")
        positions = [position[1 : 1 + v.rank] for position in self._positions(number)]
        return replace(v.coded, chunks=tuple(own_chunk(v, (number, *c.position), c.payload) for c in self._chunks(number, positions)))

    def _positions(self, number: int) -> list[tuple[int, ...]]:
        """In the file, of the chunks of a variable; of full width."""
        full = (position or (0,) * self.width for position in self.entries)
        return [position for position in full if position[0] == number]

    def _chunks(self, number: int, positions: Iterable[tuple[int, ...]]) -> list[Chunk]:
        """Those that are whole; a missing or damaged one is an error, or a line in `damage`. Positions are the variable's own, and stay so."""
        v, found = self.description.variables[number], []
        with self._opened() as file:
            for position in sorted({p if any(p) else (0,) * v.rank for p in positions}):
                try:
                    chunk = self.directory.chunk(file, file_position(number, position, self.width))
                    found.append(Chunk(payload=chunk.payload, position=position))
                except (FormatError, InputError) as error:
                    self._lose(FormatError(f"{v.name}: {error if isinstance(error, FormatError) else f'chunk {position} is missing'}"))
        return found

    def _lose(self, error: FormatError) -> None:
        """Raises it, or makes a line in `damage` of it."""
        if not self.partial:
            raise error
        if str(error) not in self.damage:
            self.damage.append(str(error))

    def _opened(self) -> BinaryIO:
        return _opened(self.source)


def open_file(
    source: str | PathLike[str] | bytes, *, partial: bool = False, limits: Limits | None = None, codec: str | PathLike[str] | Codec | None = None
) -> DatasetFile:
    """Reads the header, the description and the index. Raises FormatError, ChecksumError, LimitError, InputError for files of no dataset."""
    limits = limits or Limits()
    kept = source if isinstance(source, bytes) else os.fspath(source)
    with _opened(kept) as file:
        if file.seek(0, os.SEEK_END) > limits.file_bytes:
            raise LimitError(f"more than {limits.file_bytes} bytes, the limit; raise Limits.file_bytes for data you trust")
        directory, damage = _rescued(file, limits) if partial else (container.read_directory(file, limits=limits), [])
    if directory.header.codec != CODEC:
        raise InputError(f"a file of {directory.header.codec}, not of a dataset: read it with latentpress.decode")
    if KEY not in directory.metadata:
        raise FormatError("the metadata chunk 'dataset' is missing")
    description = description_of(directory.metadata[KEY], limits)
    made = DatasetFile(source=kept, description=description, directory=directory, limits=limits, partial=partial, codec=codec, damage=damage)
    _check_positions(made)
    return made


def _rescued(file: BinaryIO, limits: Limits) -> tuple[container.Directory, list[str]]:
    """What is whole of a damaged file, and lines for what is lost besides data: variables report their own chunks when they are read."""
    file.seek(0)
    blob = file.read()
    found = container.read(blob, limits=limits, partial=True)
    entries = {entry.position: entry for entry in found.chunk_table if entry.kind == "data"}
    directory = container.Directory(container.read_header(blob[: container.HEADER_MAX], limits=limits), found.metadata, entries)
    return directory, [line for line in found.damage if not line.startswith("chunk ")]


def holds_dataset(path: str | PathLike[str]) -> bool:
    """Whether a file is an .lpz file of a dataset, by its header."""
    try:
        with open(path, "rb") as file:
            return container.read_header(file.read(container.HEADER_MAX)).codec == CODEC
    except (OSError, LatentpressError):
        return False


def _check_positions(file: DatasetFile) -> None:
    variables = file.description.variables
    for position in file.entries:
        if not position:
            continue
        if len(position) != file.width or position[0] >= len(variables):
            raise FormatError(f"chunk {position} belongs to no variable")
        own_chunk(variables[position[0]], position, b"")


def _opened(source: str | bytes) -> BinaryIO:
    try:
        return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
    except OSError as error:
        raise InputError(f"{source!s}: cannot be read ({error.strerror or error})") from error
