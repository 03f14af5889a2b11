"""How numbers, texts and checksums are spelt. `cursor` reads them."""

from __future__ import annotations

import operator

from latentpress.codecs.varint import varint as plain_varint
from latentpress.container.layout import TEXT_BYTES
from latentpress.errors import InputError


def varint(value: int) -> bytes:
    value = operator.index(value)
    if not 0 <= value < 2**63:
        raise InputError(f"{value} cannot be stored: expected 0 to 2**63 - 1")
    return plain_varint(value)


def counted(value: bytes) -> bytes:
    return varint(len(value)) + value


def crc_bytes(crc: int) -> bytes:
    return crc.to_bytes(4, "little")


def text_bytes(text: str, what: str) -> bytes:
    try:
        value = text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair
        value = b""
    if not is_text(value):
        raise InputError(f"{what} {text!r}: expected 1 to {TEXT_BYTES} bytes of UTF-8 without control characters")
    return value


def is_text(value: bytes) -> bool:
    return 1 <= len(value) <= TEXT_BYTES and all(byte >= 0x20 and byte != 0x7F for byte in value)
