"""`encode_dataset`: a dataset, as it is on disk, to the bytes of an .lpz file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentpress import container
from latentpress.codecs.base import Chunk, Codec, Encoded, Signal
from latentpress.codecs.registry import load_codec
from latentpress.errors import InputError, LatentpressError
from latentpress.fields import keeping
from latentpress.fields.bounds import Plan, Request, missing_values, plan, requests_of
from latentpress.fields.description import CODEC, KEY, Description, Variable, description_bytes, file_position
from latentpress.fields.exact import KINDS, dtype_of, exact_bytes
from latentpress.fields.means import Means
from latentpress.fields.sources import kept_encoding, raw_dataset

if TYPE_CHECKING:
    import xarray

DEFAULT_CODEC = "lattice"
DEFAULT_EFFORT = 2


def encode_dataset(
    source: xarray.Dataset | str | PathLike[str], *, max_error: float | NDArray[Any] | None = None, max_rel_error: float | None = None,
    lossless: bool = False, quality: float | None = None, variables: Mapping[str, Mapping[str, Any]] | None = None,
    codec: str | PathLike[str] | Codec | None = None, effort: int = DEFAULT_EFFORT, keep_mean: bool = False,
) -> bytes:  # fmt: skip
    """The bytes of an .lpz file of a whole dataset.

    source       an xarray.Dataset, or the path of a NetCDF file, a Zarr store or a GRIB file (stored as on disk: packed integers stay packed)
    max_error    |decoded - source| of every point of every field, at most, in its units; an array is a bound for each point
    max_rel_error, lossless, quality (0 to 100; 50 unless another is given)   in its place
    variables    settings of single variables, as in {"t2m": {"max_error": 0.05}}
    codec        of domain "field" (default lattice)
    keep_mean    the mean of each plane, weighted by the cosine of latitude where its rows are latitudes, is off by less than half a unit in the
                 last place of the plane's largest value (float64: 2^15 of them), or half a packing step; the bound holds all the same
    Fields are numeric variables of two or more dimensions, the last two being the grid; coordinates and all others are exact.
    Raises InputError, UnsupportedError, BoundError, MissingPresetError, MissingExtraError.
    """
    dataset = raw_dataset(source)
    common = Request(max_error=max_error, max_rel_error=max_rel_error, lossless=lossless, quality=quality)
    coder = codec if isinstance(codec, Codec) else load_codec(os.fspath(codec or DEFAULT_CODEC))
    if coder.domain != "field":
        raise InputError(f"{coder.name} codes {coder.domain}s; a codec of fields is expected, such as {DEFAULT_CODEC}")
    wanted = requests_of(dataset, common, variables or {})
    ways = _Ways(coder, effort, keep_mean)
    parts = [_one(dataset, str(name), v, wanted.get(str(name)), ways) for name, v in dataset.variables.items()]
    description = Description(
        variables=tuple(v for v, _ in parts), attrs=dataset.attrs, sizes={str(d): n for d, n in dataset.sizes.items()},
        unlimited=tuple(str(d) for d in dataset.encoding.get("unlimited_dims", ()) if d in dataset.sizes),
    )  # fmt: skip
    width = 1 + max((v.rank for v, _ in parts), default=0)
    encoded = Encoded(codec=CODEC, digest=b"", shape=(), dtype="uint8", dims=(), parameters={}, chunks=tuple(_placed(parts, width)))
    return container.write(encoded, metadata={KEY: description_bytes(description)})


def _placed(parts: list[tuple[Variable, tuple[Chunk, ...]]], width: int) -> Iterator[Chunk]:
    for number, (_, chunks) in enumerate(parts):
        for chunk in chunks:
            yield Chunk(payload=chunk.payload, position=file_position(number, chunk.position, width))
    if not parts:
        yield Chunk(payload=b"")


@dataclass(frozen=True)
class _Ways:
    """How fields are coded."""

    codec: Codec
    effort: int
    keep_mean: bool


def _one(dataset: Any, name: str, v: Any, request: Request | None, ways: _Ways) -> tuple[Variable, tuple[Chunk, ...]]:
    """A variable and its chunks. request: None for what is no field."""
    try:
        data, attrs = _native(np.asarray(v.values)), dict(v.attrs)
        usual: dict[str, Any] = {"name": name, "dims": tuple(map(str, v.dims)), "shape": data.shape, "dtype": dtype_of(data),
                                 "encoding": kept_encoding(v.encoding)}  # fmt: skip
        if request is None:
            return Variable(**usual, attrs=attrs), (Chunk(payload=exact_bytes(data)),)
        todo = plan(data, attrs, request)
        signal = Signal(data=data, dims=usual["dims"], meta={} if todo.fill is None else {"fill": todo.fill})
        encoded, means, kept = _coded(dataset, v, signal, todo, request, ways)
    except LatentpressError as error:
        error.args = tuple(f"{name}: {a}" if i == 0 and isinstance(a, str) else a for i, a in enumerate(error.args))
        raise
    rank = max(len(chunk.position) for chunk in encoded.chunks)
    usual["encoding"] |= _preferred_chunks(ways.codec, encoded)
    return Variable(**usual, attrs=attrs | dict(todo.recorded) | kept, coded=encoded, rank=rank, means=means), encoded.chunks


def _coded(dataset: Any, v: Any, signal: Signal, todo: Plan, request: Request, ways: _Ways) -> tuple[Encoded, Means | None, dict[str, Any]]:
    """What the codec makes, what keeps the means, and the attribute that says so."""
    if not ways.keep_mean or not todo.recorded:
        return ways.codec.encode(signal, todo.target, effort=ways.effort), None, {}
    keeping.refuse(request)
    weights = keeping.row_weights(dataset, v)
    missing = missing_values(signal.data.dtype, v.attrs)
    encoded, means = keeping.encode_keeping(ways.codec, signal, todo.target, effort=ways.effort, weights=weights, missing=missing)
    return encoded, means, {keeping.ATTRIBUTE: "of each plane, weighted by the cosine of latitude" if np.ptp(weights) else "of each plane"}


def _preferred_chunks(codec: Any, encoded: Encoded) -> dict[str, Any]:
    """How far the chunk at the origin reaches along each dimension: what dask should read at once."""
    if not hasattr(codec, "chunks_of"):
        return {}
    return {"preferred_chunks": {name: _reach(codec, encoded, axis) for axis, name in enumerate(encoded.dims)}}


def _reach(codec: Any, encoded: Encoded, axis: int) -> int:
    inside, outside = 1, encoded.shape[axis] + 1
    while outside - inside > 1:
        middle = (inside + outside) // 2
        region = tuple(slice(0, middle if a == axis else 1) for a in range(len(encoded.shape)))
        inside, outside = (middle, outside) if len(codec.chunks_of(encoded, region)) == 1 else (inside, middle)
    return inside


def _native(data: NDArray[Any]) -> NDArray[Any]:
    return data.astype(data.dtype.newbyteorder("="), copy=False) if data.dtype.kind in KINDS else data
