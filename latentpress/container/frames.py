"""One chunk: its frame, and whether its payload is whole."""

from __future__ import annotations

from typing import NamedTuple

from latentpress.container.cursor import Cursor
from latentpress.container.layout import AXES, FRAME_MAX, Header, label_of
from latentpress.container.sources import Source, compare, crc_of
from latentpress.errors import FormatError, UnsupportedError


class Frame(NamedTuple):
    """A chunk without its payload. kind and position as in ChunkEntry; start, payload, end: offsets in the file; crc: as stored."""

    kind: str
    position: tuple[int, ...]
    start: int
    payload: int
    end: int
    crc: bytes

    @property
    def label(self) -> str:
        return label_of(self.kind, self.position)


def frame_at(source: Source, at: int) -> Frame | None:
    """The frame that begins at byte `at`, None for the end mark. Whether the file has the payload is for `check_chunk` to say."""
    cursor = Cursor(source.view(at, FRAME_MAX), at, "chunk")
    if cursor.left == 0:
        raise FormatError(f"the file ends at byte {at} without an end mark: it was cut")
    kind = "data"
    position: tuple[int, ...] = ()
    match cursor.take(1)[0]:
        case 0:
            return None
        case 1:
            pass
        case 2:
            position = _position_of(cursor)
        case 16:
            kind = _key_of(cursor)
        case other:
            raise UnsupportedError(f"chunk type {other} at byte {at}: damaged, or made by a newer latentpress")
    size = cursor.varint()
    crc = cursor.take(4)
    payload = at + cursor.at
    return Frame(kind, position, at, payload, payload + size, crc)


def _position_of(cursor: Cursor) -> tuple[int, ...]:
    count = cursor.varint()
    if count > AXES:
        raise cursor.error(f"a position of {count} numbers, the format holds {AXES}")
    position = tuple(cursor.varint() for _ in range(count))
    if not any(position):
        raise cursor.error("the origin is stored as a position")
    return position


def _key_of(cursor: Cursor) -> str:
    key = cursor.text()
    if key == "data" or not key.isascii() or " " in key:
        raise cursor.error(f"metadata key {key!r} is not printable ASCII without spaces, or is 'data'")
    return key


def computed_crc(source: Source, header: Header, frame: Frame) -> int:
    return crc_of(crc_of(header.crc, source, frame.start, frame.payload - 4), source, frame.payload, frame.end)


def check_chunk(source: Source, header: Header, frame: Frame) -> None:
    if frame.end > source.size:
        wanted, left = frame.end - frame.payload, source.size - frame.payload
        raise FormatError(f"{frame.label} at byte {frame.start}: {wanted} bytes of payload, {left} are left in the file")
    compare(frame.label, frame.start, stored=frame.crc, computed=computed_crc(source, header, frame))
