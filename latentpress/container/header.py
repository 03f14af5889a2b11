"""`read_header`: the fields in front of the chunks."""

from __future__ import annotations

import math

import google_crc32c

from latentpress.container.cursor import Cursor
from latentpress.container.layout import (
    AXES,
    DIGEST_BYTES,
    DIMS,
    DTYPE,
    DTYPES,
    FIELD_BYTES,
    LEVEL,
    MAGIC,
    METADATA_CHUNKS,
    NAMED_BY_DIGEST,
    NAMED_ONLY,
    PARAMETERS,
    SHAPE,
    SHORT_NAMES,
    TAGS,
    USUAL_DIMS,
    USUAL_DTYPE,
    USUAL_LIMITS,
    USUAL_PARAMETER,
    VERSION,
    Header,
    Limits,
)
from latentpress.container.sources import compare
from latentpress.errors import FormatError, LimitError, UnsupportedError


def read_header(prefix: bytes | bytearray | memoryview, *, limits: Limits = USUAL_LIMITS) -> Header:
    """The header alone. `HEADER_MAX` bytes from the start of a file are always enough, fewer often are.

    Raises  FormatError "not an .lpz file", or that says how many bytes are missing; ChecksumError; UnsupportedError; LimitError for
            more pixels or samples than allowed
    """
    data = memoryview(prefix).cast("B")
    head = bytes(data[:4])
    if not head or head[:3] != MAGIC[: len(head)]:
        raise FormatError(f"not an .lpz file: it begins with {head!r}" if head else "not an .lpz file: it is empty")
    cursor = Cursor(data, 0, "header")
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
    compare("header", 0, stored=cursor.take(4), computed=crc)
    header = _header_of(_split_fields(Cursor(data[start:stop], start, "header")), size=stop + 4, crc=crc)
    _check_shape(header, limits)
    return header


def _split_fields(cursor: Cursor) -> dict[int, Cursor]:
    fields: dict[int, Cursor] = {}
    last = -1
    while cursor.left:
        tag = cursor.varint()
        if tag <= last:
            raise cursor.error(f"field {tag} after field {last}: fields are different and rise")
        size, last = cursor.varint(), tag
        at = cursor.base + cursor.at
        value = cursor.take(size)
        if tag in TAGS:
            fields[tag] = Cursor(memoryview(value), at, f"header field {tag}")
        elif tag % 2 == 0:
            raise UnsupportedError(f"header field {tag} is unknown and must be understood; install a newer latentpress")
    return fields


def _header_of(fields: dict[int, Cursor], *, size: int, crc: int) -> Header:
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


def _metadata_chunks_of(fields: dict[int, Cursor]) -> int:
    if METADATA_CHUNKS not in fields:
        return 0
    cursor = fields[METADATA_CHUNKS]
    count = cursor.varint()
    if count == 0 or cursor.left:
        raise cursor.error("one number of at least 1 expected")
    return count


def _codec_of(cursor: Cursor) -> str:
    if cursor.left == 1 and cursor.data[cursor.at] < 0x20:
        code = cursor.take(1)[0]
        if code not in SHORT_NAMES:
            raise UnsupportedError(f"codec number {code} is unknown; install a newer latentpress")
        return SHORT_NAMES[code]
    return cursor.text_of(cursor.left)


def _shape_of(cursor: Cursor) -> tuple[int, ...]:
    shape = []
    while cursor.left:
        shape.append(cursor.varint())
        if shape[-1] < 1 or len(shape) > AXES:
            raise cursor.error(f"expected at most {AXES} axes of at least 1")
    return tuple(shape)


def _dims_of(cursor: Cursor) -> tuple[str, ...]:
    dims: list[str] = []
    while cursor.left:
        dims.append(cursor.text())
    if len(set(dims)) != len(dims):
        raise cursor.error("an axis name occurs twice")
    return tuple(dims)


def _dtype_of(cursor: Cursor) -> str:
    dtype = cursor.text_of(cursor.left)
    if dtype not in DTYPES:
        raise UnsupportedError(f"samples of type {dtype!r}: this latentpress knows {', '.join(DTYPES)}")
    return dtype


def _parameters_of(fields: dict[int, Cursor]) -> dict[str, int]:
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
