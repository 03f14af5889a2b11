"""Variables that no codec touches: bytes shuffled and deflated, texts as JSON, deflated. Never more memory than the shape allows."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.inflate import inflated
from latentpress.errors import FormatError, InputError

KINDS = "biufcSMm"  # of numpy; texts ("U", and objects that are all str) go as JSON
TEXT = "text"  # their dtype in a file
TEXT_BYTES = 1 << 12  # of one text on average, at most


def dtype_of(array: NDArray[Any]) -> str:
    """How a file names the type of an array: numpy's name in little endian ("<f4", "|S1", "<M8[ns]"), or "text". Raises InputError."""
    if array.dtype.kind in "UT" or (array.dtype.kind == "O" and all(isinstance(v, str) for v in array.ravel())):
        return TEXT
    if array.dtype.kind not in KINDS or array.dtype.itemsize == 0:
        raise InputError(f"values of type {array.dtype}: numbers, times or texts expected")
    return array.dtype.newbyteorder("<").str


def known_dtype(name: str) -> np.dtype[Any]:
    """The numpy type of a name that `dtype_of` gave; object for texts. Raises FormatError for others."""
    if name == TEXT:
        return np.dtype(object)
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise FormatError(f"values of unknown type {name!r}") from error
    if dtype.kind not in KINDS or dtype.itemsize == 0 or dtype.newbyteorder("<").str != name:
        raise FormatError(f"values of unknown type {name!r}")
    return dtype


def exact_bytes(array: NDArray[Any]) -> bytes:
    if dtype_of(array) == TEXT:
        raw = json.dumps([str(v) for v in array.ravel()], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return zlib.compress(raw, 9)
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(-1)
    return zlib.compress(little.view(np.uint8).reshape(little.size, little.itemsize).T.tobytes(), 9)


def exact_array(payload: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Inverse of `exact_bytes`. Raises FormatError."""
    kind, count = known_dtype(dtype), math.prod(shape)
    if dtype == TEXT:
        return _texts(inflated(payload, 2 + count * (3 + TEXT_BYTES), "stream"), count).reshape(shape)
    raw = inflated(payload, count * kind.itemsize, "stream")
    if len(raw) != count * kind.itemsize:
        raise FormatError(f"damaged stream: {count * kind.itemsize} bytes of samples expected")
    planes = np.frombuffer(raw, np.uint8).reshape(kind.itemsize, count)
    return np.ascontiguousarray(planes.T).reshape(-1).view(kind)[:count].astype(kind.newbyteorder("="), copy=False).reshape(shape)


def _texts(raw: bytes, count: int) -> NDArray[Any]:
    try:
        values = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"damaged texts: {error}") from error
    if not isinstance(values, list) or len(values) != count or not all(isinstance(v, str) for v in values):
        raise FormatError(f"damaged texts: a list of {count} expected")
    out = np.empty(count, object)
    out[:] = values
    return out
