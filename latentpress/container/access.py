"""`read_chunk` and `read_metadata`: part of a file, the rest unread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from latentpress.codecs.base import Chunk
from latentpress.container.contents import Contents
from latentpress.container.frames import Frame, check_chunk, frame_at
from latentpress.container.header import read_header
from latentpress.container.index import index_of
from latentpress.container.layout import HEADER_MAX, USUAL_LIMITS, Header, Limits, canonical
from latentpress.container.sources import Disk, Memory, Source
from latentpress.errors import FormatError, InputError, LimitError


def read_chunk(file: bytes | bytearray | memoryview | BinaryIO, position: Sequence[int], *, limits: Limits = USUAL_LIMITS) -> Chunk:
    """One data chunk, read through the index without the rest of the file.

    file      bytes, or a seekable binary file object
    position  as given to `write`; () and all zeros are the origin
    Raises    InputError if no chunk has this position; else as `read`
    """
    source = Memory(file) if isinstance(file, bytes | bytearray | memoryview) else Disk(file)
    header = read_header(source.view(0, HEADER_MAX), limits=limits)
    wanted = canonical(position)
    frame = _frame_for(source, header, wanted, limits)
    if frame is None:
        raise InputError(f"no chunk has position {tuple(position)}")
    part = Memory(source.view(frame.start, frame.end - frame.start), base=frame.start)  # from disk, once
    check_chunk(part, header, frame)
    return Chunk(payload=bytes(part.view(frame.payload, frame.end - frame.payload)), position=wanted)


def read_metadata(file: bytes | bytearray | memoryview | BinaryIO, *, limits: Limits = USUAL_LIMITS) -> dict[str, bytes]:
    """The metadata chunks alone, payload by key. Data chunks are stepped over unread, so damage there goes unnoticed, and a cut file
    gives the metadata in front of the cut.

    Raises   FormatError, ChecksumError, LimitError, UnsupportedError
    """
    source = Memory(file) if isinstance(file, bytes | bytearray | memoryview) else Disk(file)
    header = read_header(source.view(0, HEADER_MAX), limits=limits)
    contents, at, steps = Contents(source, header, limits), header.size, 0
    while at < source.size and (frame := frame_at(source, at)) is not None:
        steps += 1
        if steps > limits.chunks:
            raise LimitError(f"more than {limits.chunks} chunks; raise Limits.chunks for data you trust")
        if frame.kind != "data":
            check_chunk(source, header, frame)
            contents.add(frame)
        at = frame.end
    return contents.metadata


def _frame_for(source: Source, header: Header, wanted: tuple[int, ...], limits: Limits) -> Frame | None:
    if (index := index_of(source, header, limits)) is None:
        return _frame_by_walking(source, header, wanted, limits)
    for entry in index.entries:
        if entry.position == wanted:
            frame = frame_at(source, entry.offset)
            if frame is None or frame[:2] != ("data", wanted) or frame.end - frame.start != entry.length:
                raise FormatError(f"the index disagrees with what stands at byte {entry.offset}")
            return frame
    return None


def _frame_by_walking(source: Source, header: Header, wanted: tuple[int, ...], limits: Limits) -> Frame | None:
    at = header.size
    for _ in range(limits.chunks):
        if (frame := frame_at(source, at)) is None:
            return None
        if frame.kind == "data" and frame.position == wanted:
            return frame
        at = frame.end
    raise LimitError(f"more than {limits.chunks} chunks; raise Limits.chunks for data you trust")
