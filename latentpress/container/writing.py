"""`write`: header, metadata, data chunks, end mark, index."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import google_crc32c

from latentpress.codecs.base import Chunk, Encoded
from latentpress.container.index import index_bytes
from latentpress.container.layout import (
    AXES,
    DIGEST_BYTES,
    DIMS,
    DTYPE,
    DTYPES,
    END,
    FIELD_BYTES,
    LEVEL,
    MAGIC,
    METADATA,
    METADATA_CHUNKS,
    NAMED_BY_DIGEST,
    NAMED_ONLY,
    ORIGIN,
    PARAMETERS,
    PLACED,
    SHAPE,
    SHORT_CODES,
    USUAL_DIMS,
    USUAL_DTYPE,
    USUAL_PARAMETER,
    VERSION,
    ChunkEntry,
    canonical,
)
from latentpress.container.values import counted, crc_bytes, text_bytes, varint
from latentpress.errors import InputError

_NO_METADATA: Mapping[str, bytes] = MappingProxyType({})


def write(encoded: Encoded, *, metadata: Mapping[str, bytes] = _NO_METADATA) -> bytes:
    """The bytes of one file. The same arguments give the same bytes.

    encoded   its chunks have kind "data", positions of one length, in rising (raster) order; an all-zero position is stored as ()
    metadata  payload by key: 1 to 64 printable ASCII characters such as "icc", "exif", "xmp"; "data" is taken
    Raises    InputError for whatever the format cannot hold
    """
    header = _header_bytes(encoded, len(metadata))
    seed = google_crc32c.value(header)
    parts = [header, crc_bytes(seed)]
    for key in sorted(metadata):
        parts.append(_chunk_bytes(_metadata_frame(key), metadata[key], seed))
    at = sum(map(len, parts))
    entries = []
    for position, payload in _placed(encoded.chunks):
        parts.append(_chunk_bytes(_data_frame(position), payload, seed))
        entries.append(ChunkEntry("data", position, at, len(parts[-1])))
        at += len(parts[-1])
    parts += [bytes([END]), index_bytes(entries, start=len(header) + 4, seed=seed)]
    return b"".join(parts)


def _header_bytes(encoded: Encoded, metadata_chunks: int) -> bytes:
    """Magic to the last field, without the CRC. The number of metadata chunks is kept, so that a lost one is noticed."""
    values = _field_values(encoded) | ({METADATA_CHUNKS: varint(metadata_chunks)} if metadata_chunks else {})
    fields = b"".join(varint(tag) + varint(len(value)) + value for tag, value in sorted(values.items()))
    if len(fields) > FIELD_BYTES:
        raise InputError(f"header fields take {len(fields)} bytes, the format holds {FIELD_BYTES}: use fewer or shorter parameters")
    return MAGIC + bytes([VERSION]) + varint(len(fields)) + fields


def _field_values(encoded: Encoded) -> dict[int, bytes]:
    if len(encoded.digest) not in (0, DIGEST_BYTES):
        raise InputError(f"digest of {len(encoded.digest)} bytes: expected {DIGEST_BYTES}, or none")
    code = SHORT_CODES.get(encoded.codec)
    name = text_bytes(encoded.codec, "codec name") if code is None else bytes([code])
    fields = {NAMED_BY_DIGEST if encoded.digest else NAMED_ONLY: encoded.digest + name}
    fields[SHAPE] = _shape_bytes(encoded.shape)
    dims = tuple(encoded.dims)
    if len(dims) != len(encoded.shape) or len(set(dims)) != len(dims):
        raise InputError(f"dims={dims!r}: expected {len(encoded.shape)} different names, one an axis")
    if dims != USUAL_DIMS:
        fields[DIMS] = b"".join(counted(text_bytes(name, "axis name")) for name in dims)
    if encoded.dtype not in DTYPES:
        raise InputError(f"dtype={encoded.dtype!r}: expected one of {', '.join(DTYPES)}")
    if encoded.dtype != USUAL_DTYPE:
        fields[DTYPE] = encoded.dtype.encode("ascii")
    return fields | _parameter_fields(encoded.parameters)


def _parameter_fields(parameters: Mapping[str, int]) -> dict[int, bytes]:
    fields = {}
    others = {text_bytes(name, "parameter name"): varint(value) for name, value in parameters.items() if name != USUAL_PARAMETER}
    if USUAL_PARAMETER in parameters:
        fields[LEVEL] = varint(parameters[USUAL_PARAMETER])
    if others:
        fields[PARAMETERS] = b"".join(counted(name) + others[name] for name in sorted(others))
    return fields


def _shape_bytes(shape: Sequence[int]) -> bytes:
    if len(shape) > AXES or not all(operator.index(axis) >= 1 for axis in shape):
        raise InputError(f"shape={tuple(shape)!r}: expected at most {AXES} axes of at least 1")
    return b"".join(map(varint, shape))


def _placed(chunks: Iterable[Chunk]) -> list[tuple[tuple[int, ...], bytes]]:
    """(position, payload) of every data chunk; the origin is (), as on disk."""
    placed = [(canonical(chunk.position), bytes(chunk.payload)) for chunk in chunks if _is_data(chunk)]
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


def _data_frame(position: tuple[int, ...]) -> bytes:
    if not position:
        return bytes([ORIGIN])
    return bytes([PLACED]) + varint(len(position)) + b"".join(map(varint, position))


def _metadata_frame(key: str) -> bytes:
    if key == "data" or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"metadata key {key!r}: expected printable ASCII without spaces, and not 'data'")
    return bytes([METADATA]) + counted(text_bytes(key, "metadata key"))


def _chunk_bytes(frame: bytes, payload: bytes, seed: int) -> bytes:
    frame += varint(len(payload))
    return b"".join((frame, crc_bytes(google_crc32c.extend(google_crc32c.extend(seed, frame), bytes(payload))), payload))
