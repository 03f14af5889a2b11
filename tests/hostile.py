"""Hostile .lpz files for every test that reads them: `reseal` makes checksums right again, `mutations` breaks a file in many ways.

Nothing here uses latentpress.container: a fault there must not hide itself.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import google_crc32c

MAGIC_AND_VERSION = 4
EXTREMES = (0, 1, 2, 3, 16, 0x7F, 0x80, 0x3FFF, 2**14, 2**20, 2**28, 2**30 + 1, 2**31 - 1, 2**32 - 1, 2**32, 2**33 + 1, 2**62, 2**63 - 1)


# ---- taking apart and sealing: as far as the bytes make sense, never an error ----


@dataclass
class Parts:
    """Byte ranges of a file as far as it can be followed.

    fields   (start, stop) of the header's fields
    header   offset behind the header's CRC
    chunks   (start, offset of the CRC, stop) of each chunk
    index    (start, stop) without the last four bytes, or None
    numbers  (start, stop) of every varint met on the way
    """

    fields: tuple[int, int]
    header: int
    chunks: list[tuple[int, int, int]]
    index: tuple[int, int] | None
    numbers: list[tuple[int, int]]


class _Walk:
    """Follows varints leniently, overlong ones included; IndexError where the bytes end."""

    def __init__(self, blob: bytes) -> None:
        self.blob, self.at = blob, 0
        self.numbers: list[tuple[int, int]] = []

    def number(self) -> int:
        start, value, shift = self.at, 0, 0
        while True:
            byte = self.blob[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self.numbers.append((start, self.at))
                return value

    def skip(self, size: int) -> int:
        """Jumps over `size` bytes and gives where they began."""
        start = self.at
        if size > len(self.blob) - start:
            raise IndexError
        self.at += size
        return start


def parts_of(blob: bytes) -> Parts | None:
    """None if not even the header can be followed."""
    walk = _Walk(blob)
    try:
        walk.skip(MAGIC_AND_VERSION)
        size = walk.number()
        start = walk.skip(size)
        walk.skip(4)
    except IndexError:
        return None
    parts = Parts((start, start + size), walk.at, [], None, walk.numbers)
    try:
        while (chunk := _chunk(walk)) is not None:
            parts.chunks.append(chunk)
        if len(blob) - walk.at >= 8:
            parts.index = (walk.at, len(blob) - 4)
            while walk.at < len(blob) - 8:
                walk.number()
    except IndexError:
        pass
    _field_numbers(blob, parts)
    return parts


def _chunk(walk: _Walk) -> tuple[int, int, int] | None:
    start = walk.skip(1)
    kind = walk.blob[start]
    if kind == 0:
        return None
    if kind == 2:
        for _ in range(min(walk.number(), 64)):
            walk.number()
    elif kind == 16:
        walk.skip(walk.number())
    size = walk.number()
    crc = walk.skip(4)
    walk.skip(size)
    return start, crc, walk.at


def _field_numbers(blob: bytes, parts: Parts) -> None:
    """Adds the varints of tags, lengths, shape and level."""
    walk = _Walk(blob[: parts.fields[1]])
    walk.at, walk.numbers = parts.fields[0], parts.numbers
    try:
        while walk.at < parts.fields[1]:
            tag, size = walk.number(), walk.number()
            stop = walk.skip(size) + size
            if tag in (6, 12):
                walk.at = stop - size
                while walk.at < stop:
                    walk.number()
    except IndexError:
        pass


def reseal(blob: bytes | bytearray) -> bytes:
    """The same bytes with every CRC-32C made right that can still be found, so that a test gets past the checksums."""
    blob = bytes(blob)
    parts = parts_of(blob)
    if parts is None:
        return blob
    sealed = bytearray(blob)
    head = google_crc32c.value(blob[: parts.header - 4])
    sealed[parts.header - 4 : parts.header] = head.to_bytes(4, "little")
    for start, crc, stop in parts.chunks:
        value = google_crc32c.extend(google_crc32c.extend(head, blob[start:crc]), blob[crc + 4 : stop])
        sealed[crc : crc + 4] = value.to_bytes(4, "little")
    if parts.index is not None:
        start, stop = parts.index
        sealed[stop - 4 : stop] = google_crc32c.extend(head, blob[start : stop - 4]).to_bytes(4, "little")
    return bytes(sealed)


def varint(value: int, *, width: int = 1) -> bytes:
    """`value` in at least `width` bytes: more than needed gives the overlong spelling that readers must reject."""
    out = bytearray()
    while value >= 0x80 or len(out) < width - 1:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields_of(blob: bytes) -> list[tuple[int, bytes]]:
    """(tag, value) of a healthy header."""
    parts = parts_of(blob)
    assert parts is not None, "not a healthy file"
    walk, fields = _Walk(blob), []
    walk.at = parts.fields[0]
    while walk.at < parts.fields[1]:
        tag, size = walk.number(), walk.number()
        start = walk.skip(size)
        fields.append((tag, blob[start : start + size]))
    return fields


def with_fields(blob: bytes, fields: list[tuple[int, bytes]]) -> bytes:
    """The file with other header fields, resealed. The index keeps its offsets: they count from the header's end."""
    parts = parts_of(blob)
    assert parts is not None, "not a healthy file"
    body = b"".join(varint(tag) + varint(len(value)) + value for tag, value in fields)
    return reseal(blob[:MAGIC_AND_VERSION] + varint(len(body)) + body + bytes(4) + blob[parts.header :])


# ---- breaking ----


def mutations(blob: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` broken variants of a healthy file, the same for the same arguments; every second one has its checksums made right again."""
    draw = random.Random(seed)
    for number in range(count):
        bad = blob
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            bad = draw.choice(_BREAKERS)(bad, draw) or blob
        yield reseal(bad) if number % 2 else bad


def _flip_bits(blob: bytes, draw: random.Random) -> bytes:
    bad = bytearray(blob)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = _somewhere(blob, draw)
        bad[at] ^= 1 << draw.randrange(8)
    return bytes(bad)


def _somewhere(blob: bytes, draw: random.Random) -> int:
    """An offset; half of the time near an end, where the structure is."""
    reach = draw.choice((len(blob), len(blob), 48, 48))
    at = draw.randrange(min(reach, len(blob)))
    return at if draw.random() < 0.75 else len(blob) - 1 - at


def _span(blob: bytes, draw: random.Random) -> tuple[int, int]:
    at = _somewhere(blob, draw)
    return at, min(len(blob), at + draw.choice((1, 2, 4, 16, 256)))


def _replace(blob: bytes, draw: random.Random) -> bytes:
    start, stop = _span(blob, draw)
    fill = draw.choice((b"\0", b"\xff", b"\x80", draw.randbytes(1)))
    run = draw.randbytes(stop - start) if draw.random() < 0.5 else fill * (stop - start)
    return blob[:start] + run + blob[stop:]


def _cut(blob: bytes, draw: random.Random) -> bytes:
    return blob[: _somewhere(blob, draw)]


def _remove(blob: bytes, draw: random.Random) -> bytes:
    start, stop = _span(blob, draw)
    return blob[:start] + blob[stop:]


def _insert(blob: bytes, draw: random.Random) -> bytes:
    at = draw.choice((_somewhere(blob, draw), len(blob)))
    return blob[:at] + draw.randbytes(draw.choice((1, 4, 64))) + blob[at:]


def _repeat(blob: bytes, draw: random.Random) -> bytes:
    start, stop = _span(blob, draw)
    return blob[:stop] + blob[start:stop] + blob[stop:]


def _shuffle_chunks(blob: bytes, draw: random.Random) -> bytes:
    """Swaps, repeats or drops whole chunks."""
    parts = parts_of(blob)
    if parts is None or not parts.chunks:
        return blob
    chunks = [blob[start:stop] for start, _, stop in parts.chunks]
    first, second = draw.randrange(len(chunks)), draw.randrange(len(chunks))
    match draw.randrange(3):
        case 0:
            chunks[first], chunks[second] = chunks[second], chunks[first]
        case 1:
            chunks.insert(second, chunks[first])
        case _:
            del chunks[first]
    return blob[: parts.header] + b"".join(chunks) + blob[parts.chunks[-1][2] :]


def _extreme_number(blob: bytes, draw: random.Random) -> bytes:
    """One varint becomes extreme, overlong or endless; half of the time in as many bytes as before, so that what follows stays in place."""
    parts = parts_of(blob)
    if parts is None:
        return blob
    start, stop = draw.choice(parts.numbers)
    width = stop - start
    same = b"\xff" * (width - 1) + bytes([draw.choice((0, 1, 0x7F))])
    other = draw.choice((varint(draw.choice(EXTREMES)), varint(draw.choice(EXTREMES), width=9), b"\xff" * 10, varint(1, width=width + 1)))
    return blob[:start] + (same if draw.random() < 0.5 else other) + blob[stop:]


def _other_fields(blob: bytes, draw: random.Random) -> bytes:
    """A header whose lengths are right and whose fields are not."""
    try:
        fields = fields_of(blob)
        at = draw.randrange(len(fields))
    except (AssertionError, IndexError, ValueError):  # broken before
        return blob
    tag, value = fields[at]
    match draw.randrange(6):
        case 0:
            del fields[at]
        case 1:
            fields.insert(at, fields[at])
        case 2:
            fields[at] = (draw.choice((0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 15, 16, 17, 2**62)), value)
        case 3:
            fields[at] = (tag, varint(draw.choice(EXTREMES)))
        case 4:
            fields[at] = (tag, value[: draw.randrange(len(value) + 1)] + varint(draw.choice(EXTREMES)) * draw.choice((1, 2, 9)))
        case _:
            fields[at] = (tag, draw.randbytes(draw.choice((0, 1, 2, 5, 9, 70))))
    return with_fields(blob, fields)


_BREAKERS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip_bits, _flip_bits, _replace, _cut, _remove, _insert, _repeat, _shuffle_chunks,
    _extreme_number, _extreme_number, _other_fields, _other_fields,
)  # fmt: skip


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError if the block takes longer. For the main thread; checks between two Python instructions."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
