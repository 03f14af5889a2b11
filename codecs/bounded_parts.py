"""A coded signal inside a chunk of another: its parameters, where its chunks lie, their payloads. All else of it is known from outside.

    parameters (name, value) | chunks (position, length) | payloads
"""

from __future__ import annotations

import dataclasses

from latentpress.codecs.base import Chunk, Encoded
from latentpress.codecs.varint import read_varint, varint
from latentpress.errors import FormatError

MOST_NUMBERS = 8  # of a position
LONGEST_NAME = 64  # bytes


def packed(encoded: Encoded) -> bytes:
    """Parameters by the bytes of their names; positions all of one length, of none where there is but the origin."""
    out = varint(len(encoded.parameters))
    for name, value in sorted((name.encode(), value) for name, value in encoded.parameters.items()):
        out += varint(len(name)) + name + varint(value)
    rank = max((len(c.position) for c in encoded.chunks if any(c.position)), default=0)
    out += varint(len(encoded.chunks)) + varint(rank)
    for chunk in encoded.chunks:
        position = chunk.position if any(chunk.position) else (0,) * rank
        out += b"".join(varint(n) for n in position) + varint(len(chunk.payload))
    return out + b"".join(chunk.payload for chunk in encoded.chunks)


def unpacked(part: bytes, outside: Encoded) -> Encoded:
    """outside: what is known of it, without parameters and chunks. Uses the part up. Raises FormatError."""
    parameters, at = _parameters(part)
    count, at = read_varint(part, at)
    rank, at = read_varint(part, at)
    if count > len(part) - at or rank > MOST_NUMBERS:
        raise FormatError(f"damaged chunk: {count} chunks inside it, positions of {rank} numbers")
    places = []
    for _ in range(count):
        numbers = []
        for _ in range(rank + 1):
            number, at = read_varint(part, at)
            numbers.append(number)
        places.append((tuple(numbers[:-1]), numbers[-1]))
    if sum(size for _, size in places) != len(part) - at:
        raise FormatError("damaged chunk: the chunks inside it do not fill it")
    chunks = []
    for position, size in places:
        chunks.append(Chunk(payload=part[at : at + size], position=position if any(position) else ()))
        at += size
    return dataclasses.replace(outside, parameters=parameters, chunks=tuple(chunks))


def _parameters(part: bytes) -> tuple[dict[str, int], int]:
    count, at = read_varint(part, 0)
    found: dict[str, int] = {}
    before = b""
    for _ in range(count):
        size, at = read_varint(part, at)
        name = part[at : at + size]
        if not 1 <= size <= LONGEST_NAME or len(name) != size or name <= before:
            raise FormatError("damaged chunk: a parameter without a name, or out of order")
        value, at = read_varint(part, at + size)
        try:
            found[name.decode()] = value
        except UnicodeDecodeError as error:
            raise FormatError(f"damaged chunk: the name of a parameter is no text ({error})") from error
        before = name
    return found, at
