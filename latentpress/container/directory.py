"""A file's header, metadata and index, read once; after that each chunk is one read, from wherever its reader stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from latentpress.codecs.base import Chunk
from latentpress.container.contents import Contents
from latentpress.container.frames import check_chunk, frame_at
from latentpress.container.header import read_header
from latentpress.container.index import index_of
from latentpress.container.layout import HEADER_MAX, USUAL_LIMITS, ChunkEntry, Header, Limits, canonical
from latentpress.container.sources import Disk, Memory, Source
from latentpress.errors import FormatError, InputError, LimitError


@dataclass(frozen=True)
class Directory:
    """Where everything is. metadata: payload by key; entries: of the data chunks by position, () for the origin."""

    header: Header
    metadata: Mapping[str, bytes]
    entries: Mapping[tuple[int, ...], ChunkEntry]

    def chunk(self, file: bytes | bytearray | memoryview | BinaryIO, position: Sequence[int]) -> Chunk:
        """One data chunk. Raises InputError if no chunk has this position, FormatError or ChecksumError where it is damaged."""
        wanted = canonical(position)
        if (entry := self.entries.get(wanted)) is None:
            raise InputError(f"no chunk has position {tuple(position)}")
        part = Memory(source_of(file).view(entry.offset, entry.length), base=entry.offset)  # from disk, once
        frame = frame_at(part, entry.offset)
        if frame is None or frame[:2] != ("data", wanted) or frame.end - frame.start != entry.length:
            raise FormatError(f"the index disagrees with what stands at byte {entry.offset}")
        check_chunk(part, self.header, frame)
        return Chunk(payload=bytes(part.view(frame.payload, frame.end - frame.payload)), position=wanted)


def source_of(file: bytes | bytearray | memoryview | BinaryIO) -> Source:
    return Memory(file) if isinstance(file, bytes | bytearray | memoryview) else Disk(file)


def read_directory(file: bytes | bytearray | memoryview | BinaryIO, *, limits: Limits = USUAL_LIMITS) -> Directory:
    """Reads no payload but that of metadata, and stops at the last of it: damage in data goes unnoticed until a chunk is read.

    Raises   FormatError, ChecksumError, LimitError, UnsupportedError
    """
    source = source_of(file)
    header = read_header(source.view(0, HEADER_MAX), limits=limits)
    index = index_of(source, header, limits)
    contents, data, at = Contents(source, header, limits), list[ChunkEntry](), header.size
    for _ in range(limits.chunks):
        if index is not None and len(contents.metadata) == header.metadata_chunks:
            return Directory(header, contents.metadata, {entry.position: entry for entry in index.entries})
        if (frame := frame_at(source, at)) is None:
            break
        if frame.kind == "data":
            data.append(ChunkEntry("data", frame.position, at, frame.end - at))
        else:
            check_chunk(source, header, frame)
            contents.add(frame)
        at = frame.end
    else:
        raise LimitError(f"more than {limits.chunks} chunks; raise Limits.chunks for data you trust")
    if len(contents.metadata) != header.metadata_chunks:
        raise FormatError(f"{len(contents.metadata)} metadata chunks, the header counts {header.metadata_chunks}")
    return Directory(header, contents.metadata, {entry.position: entry for entry in data})
