"""What a file says of its dataset besides the values: metadata chunk `dataset`, deflated JSON (docs/FORMAT.md, section 17)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentpress.codecs.base import Chunk, Encoded
from latentpress.container import Limits
from latentpress.errors import FormatError, LimitError
from latentpress.fields.attributes import attribute_json, attribute_of
from latentpress.fields.bounds import MOST_AXES
from latentpress.fields.exact import known_dtype
from latentpress.fields.means import Means, means_of

CODEC, KEY = "dataset", "dataset"
MOST_DIMENSIONS = 32
_SIZE = 2**62


@dataclass(frozen=True, kw_only=True)
class Variable:
    """dtype: as `exact.dtype_of` names it; coded: what a codec made, without chunks, or None for exact bytes; rank: length of its positions;
    means: what keeps the means of its planes, or None."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    coded: Encoded | None = None
    rank: int = 0
    means: Means | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """sizes: every dimension, those without a variable too; unlimited: names of those that may grow."""

    variables: tuple[Variable, ...]
    attrs: Mapping[str, Any]
    sizes: Mapping[str, int]
    unlimited: tuple[str, ...]


# ---- to bytes


def description_bytes(description: Description) -> bytes:
    """Raises InputError for attributes that have no place in a file."""
    plain = {
        "attrs": _attrs_json(description.attrs, "dataset"),
        "dims": dict(description.sizes),
        "unlimited": list(description.unlimited),
        "variables": [_variable_json(v) for v in description.variables],
    }
    return zlib.compress(json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "surrogatepass"), 9)


def _variable_json(v: Variable) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": v.name, "dims": list(v.dims), "dtype": v.dtype, "attrs": _attrs_json(v.attrs, v.name)}
    if v.encoding:
        plain["encoding"] = dict(v.encoding)
    if v.coded is not None:
        plain |= {"codec": v.coded.codec, "digest": v.coded.digest.hex(), "parameters": dict(v.coded.parameters), "rank": v.rank}
    if v.means is not None:
        plain["means"] = v.means.json()
    return plain


def _attrs_json(attrs: Mapping[str, Any], owner: str) -> dict[str, Any]:
    return {str(name): attribute_json(value, f"{owner}: {name}") for name, value in attrs.items()}


# ---- and back


def description_of(blob: bytes, limits: Limits) -> Description:
    """Raises FormatError for what `description_bytes` does not write, LimitError for variables of more samples than allowed."""
    plain = _mapping(_json_of(blob, limits), "dataset")
    sizes = {name: _count(size, f"dimension {name!r}") for name, size in _mapping(plain.get("dims"), "dims").items()}
    entries = plain.get("variables")
    if not isinstance(entries, list) or len(entries) > limits.chunks:
        raise FormatError("metadata chunk 'dataset': a list of variables expected")
    variables = tuple(_variable_of(_mapping(entry, "variable"), sizes) for entry in entries)
    if len({v.name for v in variables}) != len(variables):
        raise FormatError("metadata chunk 'dataset': two variables have one name")
    unlimited = _names(plain.get("unlimited"), "unlimited")
    if not set(unlimited) <= set(sizes):
        raise FormatError("metadata chunk 'dataset': unknown dimensions are unlimited")
    return Description(variables=variables, attrs=_attrs_of(plain, "dataset"), sizes=sizes, unlimited=unlimited)


def _json_of(blob: bytes, limits: Limits) -> Any:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(blob, limits.metadata_bytes + 1)
        if len(raw) > limits.metadata_bytes:
            raise LimitError(f"more than {limits.metadata_bytes} bytes of metadata; raise Limits.metadata_bytes for data you trust")
        if not stream.eof or stream.unused_data:
            raise FormatError("metadata chunk 'dataset': damaged")
        return json.loads(raw.decode("utf-8", "surrogatepass"), parse_constant=_no_constant, object_pairs_hook=_without_doubles)
    except (zlib.error, ValueError, RecursionError) as error:
        raise FormatError(f"metadata chunk 'dataset': no valid JSON ({error})") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _variable_of(plain: Mapping[str, Any], sizes: Mapping[str, int]) -> Variable:
    name = _text(plain.get("name"), "name of a variable")
    dims = _names(plain.get("dims"), f"dims of {name!r}")
    dtype = _text(plain.get("dtype"), f"dtype of {name!r}")
    known_dtype(dtype)
    if len(dims) > MOST_DIMENSIONS or not set(dims) <= set(sizes):
        raise FormatError(f"variable {name!r}: {len(dims)} dimensions, or unknown ones")
    shape = tuple(sizes[d] for d in dims)
    if math.prod(max(size, 1) for size in shape) > _SIZE:
        raise FormatError(f"variable {name!r}: shape {shape} is no size of an array")
    made = Variable(name=name, dims=dims, shape=shape, dtype=dtype, attrs=_attrs_of(plain, name),
                    encoding=_mapping(plain.get("encoding", {}), f"encoding of {name!r}"))  # fmt: skip
    return _coded(made, plain) if "codec" in plain else made


def _coded(v: Variable, plain: Mapping[str, Any]) -> Variable:
    parameters = _mapping(plain.get("parameters"), f"parameters of {v.name!r}")
    rank = _count(plain.get("rank"), f"rank of {v.name!r}")
    dtype = known_dtype(v.dtype)
    if rank > MOST_AXES or not v.shape or 0 in v.shape or dtype.kind not in "iuf":
        raise FormatError(f"variable {v.name!r}: {dtype}{v.shape} is nothing that a codec makes")
    try:
        digest = bytes.fromhex(_text(plain.get("digest"), f"digest of {v.name!r}", empty=True))
    except ValueError as error:
        raise FormatError(f"digest of {v.name!r}: {error}") from error
    coded = Encoded(codec=_text(plain["codec"], f"codec of {v.name!r}"), digest=digest, shape=v.shape, dtype=dtype.name, dims=v.dims,
                    parameters={k: _count(n, f"parameter {k!r} of {v.name!r}") for k, n in parameters.items()}, chunks=())  # fmt: skip
    means = means_of(plain["means"], v.shape, dtype, v.name) if "means" in plain else None
    return Variable(**{**vars(v), "coded": coded, "rank": rank, "means": means})


def _attrs_of(plain: Mapping[str, Any], owner: str) -> dict[str, Any]:
    return {name: attribute_of(value, f"{owner}: {name}") for name, value in _mapping(plain.get("attrs"), f"attrs of {owner!r}").items()}


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"metadata chunk 'dataset': {what}: an object expected")
    return value


def _names(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value) or len(set(value)) != len(value):
        raise FormatError(f"metadata chunk 'dataset': {what}: a list of different names expected")
    return tuple(value)


def _text(value: Any, what: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise FormatError(f"metadata chunk 'dataset': {what}: a text expected")
    return value


def _count(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _SIZE:
        raise FormatError(f"metadata chunk 'dataset': {what}: a whole number expected, not {value!r}")
    return value


# ---- where a variable's chunks lie


def file_position(number: int, position: tuple[int, ...], width: int) -> tuple[int, ...]:
    """Position in the file, `width` numbers, of the chunk `position` of variable `number`."""
    return (number, *position, *(0,) * (width - 1 - len(position)))


def own_chunk(v: Variable, position: tuple[int, ...], payload: bytes) -> Chunk:
    """The chunk as the variable's codec knows it, from its position in the file. Raises FormatError for positions that a variable cannot have."""
    own, rest = position[1 : 1 + v.rank], position[1 + v.rank :]
    if any(rest):
        raise FormatError(f"chunk {position} has more numbers than positions of variable {v.name!r}")
    return Chunk(payload=payload, position=own if any(own) else ())
