"""Facts about a dataset in an .lpz file, for `info` and `verify`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress import api
from latentpress.fields.description import Description, Variable
from latentpress.fields.exact import TEXT, known_dtype
from latentpress.fields.reading import DatasetFile, open_file

_BOUNDS = ("latentpress_max_error", "latentpress_max_rel_error", "latentpress_quality")


def raw_bytes(description: Description) -> int:
    """Of all values as arrays; texts count as nothing."""
    return sum(_raw_bytes(v) for v in description.variables)


def _raw_bytes(v: Variable) -> int:
    return 0 if v.dtype == TEXT else math.prod(v.shape) * known_dtype(v.dtype).itemsize


def describe_dataset(blob: bytes) -> list[dict[str, Any]]:
    """One row a variable: name, dims, shape, dtype, codec, chunks, bytes in the file, ratio (of raw bytes to those), bound."""
    file = open_file(blob)
    return [_row(file, number, v) for number, v in enumerate(file.description.variables)]


def _row(file: DatasetFile, number: int, v: Variable) -> dict[str, Any]:
    own = [entry for position, entry in file.entries.items() if (position or (0,))[0] == number]
    size = sum(entry.length for entry in own)
    return {
        "name": v.name, "dims": list(v.dims), "shape": list(v.shape), "dtype": _dtype_name(v),
        "codec": v.coded.codec if v.coded else "exact",
        "chunks": len(own), "bytes": size, "ratio": round(_raw_bytes(v) / size, 2) if size and v.dtype != TEXT else None, "bound": _bound(v),
    }  # fmt: skip


def _dtype_name(v: Variable) -> str:
    return v.dtype if v.dtype == TEXT else str(known_dtype(v.dtype).name)


def _bound(v: Variable) -> str:
    for key in _BOUNDS:
        if key in v.attrs:
            values = np.asarray(v.attrs[key]).ravel()
            return f"{key.removeprefix('latentpress_')} {' to '.join(f'{float(n):g}' for n in values)}" if values.dtype.kind in "iuf" else key
    return "exact"


def dataset_symbols(blob: bytes, *, codec: str | None = None) -> Iterator[NDArray[np.int32]]:
    """The decoded integers of each chunk that a codec made, in file order. Raises what reading raises."""
    file = open_file(blob, codec=codec)
    for v in file.description.variables:
        if v.coded is not None:
            yield from api.codec_of(v.coded, partial=True, codec=codec).symbols(file.encoded(v.name))


def verify_dataset(blob: bytes, *, codec: str | None = None) -> None:
    """Decodes everything, a variable at a time. Raises what reading raises."""
    file = open_file(blob, codec=codec)
    for v in file.description.variables:
        file.read(v.name)
