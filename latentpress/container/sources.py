"""Where bytes come from, memory or disk, and their checksums."""

from __future__ import annotations

import os
from typing import BinaryIO

import google_crc32c

from latentpress.errors import ChecksumError

PIECE = 1 << 20  # bytes copied at a time to compute a CRC


class Memory:
    """A file held in memory, or its bytes from `base` on: views, no copies."""

    def __init__(self, blob: bytes | bytearray | memoryview, *, base: int = 0) -> None:
        self._data, self._base = memoryview(blob).cast("B"), base
        self.size = base + len(self._data)

    def view(self, at: int, size: int) -> memoryview:
        return self._data[at - self._base : at - self._base + size]


class Disk:
    """A seekable file object; only what is asked for is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)

    def view(self, at: int, size: int) -> memoryview:
        parts: list[bytes] = []
        wanted = min(size, self.size - at)
        if wanted > 0:
            self._file.seek(at)
        while wanted > 0 and (part := self._file.read(wanted)):  # a raw file may give less than asked for
            parts.append(part)
            wanted -= len(part)
        return memoryview(b"".join(parts))


Source = Memory | Disk


def crc_of(seed: int, source: Source, start: int, stop: int) -> int:
    """CRC-32C of bytes `start` to `stop - 1`, in pieces: the library wants bytes objects, and a copy of everything costs memory."""
    for at in range(start, stop, PIECE):
        seed = google_crc32c.extend(seed, bytes(source.view(at, min(PIECE, stop - at))))
    return seed


def compare(part: str, offset: int, *, stored: bytes, computed: int) -> None:
    if (crc := int.from_bytes(stored, "little")) != computed:
        raise ChecksumError(part, offset, crc, computed)
