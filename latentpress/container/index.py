"""The index of data chunks at the end of a file, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c

from latentpress.container.cursor import Cursor
from latentpress.container.layout import ChunkEntry, Header, Limits, canonical
from latentpress.container.sources import Source, crc_of
from latentpress.container.values import crc_bytes, varint
from latentpress.errors import FormatError, LimitError


def index_bytes(entries: Sequence[ChunkEntry], *, start: int, seed: int) -> bytes:
    """The index of data chunks, whose first chunk of any type begins at byte `start`; empty for one data chunk."""
    if len(entries) < 2:
        return b""
    rank = max(len(entry.position) for entry in entries)
    parts, at = [varint(len(entries)), varint(rank)], start
    for entry in entries:
        position = entry.position or (0,) * rank
        parts += [varint(number) for number in (*position, entry.offset - at, entry.length)]
        at = entry.offset + entry.length
    body = b"".join(parts)
    body += crc_bytes(google_crc32c.extend(seed, body))
    return body + len(body).to_bytes(4, "little")


class Index(NamedTuple):
    """start: offset of its first byte; entries: data chunks in file order."""

    start: int
    entries: list[ChunkEntry]


def index_of(source: Source, header: Header, limits: Limits) -> Index | None:
    """The index at the end of the file, None where there is no valid one: a file with one data chunk, cut or damaged."""
    size = int.from_bytes(source.view(source.size - 4, 4), "little")
    start = source.size - 4 - size
    if start <= header.size:
        return None
    if crc_of(header.crc, source, start, start + size - 4) != int.from_bytes(source.view(start + size - 4, 4), "little"):
        return None
    try:
        return Index(start, _index_entries(Cursor(source.view(start, size - 4), start, "index"), header.size, limits))
    except FormatError:
        return None


def _index_entries(cursor: Cursor, at: int, limits: Limits) -> list[ChunkEntry]:
    count, rank = cursor.varint(), cursor.varint()
    if count > limits.chunks:
        raise LimitError(f"{count} chunks, the limit is {limits.chunks}; raise Limits.chunks for data you trust")
    entries, stop = [], cursor.base
    for _ in range(count):
        position = canonical([cursor.varint() for _ in range(rank)])
        at += cursor.varint()
        entries.append(ChunkEntry("data", position, at, cursor.varint()))
        at += entries[-1].length
        if at >= stop:
            raise cursor.error("a chunk runs into the index")
    return entries
