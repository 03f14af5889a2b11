"""What the parts of the container share: numbers of the format, limits, and what reading gives."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from latentpress.codecs.base import Encoded

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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a reader accepts; beyond it, LimitError. Raise a limit for data you trust: `Limits(pixels=2**32)`."""

    pixels: int = 2**28  # positions, all axes but "band": 16,384 x 16,384, and most photographs ever taken
    samples: int = 2**30  # values, all axes: 1 GiB of uint8 once decoded
    chunks: int = 2**20  # of any type: under a minute of parsing
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


USUAL_LIMITS = Limits()


def label_of(kind: str, position: tuple[int, ...]) -> str:
    if kind != "data":
        return f"metadata {kind!r}"
    return f"chunk {position}" if position else "chunk at the origin"


def canonical(position: Sequence[int]) -> tuple[int, ...]:
    position = tuple(map(operator.index, position))
    return position if any(position) else ()
