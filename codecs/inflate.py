"""Deflated bytes of a stranger: never more memory than a header allows."""

from __future__ import annotations

import zlib

from latentpress.errors import FormatError


def inflated(part: bytes, most: int, what: str) -> bytes:
    """At most `most` bytes. Raises FormatError, which names `what`, for damage, for more, and for bytes left over."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(part, most + 1)
    except zlib.error as error:
        raise FormatError(f"damaged {what}: {error}") from error
    if len(raw) > most or not stream.eof or stream.unused_data:
        raise FormatError(f"damaged {what}: at most {most} bytes expected")
    return raw
