"""Numbers of any size in as few bytes as they need: seven bits a byte, the lowest first, the eighth set where more follow."""

from __future__ import annotations

from latentpress.errors import FormatError

MOST_BYTES = 10  # 64 bits and a sign


def varint(value: int) -> bytes:
    """value: 0 and more."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed_varint(value: int) -> bytes:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where the next one begins). Raises FormatError."""
    value = 0
    for shift in range(0, 7 * MOST_BYTES, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and (byte or not shift):  # none is spelt longer than it needs
            return value, at
        if byte == 0:
            break
    raise FormatError("damaged stream: a number without end")


def read_signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = read_varint(data, at)
    return (-(value >> 1) - 1 if value & 1 else value >> 1), at
