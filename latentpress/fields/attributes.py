"""Attributes as JSON: texts as they are, numbers with their type, so that a NetCDF file gets back what it had.

    "hours since 1900"      a text, or any other plain JSON value except objects with the key "dtype"
    {"dtype": "float32", "value": 0.5}       numbers, one or a list; "nan", "inf" and "-inf" as texts
    {"dtype": "json", "value": {...}}        an object
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latentpress.errors import FormatError, InputError

NUMBERS = frozenset(["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"])
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def attribute_json(value: Any, name: str) -> Any:
    """Raises InputError for what has no place in a file."""
    if isinstance(value, str | bool | int | type(None)) and not isinstance(value, np.generic):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, float) and not isinstance(value, np.generic):
        return {"dtype": "float64", "value": _number_json(value)}
    if isinstance(value, dict):
        return {"dtype": "json", "value": value}
    if isinstance(value, bytes):
        return {"dtype": "bytes", "value": value.decode("latin-1")}
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return [str(v) for v in value]
    array = np.asarray(value)
    if array.dtype.kind in "UT":
        return [str(v) for v in array.ravel()] if array.ndim else str(array)
    if array.dtype.name not in NUMBERS or array.ndim > 1:
        raise InputError(f"attribute {name!r}: {array.dtype} of {array.ndim} dimensions; texts and lists of numbers expected")
    plain = [_number_json(v) for v in array.ravel().tolist()]
    return {"dtype": array.dtype.name, "value": plain if array.ndim else plain[0]}


def _number_json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def attribute_of(stored: Any, name: str) -> Any:
    """Raises FormatError for what `attribute_json` does not write."""
    if not isinstance(stored, dict):
        if isinstance(stored, list) and not all(isinstance(v, str) for v in stored):
            raise FormatError(f"attribute {name!r}: a list of texts expected")
        return stored
    dtype, value = stored.get("dtype"), stored.get("value")
    if dtype == "json" and isinstance(value, dict):
        return value
    if dtype == "bytes" and isinstance(value, str) and all(ord(c) < 256 for c in value):
        return value.encode("latin-1")
    values = value if isinstance(value, list) else [value]
    numbers = [_SPECIAL.get(v, v) if isinstance(v, str) else v for v in values]
    if not isinstance(dtype, str) or dtype not in NUMBERS or not all(isinstance(v, int | float) for v in numbers):
        raise FormatError(f"attribute {name!r}: numbers of a known type expected")
    try:
        array = np.array(numbers, dtype)
    except (OverflowError, ValueError) as error:
        raise FormatError(f"attribute {name!r}: {error}") from error
    return array if isinstance(value, list) else array[0]
