"""The .lpz file: header, chunks, checksums, limits. `docs/FORMAT.md` says it byte by byte.

    Encoded, metadata --write--> bytes --write_file--> disk
    disk -> bytes --read--> File(encoded, metadata, damage, ...)
                  --read_header--> Header           the first HEADER_MAX bytes are enough
    disk ----------read_chunk--> Chunk              one position, through the index

Knows neither codecs nor torch. Whatever the bytes, reading ends in a correct result or in a FormatError (ChecksumError among them),
LimitError or UnsupportedError: a size is compared with the limits and with the bytes that are there before anything is allocated for it.
"""

from __future__ import annotations

import math
import operator
import os
import re
import secrets
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

import google_crc32c

from latentpress.codecs.base import Chunk, Encoded
from latentpress.errors import ChecksumError, FormatError, InputError, LimitError, UnsupportedError

MAGIC = b"LPZ"
VERSION = 0  # until 0.1 the format may change without a new number

# Published codes, one byte on disk. Literal for ever: add lines, never change one.
SHORT_NAMES = {1: "walloc-rgb", 2: "walloc-rgb-16x", 3: "walloc-rgb-4x"}
SHORT_CODES = {name: code for code, name in SHORT_NAMES.items()}

DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
USUAL_DIMS, USUAL_DTYPE, USUAL_PARAMETER = ("y", "x", "band"), "uint8", "level"

# Header tags: even ones must be understood, odd ones may be skipped.
NAMED_BY_DIGEST, NAMED_ONLY, SHAPE, DIMS, DTYPE, LEVEL, PARAMETERS, METADATA_CHUNKS = 2, 4, 6, 8, 10, 12, 14, 16
TAGS = frozenset((NAMED_BY_DIGEST, NAMED_ONLY, SHAPE, DIMS, DTYPE, LEVEL, PARAMETERS, METADATA_CHUNKS))

# Chunk types
END, ORIGIN, PLACED, METADATA = 0, 1, 2, 16

DIGEST_BYTES = 8
VARINT_BYTES = 9  # 63 bits: every value fits a signed 64-bit integer
TEXT_BYTES = 64  # names of codecs, axes, parameters and metadata
AXES = 8  # video with bands has four, an ensemble of field records six
FIELD_BYTES = 4096  # all header fields; 30 long parameter names fit
HEADER_MAX = len(MAGIC) + 1 + VARINT_BYTES + FIELD_BYTES + 4
FRAME_MAX = 1 + 1 + AXES * VARINT_BYTES + VARINT_BYTES + 4  # a chunk without its payload; metadata frames are shorter
PIECE = 1 << 20  # bytes copied at a time to compute a CRC
RESCUE_BYTES = 1 << 33  # reading a damaged file in part checksums at most so many bytes besides going over it a few times: seconds
RESCUE_PLACES = 1 << 18  # and tries so many places where a chunk may begin: seconds, the places in 22 MB of noise


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a reader accepts; beyond it, LimitError. Raise a limit for data you trust: `Limits(pixels=2**32)`."""

    pixels: int = 2**28  # positions, all axes but "band": 16,384 x 16,384, and most photographs ever taken
    samples: int = 2**30  # values, all axes: 1 GiB of uint8 once decoded
    chunks: int = 2**20  # of any type: about a second of parsing
    metadata_bytes: int = 2**26  # all metadata together: the largest ICC profiles have a few MiB
    file_bytes: int = 2**33  # the whole file, which `read` is given in memory


class ChunkEntry(NamedTuple):
    """One line of the chunk table. kind: "data" or the metadata key; offset: of the chunk's first byte; length: all its bytes."""

    kind: str
    position: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about itself before any chunk. size: bytes up to the first chunk; crc: the header's CRC-32C, seed of all others."""

    codec: str
    digest: bytes
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    parameters: Mapping[str, int]
    metadata_chunks: int
    size: int
    crc: int


@dataclass(frozen=True, kw_only=True)
class File:
    """A file read.

    encoded      as given to `write`; the position of a chunk at the origin is ()
    metadata     payload by key
    damage       one line for each thing lost; empty unless read with partial=True
    overhead     bytes that are neither payload nor metadata (nor whole, if there is damage)
    chunk_table  whole chunks in file order
    """

    encoded: Encoded
    metadata: dict[str, bytes]
    damage: tuple[str, ...]
    overhead: int
    chunk_table: list[ChunkEntry]


_NO_METADATA: Mapping[str, bytes] = MappingProxyType({})
_USUAL_LIMITS = Limits()


# ---- writing ----


def write(encoded: Encoded, *, metadata: Mapping[str, bytes] = _NO_METADATA) -> bytes:
    """The bytes of one file. The same arguments give the same bytes.

    encoded   its chunks have kind "data", positions of one length, in rising (raster) order; an all-zero position is stored as ()
    metadata  payload by key: 1 to 64 printable ASCII characters such as "icc", "exif", "xmp"; "data" is taken
    Raises    InputError for whatever the format cannot hold
    """
    header = _header_bytes(encoded, len(metadata))
    seed = google_crc32c.value(header)
    parts = [header, _crc_bytes(seed)]
    for key in sorted(metadata):
        parts.append(_chunk_bytes(_metadata_frame(key), metadata[key], seed))
    at = sum(map(len, parts))
    entries = []
    for position, payload in _placed(encoded.chunks):
        parts.append(_chunk_bytes(_data_frame(position), payload, seed))
        entries.append(ChunkEntry("data", position, at, len(parts[-1])))
        at += len(parts[-1])
    parts += [bytes([END]), _index_bytes(entries, start=len(header) + 4, seed=seed)]
    return b"".join(parts)


def _header_bytes(encoded: Encoded, metadata_chunks: int) -> bytes:
    """Magic to the last field, without the CRC. The number of metadata chunks is kept, so that a lost one is noticed."""
    values = _field_values(encoded) | ({METADATA_CHUNKS: _varint(metadata_chunks)} if metadata_chunks else {})
    fields = b"".join(_varint(tag) + _varint(len(value)) + value for tag, value in sorted(values.items()))
    if len(fields) > FIELD_BYTES:
        raise InputError(f"header fields take {len(fields)} bytes, the format holds {FIELD_BYTES}: use fewer or shorter parameters")
    return MAGIC + bytes([VERSION]) + _varint(len(fields)) + fields


def _field_values(encoded: Encoded) -> dict[int, bytes]:
    if len(encoded.digest) not in (0, DIGEST_BYTES):
        raise InputError(f"digest of {len(encoded.digest)} bytes: expected {DIGEST_BYTES}, or none")
    code = SHORT_CODES.get(encoded.codec)
    name = _text_bytes(encoded.codec, "codec name") if code is None else bytes([code])
    fields = {NAMED_BY_DIGEST if encoded.digest else NAMED_ONLY: encoded.digest + name}
    fields[SHAPE] = _shape_bytes(encoded.shape)
    dims = tuple(encoded.dims)
    if len(dims) != len(encoded.shape) or len(set(dims)) != len(dims):
        raise InputError(f"dims={dims!r}: expected {len(encoded.shape)} different names, one an axis")
    if dims != USUAL_DIMS:
        fields[DIMS] = b"".join(_counted(_text_bytes(name, "axis name")) for name in dims)
    if encoded.dtype not in DTYPES:
        raise InputError(f"dtype={encoded.dtype!r}: expected one of {', '.join(DTYPES)}")
    if encoded.dtype != USUAL_DTYPE:
        fields[DTYPE] = encoded.dtype.encode("ascii")
    return fields | _parameter_fields(encoded.parameters)


def _parameter_fields(parameters: Mapping[str, int]) -> dict[int, bytes]:
    fields = {}
    others = {_text_bytes(name, "parameter name"): _varint(value) for name, value in parameters.items() if name != USUAL_PARAMETER}
    if USUAL_PARAMETER in parameters:
        fields[LEVEL] = _varint(parameters[USUAL_PARAMETER])
    if others:
        fields[PARAMETERS] = b"".join(_counted(name) + others[name] for name in sorted(others))
    return fields


def _shape_bytes(shape: Sequence[int]) -> bytes:
    if len(shape) > AXES or not all(operator.index(axis) >= 1 for axis in shape):
        raise InputError(f"shape={tuple(shape)!r}: expected at most {AXES} axes of at least 1")
    return b"".join(map(_varint, shape))


def _placed(chunks: Iterable[Chunk]) -> list[tuple[tuple[int, ...], bytes]]:
    """(position, payload) of every data chunk; the origin is (), as on disk."""
    placed = [(_canonical(chunk.position), bytes(chunk.payload)) for chunk in chunks if _is_data(chunk)]
    positions = [position for position, _ in placed]
    if not placed:
        raise InputError("no data chunk: a file needs at least one")
    if len({len(p) for p in positions if p}) > 1 or any(len(p) > AXES for p in positions):
        raise InputError(f"positions of data chunks have different lengths or more than {AXES} numbers")
    for before, after in pairwise(positions):
        if not before < after:
            raise InputError(f"data chunk {after} follows {before}: expected rising positions")
    return placed


def _is_data(chunk: Chunk) -> bool:
    if chunk.kind != "data":
        raise InputError(f"chunk of kind {chunk.kind!r}: expected data; everything else is metadata")
    return True


def _canonical(position: Sequence[int]) -> tuple[int, ...]:
    position = tuple(map(operator.index, position))
    return position if any(position) else ()


def _data_frame(position: tuple[int, ...]) -> bytes:
    if not position:
        return bytes([ORIGIN])
    return bytes([PLACED]) + _varint(len(position)) + b"".join(map(_varint, position))


def _metadata_frame(key: str) -> bytes:
    if key == "data" or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"metadata key {key!r}: expected printable ASCII without spaces, and not 'data'")
    return bytes([METADATA]) + _counted(_text_bytes(key, "metadata key"))


def _chunk_bytes(frame: bytes, payload: bytes, seed: int) -> bytes:
    frame += _varint(len(payload))
    return b"".join((frame, _crc_bytes(google_crc32c.extend(google_crc32c.extend(seed, frame), bytes(payload))), payload))


def _index_bytes(entries: Sequence[ChunkEntry], *, start: int, seed: int) -> bytes:
    """The index of data chunks, whose first chunk of any type begins at byte `start`; empty for one data chunk."""
    if len(entries) < 2:
        return b""
    rank = max(len(entry.position) for entry in entries)
    parts, at = [_varint(len(entries)), _varint(rank)], start
    for entry in entries:
        position = entry.position or (0,) * rank
        parts += [_varint(number) for number in (*position, entry.offset - at, entry.length)]
        at = entry.offset + entry.length
    body = b"".join(parts)
    body += _crc_bytes(google_crc32c.extend(seed, body))
    return body + len(body).to_bytes(4, "little")


def _varint(value: int) -> bytes:
    value = operator.index(value)
    if not 0 <= value < 2**63:
        raise InputError(f"{value} cannot be stored: expected 0 to 2**63 - 1")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _counted(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _crc_bytes(crc: int) -> bytes:
    return crc.to_bytes(4, "little")


def _text_bytes(text: str, what: str) -> bytes:
    try:
        value = text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair
        value = b""
    if not _is_text(value):
        raise InputError(f"{what} {text!r}: expected 1 to {TEXT_BYTES} bytes of UTF-8 without control characters")
    return value


def _is_text(value: bytes) -> bool:
    return 1 <= len(value) <= TEXT_BYTES and all(byte >= 0x20 and byte != 0x7F for byte in value)


# ---- where bytes come from ----


class _Memory:
    """A file held in memory, or its bytes from `base` on: views, no copies."""

    def __init__(self, blob: bytes | bytearray | memoryview, *, base: int = 0) -> None:
        self._data, self._base = memoryview(blob).cast("B"), base
        self.size = base + len(self._data)

    def view(self, at: int, size: int) -> memoryview:
        return self._data[at - self._base : at - self._base + size]


class _Disk:
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


_Source = _Memory | _Disk


def _crc(seed: int, source: _Source, start: int, stop: int) -> int:
    """CRC-32C of bytes `start` to `stop - 1`, in pieces: the library wants bytes objects, and a copy of everything costs memory."""
    for at in range(start, stop, PIECE):
        seed = google_crc32c.extend(seed, bytes(source.view(at, min(PIECE, stop - at))))
    return seed


class _Cursor:
    """Reads forward through `data`, which begins at byte `base` of the file; `part` names it in errors."""

    def __init__(self, data: memoryview, base: int, part: str) -> None:
        self.data, self.base, self.part, self.at = data, base, part, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def error(self, what: str) -> FormatError:
        return FormatError(f"{self.part} at byte {self.base + self.at}: {what}")

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise self.error(f"needs {size} bytes, {self.left} are there")
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def varint(self) -> int:
        value = 0
        for shift in range(0, 7 * VARINT_BYTES, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise self.error("a number is longer than needed")
                return value
        raise self.error(f"a number has more than {VARINT_BYTES} bytes")

    def text(self) -> str:
        """A counted text."""
        return self.text_of(self.varint())

    def text_of(self, size: int) -> str:
        value = self.take(size) if size <= TEXT_BYTES else b""
        if not _is_text(value):
            raise self.error(f"a name is not 1 to {TEXT_BYTES} bytes of UTF-8 without control characters")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"a name is not UTF-8: {value!r}") from None


# ---- reading the header ----


def read_header(prefix: bytes | bytearray | memoryview, *, limits: Limits = _USUAL_LIMITS) -> Header:
    """The header alone. `HEADER_MAX` bytes from the start of a file are always enough, fewer often are.

    Raises  FormatError "not an .lpz file", or that says how many bytes are missing; ChecksumError; UnsupportedError; LimitError for
            more pixels or samples than allowed
    """
    data = memoryview(prefix).cast("B")
    head = bytes(data[:4])
    if not head or head[:3] != MAGIC[: len(head)]:
        raise FormatError(f"not an .lpz file: it begins with {head!r}" if head else "not an .lpz file: it is empty")
    cursor = _Cursor(data, 0, "header")
    cursor.take(3)
    version = cursor.take(1)[0]
    if version != VERSION:
        raise UnsupportedError(f".lpz version {version}: this latentpress reads version {VERSION}; install a newer one")
    length = cursor.varint()
    if length > FIELD_BYTES:
        raise cursor.error(f"{length} bytes of fields, the format holds {FIELD_BYTES}")
    start, stop = cursor.at, cursor.at + length
    if cursor.left < length + 4:
        raise FormatError(f"the header has {stop + 4} bytes, only {len(data)} are there")
    cursor.take(length)
    crc = google_crc32c.value(bytes(data[:stop]))
    _compare("header", 0, stored=cursor.take(4), computed=crc)
    header = _header_of(_split_fields(_Cursor(data[start:stop], start, "header")), size=stop + 4, crc=crc)
    _check_shape(header, limits)
    return header


def _compare(part: str, offset: int, *, stored: bytes, computed: int) -> None:
    if (crc := int.from_bytes(stored, "little")) != computed:
        raise ChecksumError(part, offset, crc, computed)


def _split_fields(cursor: _Cursor) -> dict[int, _Cursor]:
    fields: dict[int, _Cursor] = {}
    last = -1
    while cursor.left:
        tag = cursor.varint()
        if tag <= last:
            raise cursor.error(f"field {tag} after field {last}: fields are different and rise")
        size, last = cursor.varint(), tag
        at = cursor.base + cursor.at
        value = cursor.take(size)
        if tag in TAGS:
            fields[tag] = _Cursor(memoryview(value), at, f"header field {tag}")
        elif tag % 2 == 0:
            raise UnsupportedError(f"header field {tag} is unknown and must be understood; install a newer latentpress")
    return fields


def _header_of(fields: dict[int, _Cursor], *, size: int, crc: int) -> Header:
    if (NAMED_BY_DIGEST in fields) == (NAMED_ONLY in fields):
        raise FormatError("header: expected one field that names the codec")
    if SHAPE not in fields:
        raise FormatError("header: the shape is missing")
    digest = fields[NAMED_BY_DIGEST].take(DIGEST_BYTES) if NAMED_BY_DIGEST in fields else b""
    shape = _shape_of(fields[SHAPE])
    dims = _dims_of(fields[DIMS]) if DIMS in fields else USUAL_DIMS
    if len(dims) != len(shape):
        raise FormatError(f"header: {len(dims)} axis names for {len(shape)} axes")
    return Header(
        codec=_codec_of(fields[NAMED_BY_DIGEST if digest else NAMED_ONLY]),
        digest=digest,
        shape=shape,
        dtype=_dtype_of(fields[DTYPE]) if DTYPE in fields else USUAL_DTYPE,
        dims=dims,
        parameters=_parameters_of(fields),
        metadata_chunks=_metadata_chunks_of(fields),
        size=size,
        crc=crc,
    )


def _metadata_chunks_of(fields: dict[int, _Cursor]) -> int:
    if METADATA_CHUNKS not in fields:
        return 0
    cursor = fields[METADATA_CHUNKS]
    count = cursor.varint()
    if count == 0 or cursor.left:
        raise cursor.error("one number of at least 1 expected")
    return count


def _codec_of(cursor: _Cursor) -> str:
    if cursor.left == 1 and cursor.data[cursor.at] < 0x20:
        code = cursor.take(1)[0]
        if code not in SHORT_NAMES:
            raise UnsupportedError(f"codec number {code} is unknown; install a newer latentpress")
        return SHORT_NAMES[code]
    return cursor.text_of(cursor.left)


def _shape_of(cursor: _Cursor) -> tuple[int, ...]:
    shape = []
    while cursor.left:
        shape.append(cursor.varint())
        if shape[-1] < 1 or len(shape) > AXES:
            raise cursor.error(f"expected at most {AXES} axes of at least 1")
    return tuple(shape)


def _dims_of(cursor: _Cursor) -> tuple[str, ...]:
    dims: list[str] = []
    while cursor.left:
        dims.append(cursor.text())
    if len(set(dims)) != len(dims):
        raise cursor.error("an axis name occurs twice")
    return tuple(dims)


def _dtype_of(cursor: _Cursor) -> str:
    dtype = cursor.text_of(cursor.left)
    if dtype not in DTYPES:
        raise UnsupportedError(f"samples of type {dtype!r}: this latentpress knows {', '.join(DTYPES)}")
    return dtype


def _parameters_of(fields: dict[int, _Cursor]) -> dict[str, int]:
    parameters = {}
    if LEVEL in fields:
        parameters[USUAL_PARAMETER] = fields[LEVEL].varint()
        if fields[LEVEL].left:
            raise fields[LEVEL].error("bytes after the level")
    last = b""
    while PARAMETERS in fields and fields[PARAMETERS].left:
        cursor = fields[PARAMETERS]
        name = cursor.text()
        if name == USUAL_PARAMETER or name.encode() <= last:
            raise cursor.error(f"parameter {name!r}: names are different, rise, and {USUAL_PARAMETER!r} has its own field")
        parameters[name], last = cursor.varint(), name.encode()
    return parameters


def _check_shape(header: Header, limits: Limits) -> None:
    samples = math.prod(header.shape)
    pixels = math.prod(axis for axis, name in zip(header.shape, header.dims, strict=True) if name != "band")
    for what, found, allowed in (("pixels", pixels, limits.pixels), ("samples", samples, limits.samples)):
        if found > allowed:
            raise LimitError(f"shape {header.shape} has {found} {what}, the limit is {allowed}; raise Limits.{what} for data you trust")


# ---- reading chunks ----


class _Frame(NamedTuple):
    """A chunk without its payload. kind and position as in ChunkEntry; start, payload, end: offsets in the file; crc: as stored."""

    kind: str
    position: tuple[int, ...]
    start: int
    payload: int
    end: int
    crc: bytes

    @property
    def label(self) -> str:
        return _label(self.kind, self.position)


def _label(kind: str, position: tuple[int, ...]) -> str:
    if kind != "data":
        return f"metadata {kind!r}"
    return f"chunk {position}" if position else "chunk at the origin"


def _frame_at(source: _Source, at: int) -> _Frame | None:
    """The frame that begins at byte `at`, None for the end mark. Whether the file has the payload is for `_check_chunk` to say."""
    cursor = _Cursor(source.view(at, FRAME_MAX), at, "chunk")
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
    return _Frame(kind, position, at, payload, payload + size, crc)


def _position_of(cursor: _Cursor) -> tuple[int, ...]:
    count = cursor.varint()
    if count > AXES:
        raise cursor.error(f"a position of {count} numbers, the format holds {AXES}")
    position = tuple(cursor.varint() for _ in range(count))
    if not any(position):
        raise cursor.error("the origin is stored as a position")
    return position


def _key_of(cursor: _Cursor) -> str:
    key = cursor.text()
    if key == "data" or not key.isascii() or " " in key:
        raise cursor.error(f"metadata key {key!r} is not printable ASCII without spaces, or is 'data'")
    return key


def _computed(source: _Source, header: Header, frame: _Frame) -> int:
    return _crc(_crc(header.crc, source, frame.start, frame.payload - 4), source, frame.payload, frame.end)


def _check_chunk(source: _Source, header: Header, frame: _Frame) -> None:
    if frame.end > source.size:
        wanted, left = frame.end - frame.payload, source.size - frame.payload
        raise FormatError(f"{frame.label} at byte {frame.start}: {wanted} bytes of payload, {left} are left in the file")
    _compare(frame.label, frame.start, stored=frame.crc, computed=_computed(source, header, frame))


class _Contents:
    """Gathers whole chunks and holds the rules between them."""

    def __init__(self, source: _Source, header: Header, limits: Limits) -> None:
        self.source, self.header, self.limits = source, header, limits
        self.chunks: list[Chunk] = []
        self.metadata: dict[str, bytes] = {}
        self.table: list[ChunkEntry] = []
        self.metadata_bytes = self.payload_bytes = 0

    def add(self, frame: _Frame) -> None:
        if len(self.table) >= self.limits.chunks:
            raise LimitError(f"more than {self.limits.chunks} chunks; raise Limits.chunks for data you trust")
        if frame.kind == "data":
            self._add_data(frame)
        else:
            self._add_metadata(frame)
        self.table.append(ChunkEntry(frame.kind, frame.position, frame.start, frame.end - frame.start))

    def _add_data(self, frame: _Frame) -> None:
        if self.chunks:
            last = self.chunks[-1].position
            if not last < frame.position or (last and len(last) != len(frame.position)):
                raise FormatError(f"{frame.label} at byte {frame.start} follows {_label('data', last)}: expected rising positions")
        self.chunks.append(Chunk(payload=bytes(self._payload(frame)), position=frame.position))
        self.payload_bytes += frame.end - frame.payload

    def _add_metadata(self, frame: _Frame) -> None:
        if frame.kind in self.metadata:
            raise FormatError(f"{frame.label} at byte {frame.start}: there twice")
        self.metadata_bytes += frame.end - frame.payload
        if self.metadata_bytes > self.limits.metadata_bytes:
            raise LimitError(f"more than {self.limits.metadata_bytes} bytes of metadata; raise Limits.metadata_bytes for data you trust")
        self.metadata[frame.kind] = bytes(self._payload(frame))

    def _payload(self, frame: _Frame) -> memoryview:
        return self.source.view(frame.payload, frame.end - frame.payload)

    @property
    def index(self) -> bytes:
        data = [entry for entry in self.table if entry.kind == "data"]
        return _index_bytes(data, start=self.header.size, seed=self.header.crc)


def read(blob: bytes | bytearray | memoryview, *, limits: Limits = _USUAL_LIMITS, partial: bool = False) -> File:
    """All of a file.

    partial  leave out damaged chunks and what a cut file lacks, and say so in `File.damage`; a damaged header is an error all the same
    Raises   FormatError, ChecksumError, LimitError, UnsupportedError, and nothing else
    """
    source = _Memory(blob)
    if source.size > limits.file_bytes:
        raise LimitError(f"{source.size} bytes, the limit is {limits.file_bytes}; raise Limits.file_bytes for data you trust")
    header = read_header(source.view(0, HEADER_MAX), limits=limits)
    contents = _Contents(source, header, limits)
    damage: list[str] = []
    if partial:
        damage = _Rescue(contents).run()
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


def _gather(contents: _Contents) -> None:
    source, at = contents.source, contents.header.size
    while (frame := _frame_at(source, at)) is not None:
        _check_chunk(source, contents.header, frame)
        contents.add(frame)
        at = frame.end
    _check_end(contents, at + 1)


def _check_end(contents: _Contents, at: int) -> None:
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
        _compare("index", at, stored=stored[-8:-4], computed=google_crc32c.extend(contents.header.crc, stored[:-8]))
        raise FormatError(f"the index at byte {at} disagrees with the chunks")


# ---- the index ----


class _Index(NamedTuple):
    """start: offset of its first byte; entries: data chunks in file order."""

    start: int
    entries: list[ChunkEntry]


def _index_of(source: _Source, header: Header, limits: Limits) -> _Index | None:
    """The index at the end of the file, None where there is no valid one: a file with one data chunk, cut or damaged."""
    size = int.from_bytes(source.view(source.size - 4, 4), "little")
    start = source.size - 4 - size
    if start <= header.size:
        return None
    if _crc(header.crc, source, start, start + size - 4) != int.from_bytes(source.view(start + size - 4, 4), "little"):
        return None
    try:
        return _Index(start, _index_entries(_Cursor(source.view(start, size - 4), start, "index"), header.size, limits))
    except FormatError:
        return None


def _index_entries(cursor: _Cursor, at: int, limits: Limits) -> list[ChunkEntry]:
    count, rank = cursor.varint(), cursor.varint()
    if count > limits.chunks:
        raise LimitError(f"{count} chunks, the limit is {limits.chunks}; raise Limits.chunks for data you trust")
    entries, stop = [], cursor.base
    for _ in range(count):
        position = _canonical([cursor.varint() for _ in range(rank)])
        at += cursor.varint()
        entries.append(ChunkEntry("data", position, at, cursor.varint()))
        at += entries[-1].length
        if at >= stop:
            raise cursor.error("a chunk runs into the index")
    return entries


def read_chunk(file: bytes | bytearray | memoryview | BinaryIO, position: Sequence[int], *, limits: Limits = _USUAL_LIMITS) -> Chunk:
    """One data chunk, read through the index without the rest of the file.

    file      bytes, or a seekable binary file object
    position  as given to `write`; () and all zeros are the origin
    Raises    InputError if no chunk has this position; else as `read`
    """
    source = _Memory(file) if isinstance(file, bytes | bytearray | memoryview) else _Disk(file)
    header = read_header(source.view(0, HEADER_MAX), limits=limits)
    wanted = _canonical(position)
    frame = _frame_for(source, header, wanted, limits)
    if frame is None:
        raise InputError(f"no chunk has position {tuple(position)}")
    part = _Memory(source.view(frame.start, frame.end - frame.start), base=frame.start)  # from disk, once
    _check_chunk(part, header, frame)
    return Chunk(payload=bytes(part.view(frame.payload, frame.end - frame.payload)), position=wanted)


def read_metadata(file: bytes | bytearray | memoryview | BinaryIO, *, limits: Limits = _USUAL_LIMITS) -> dict[str, bytes]:
    """The metadata chunks alone, payload by key. Data chunks are stepped over unread, so damage there goes unnoticed, and a cut file
    gives the metadata in front of the cut.

    Raises   FormatError, ChecksumError, LimitError, UnsupportedError
    """
    source = _Memory(file) if isinstance(file, bytes | bytearray | memoryview) else _Disk(file)
    header = read_header(source.view(0, HEADER_MAX), limits=limits)
    contents, at, steps = _Contents(source, header, limits), header.size, 0
    while at < source.size and (frame := _frame_at(source, at)) is not None:
        steps += 1
        if steps > limits.chunks:
            raise LimitError(f"more than {limits.chunks} chunks; raise Limits.chunks for data you trust")
        if frame.kind != "data":
            _check_chunk(source, header, frame)
            contents.add(frame)
        at = frame.end
    return contents.metadata


def _frame_for(source: _Source, header: Header, wanted: tuple[int, ...], limits: Limits) -> _Frame | None:
    if (index := _index_of(source, header, limits)) is None:
        return _frame_by_walking(source, header, wanted, limits)
    for entry in index.entries:
        if entry.position == wanted:
            frame = _frame_at(source, entry.offset)
            if frame is None or frame[:2] != ("data", wanted) or frame.end - frame.start != entry.length:
                raise FormatError(f"the index disagrees with what stands at byte {entry.offset}")
            return frame
    return None


def _frame_by_walking(source: _Source, header: Header, wanted: tuple[int, ...], limits: Limits) -> _Frame | None:
    at = header.size
    for _ in range(limits.chunks):
        if (frame := _frame_at(source, at)) is None:
            return None
        if frame.kind == "data" and frame.position == wanted:
            return frame
        at = frame.end
    raise LimitError(f"more than {limits.chunks} chunks; raise Limits.chunks for data you trust")


# ---- what is whole in a damaged file ----


class _Rescue:
    """Walks a damaged file from whole chunk to whole chunk.

    After a damaged chunk the walk goes on where that chunk says it ends if something whole stands there; else at the next bytes that are a
    chunk by their CRC, or at the next chunk that the index knows, whichever comes first.
    """

    def __init__(self, contents: _Contents) -> None:
        self.contents, self.source, self.header = contents, contents.source, contents.header
        self.index = _index_of(self.source, self.header, contents.limits)
        self.entries = [] if self.index is None else self.index.entries
        self.offsets = [entry.offset for entry in self.entries]
        self.bytes_left = 4 * self.source.size + RESCUE_BYTES
        self.places_left = RESCUE_PLACES
        self.damage: list[str] = []

    def run(self) -> list[str]:
        at = self.header.size
        while not self._is_tail(at):
            frame = self._parsed(at)
            if frame is not None and self._is_whole(frame):
                self._noting(self.contents.add, frame)
                at = frame.end
                continue
            stop = next(self._whole_after(frame, at), None)
            if stop is None:
                self._report_end(frame, at)
                return self.damage
            self._report(frame, at, stop)
            at = stop
        if not self.damage:
            self._noting(_check_end, self.contents, at + 1)
        return self.damage

    def _is_tail(self, at: int) -> bool:
        """True if an end mark stands here with nothing behind it, or a valid index."""
        ends = {self.source.size} if self.index is None else {self.source.size, self.index.start}
        return at + 1 in ends and self.source.view(at, 1)[0] == END

    def _parsed(self, at: int) -> _Frame | None:
        try:
            return _frame_at(self.source, at)
        except (FormatError, UnsupportedError):
            return None

    def _is_whole(self, frame: _Frame) -> bool:
        if frame.end > self.source.size:
            return False
        self.bytes_left -= frame.end - frame.start
        return self.bytes_left > 0 and _computed(self.source, self.header, frame) == int.from_bytes(frame.crc, "little")

    def _noting(self, check: Callable[..., None], *arguments: object) -> None:
        try:
            check(*arguments)
        except FormatError as error:
            self.damage.append(str(error))

    def _whole_after(self, frame: _Frame | None, at: int) -> Iterator[int]:
        """Offsets behind the damaged chunk at `at` where the walk can go on, best first."""
        if frame is not None and self._stands(frame.end):
            yield frame.end
        known = bisect_right(self.offsets, at)  # how many chunks of the index begin here or before
        start = at + 1
        if known and self.offsets[known - 1] == at:
            start += self.entries[known - 1].length - 1
        if self.index is None:
            yield from self._scan(start, self.source.size)
        else:
            # noise in the payload of a data chunk is not searched: only metadata can stand before the next known offset
            later = [*self.offsets[known : known + 1], self.index.start - 1]
            yield from self._scan(start, later[0])
            yield from filter(self._stands, chain(islice(self.offsets, known, None), [self.index.start - 1]))

    def _stands(self, at: int) -> bool:
        """True if a whole chunk, or the end, stands here."""
        return self._is_tail(at) or ((frame := self._parsed(at)) is not None and self._is_whole(frame))

    def _scan(self, start: int, stop: int) -> Iterator[int]:
        for match in re.finditer(rb"[\x01\x02\x10]", self.source.view(start, max(0, stop - start))):
            self.places_left -= 1
            if self.places_left < 0:
                return
            if (frame := self._parsed(start + match.start())) is not None and self._is_whole(frame):
                yield frame.start

    def _report_end(self, frame: _Frame | None, start: int) -> None:
        """What is lost from `start` on, where nothing whole follows."""
        if bytes(self.source.view(start, 1)) == bytes([END]):
            self.damage.append(f"bytes {start} to {self.source.size - 1}: what follows the end mark is no index of this file")
            return
        self._report(frame, start, self.source.size)
        self.damage.append("the end mark is missing: the file was cut, or its end is damaged")

    def _report(self, frame: _Frame | None, start: int, stop: int) -> None:
        """One line for each chunk lost between two offsets, named by the index, else by its own frame."""
        lost = self.entries[bisect_left(self.offsets, start) : bisect_left(self.offsets, stop)]
        names = [(_label(e.kind, e.position), e.offset, e.offset + e.length) for e in lost]
        if frame is not None and all(e.offset != frame.start for e in lost):
            names.insert(0, (frame.label, frame.start, min(frame.end, stop)))
        if not names and start < stop:
            names = [("unknown chunk", start, stop)]
        self.damage += [f"{label}, bytes {begin} to {end - 1}: damaged, left out" for label, begin, end in names]


# ---- files on disk ----


def write_file(path: str | os.PathLike[str], blob: bytes | memoryview, *, overwrite: bool = False) -> None:
    """Put `blob` at `path`, whole or not at all: a temporary file in the same folder, fsync, rename.

    Raises  InputError if there is a file already (unless overwrite) or the disk refuses; what was there stays, and no temporary is left
    """
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r} cannot be written: no name has a zero byte")
    final = os.path.realpath(path)  # of a link, the file behind it is replaced
    mode = _mode_to_keep(final, overwrite=overwrite)
    temporary = os.path.join(os.path.dirname(final), f".lpz-{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                _fill(file.fileno(), blob, mode)
            _move(temporary, final, overwrite=overwrite)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except FileExistsError:
        raise _exists(final) from None
    except OSError as error:
        raise InputError(f"{final!r} was not written: {error.strerror or error}") from error
    _sync_folder(os.path.dirname(final))


def _exists(path: str) -> InputError:
    return InputError(f"{path!r} exists: choose another name, or allow overwriting")


def _mode_to_keep(path: str, *, overwrite: bool) -> int | None:
    """Permission bits of the file to be replaced, None if there is none."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path!r} cannot be written: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):  # a rename would replace a device by a file
        raise InputError(f"{path!r} is a folder or a device: choose another name")
    if not overwrite:
        raise _exists(path)
    return stat.S_IMODE(mode)


def _fill(handle: int, blob: bytes | memoryview, mode: int | None) -> None:
    if mode is not None and os.chmod in os.supports_fd:
        os.chmod(handle, mode)
    rest = memoryview(blob).cast("B")
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)


def _move(temporary: str, final: str, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, final)
        return
    try:
        os.link(temporary, final)  # fails if somebody made the file meanwhile; a rename would replace it
    except FileExistsError:
        raise
    except (OSError, NotImplementedError, AttributeError):  # file systems without hard links
        if os.path.lexists(final):
            raise FileExistsError(final) from None
        os.rename(temporary, final)


def _sync_folder(folder: str) -> None:
    """Makes the rename last; some systems cannot, and the file is whole either way."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
