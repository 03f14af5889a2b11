"""What a reader has gathered so far, and the rules between chunks."""

from __future__ import annotations

import google_crc32c

from latentpress.codecs.base import Chunk
from latentpress.container.frames import Frame
from latentpress.container.index import index_bytes
from latentpress.container.layout import ChunkEntry, Header, Limits, label_of
from latentpress.container.sources import Source, compare
from latentpress.errors import FormatError, LimitError


class Contents:
    """Gathers whole chunks and holds the rules between them."""

    def __init__(self, source: Source, header: Header, limits: Limits) -> None:
        self.source, self.header, self.limits = source, header, limits
        self.chunks: list[Chunk] = []
        self.metadata: dict[str, bytes] = {}
        self.table: list[ChunkEntry] = []
        self.metadata_bytes = self.payload_bytes = 0

    def add(self, frame: Frame) -> None:
        if len(self.table) >= self.limits.chunks:
            raise LimitError(f"more than {self.limits.chunks} chunks; raise Limits.chunks for data you trust")
        if frame.kind == "data":
            self._add_data(frame)
        else:
            self._add_metadata(frame)
        self.table.append(ChunkEntry(frame.kind, frame.position, frame.start, frame.end - frame.start))

    def _add_data(self, frame: Frame) -> None:
        if self.chunks:
            last = self.chunks[-1].position
            if not last < frame.position or (last and len(last) != len(frame.position)):
                raise FormatError(f"{frame.label} at byte {frame.start} follows {label_of('data', last)}: expected rising positions")
        self.chunks.append(Chunk(payload=bytes(self._payload(frame)), position=frame.position))
        self.payload_bytes += frame.end - frame.payload

    def _add_metadata(self, frame: Frame) -> None:
        if frame.kind in self.metadata:
            raise FormatError(f"{frame.label} at byte {frame.start}: there twice")
        self.metadata_bytes += frame.end - frame.payload
        if self.metadata_bytes > self.limits.metadata_bytes:
            raise LimitError(f"more than {self.limits.metadata_bytes} bytes of metadata; raise Limits.metadata_bytes for data you trust")
        self.metadata[frame.kind] = bytes(self._payload(frame))

    def _payload(self, frame: Frame) -> memoryview:
        return self.source.view(frame.payload, frame.end - frame.payload)

    @property
    def index(self) -> bytes:
        data = [entry for entry in self.table if entry.kind == "data"]
        return index_bytes(data, start=self.header.size, seed=self.header.crc)


def check_end(contents: Contents, at: int) -> None:
    """Behind the end mark stands the index and nothing else. An index is a function of its chunks, so it is made again and compared."""
    if not contents.chunks:
        raise FormatError("there is no data chunk")
    if len(contents.metadata) != contents.header.metadata_chunks:
        raise FormatError(f"{len(contents.metadata)} metadata chunks, the header counts {contents.header.metadata_chunks}")
    source, expected = contents.source, contents.index
    rest = source.size - at
    if rest != len(expected):
        raise FormatError(f"{rest} bytes after the end mark, the index of these chunks has {len(expected)}")
    stored = bytes(source.view(at, rest))
    if stored != expected:
        compare("index", at, stored=stored[-8:-4], computed=google_crc32c.extend(contents.header.crc, stored[:-8]))
        raise FormatError(f"the index at byte {at} disagrees with the chunks")
