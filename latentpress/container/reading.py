"""`read`: all of a file."""

from __future__ import annotations

from latentpress.codecs.base import Encoded
from latentpress.container.contents import Contents, check_end
from latentpress.container.frames import check_chunk, frame_at
from latentpress.container.header import read_header
from latentpress.container.layout import HEADER_MAX, USUAL_LIMITS, File, Limits
from latentpress.container.rescue import Rescue
from latentpress.container.sources import Memory
from latentpress.errors import LimitError


def read(blob: bytes | bytearray | memoryview, *, limits: Limits = USUAL_LIMITS, partial: bool = False) -> File:
    """All of a file.

    partial  leave out damaged chunks and what a cut file lacks, and say so in `File.damage`; a damaged header is an error all the same
    Raises   FormatError, ChecksumError, LimitError, UnsupportedError, and nothing else
    """
    source = Memory(blob)
    if source.size > limits.file_bytes:
        raise LimitError(f"{source.size} bytes, the limit is {limits.file_bytes}; raise Limits.file_bytes for data you trust")
    header = read_header(source.view(0, HEADER_MAX), limits=limits)
    contents = Contents(source, header, limits)
    damage: list[str] = []
    if partial:
        damage = Rescue(contents).run()
    else:
        _gather(contents)
    encoded = Encoded(
        codec=header.codec,
        digest=header.digest,
        shape=header.shape,
        dtype=header.dtype,
        dims=header.dims,
        parameters=header.parameters,
        chunks=tuple(contents.chunks),
    )
    overhead = source.size - contents.payload_bytes - contents.metadata_bytes
    return File(encoded=encoded, metadata=contents.metadata, damage=tuple(damage), overhead=overhead, chunk_table=contents.table)


def _gather(contents: Contents) -> None:
    source, at = contents.source, contents.header.size
    while (frame := frame_at(source, at)) is not None:
        check_chunk(source, contents.header, frame)
        contents.add(frame)
        at = frame.end
    check_end(contents, at + 1)
