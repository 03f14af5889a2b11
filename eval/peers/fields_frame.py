"""What a peer's payload needs beside it to be read again: shape, dtype, bound, filter settings.

An HDF5 or Zarr store keeps these once for a variable, outside of its chunks, so they are framed in front and not counted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from latentpress.errors import FormatError

_LENGTH = struct.Struct("<I")


def frame(facts: Mapping[str, Any], payloads: Sequence[bytes]) -> bytes:
    """facts: JSON values; payloads: what counts."""
    head = json.dumps({"facts": dict(facts), "sizes": [len(p) for p in payloads]}).encode()
    return _LENGTH.pack(len(head)) + head + b"".join(payloads)


def unframe(blob: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Inverse of `frame`. Raises FormatError where the parts do not add up."""
    head, at = _head(blob)
    parts = []
    for size in head["sizes"]:
        parts.append(blob[at : at + size])
        at += size
    if at != len(blob):
        raise FormatError(f"{len(blob)} bytes, the header says {at}")
    return head["facts"], parts


def counted(blob: bytes) -> int:
    """Bytes of the payloads alone: chunks, masks and means."""
    return sum(_head(blob)[0]["sizes"])


def _head(blob: bytes) -> tuple[dict[str, Any], int]:
    try:
        (size,) = _LENGTH.unpack_from(blob)
        head = json.loads(blob[_LENGTH.size : _LENGTH.size + size])
        sizes = head["sizes"]
        if not isinstance(head["facts"], dict) or not all(isinstance(s, int) and s >= 0 for s in sizes):
            raise ValueError("no facts or sizes")
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"no framed payload of a peer: {error}") from error
    return head, _LENGTH.size + size
