"""One array as one .lpz file: what Zarr and numcodecs store for each of their chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress import api, container
from latentpress.codecs.base import Signal
from latentpress.codecs.registry import load_codec
from latentpress.container import Limits
from latentpress.errors import FormatError, InputError, UnsupportedError
from latentpress.fields.bounds import Request, plan
from latentpress.fields.writing import DEFAULT_CODEC, DEFAULT_EFFORT

_AXES = ("a", "b", "c", "d", "e", "f", "y", "x")
ORDER = "order"  # metadata chunk: "F" where the array's first axis is the fastest in memory


@dataclass(frozen=True, kw_only=True)
class ArraySettings:
    """What the configuration of a Zarr or numcodecs codec says; plain JSON values.

    max_error, max_rel_error, quality   at most one; none: every bit comes back
    scale_factor, add_offset            of packed integers: the bound is in units of values * scale_factor + add_offset
    fill                                a value whose points are exact and outside any bound
    """

    max_error: float | None = None
    max_rel_error: float | None = None
    quality: float | None = None
    scale_factor: float | None = None
    add_offset: float | None = None
    fill: float | int | None = None
    codec: str = DEFAULT_CODEC
    effort: int = DEFAULT_EFFORT

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not (isinstance(value, str) and value if field.name == "codec" else number):
                raise InputError(f"{field.name}: {'a name' if field.name == 'codec' else 'a finite number'} expected, not {value!r}")
        _ = self.request  # raises where two are given

    @property
    def request(self) -> Request:
        given = {name: value for name in ("max_error", "max_rel_error", "quality") if (value := getattr(self, name)) is not None}
        return Request(**given) if given else Request(lossless=True)

    @property
    def attrs(self) -> dict[str, Any]:
        named = {"scale_factor": self.scale_factor, "add_offset": self.add_offset, "_FillValue": self.fill}
        return {name: value for name, value in named.items() if value is not None}

    def config(self) -> dict[str, Any]:
        """What differs from an empty configuration, and the codec."""
        usual = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in vars(self).items() if value != usual[name] or name == "codec"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ArraySettings:
        """Raises InputError for unknown names."""
        if unknown := sorted(set(config) - {f.name for f in fields(cls)}):
            raise InputError(f"latentpress: unknown setting {unknown[0]!r}; known: {', '.join(f.name for f in fields(cls))}")
        return cls(**config)


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raises UnsupportedError for what no codec of fields takes."""
    if dtype.newbyteorder("=") not in (np.float32, np.float64) and not (dtype.kind in "iu" and dtype.itemsize <= 4):
        raise UnsupportedError(f"latentpress codes float32, float64 and integers of up to 32 bits, not {dtype}; leave this array to another codec")


def array_file(data: NDArray[Any], settings: ArraySettings) -> bytes:
    """Raises UnsupportedError, BoundError."""
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    check_dtype(data.dtype)
    if not 1 <= data.ndim <= len(_AXES) or data.size == 0:
        raise UnsupportedError(f"latentpress codes arrays of 1 to {len(_AXES)} dimensions that are not empty, not {data.shape}")
    todo = plan(data, settings.attrs, settings.request)
    signal = Signal(data=np.ascontiguousarray(data), dims=_AXES[-data.ndim :], meta={} if todo.fill is None else {"fill": todo.fill})
    fortran = data.flags.f_contiguous and not data.flags.c_contiguous
    encoded = load_codec(settings.codec).encode(signal, todo.target, effort=settings.effort)
    return container.write(encoded, metadata={ORDER: b"F"} if fortran else {})


def file_array(blob: bytes, *, shape: tuple[int, ...] | None = None, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Inverse of `array_file`. Raises FormatError, also where the file holds another shape or type than expected."""
    size = math.prod(shape) if shape is not None else None
    file = container.read(blob, limits=Limits() if size is None else Limits(pixels=size, samples=size))
    encoded = file.encoded
    if (shape is not None and encoded.shape != shape) or (dtype is not None and np.dtype(encoded.dtype) != dtype.newbyteorder("=")):
        raise FormatError(f"holds {encoded.dtype}{encoded.shape}, expected was {dtype}{shape}")
    data = api.codec_of(encoded).decode(encoded).data
    if data.shape != encoded.shape or data.dtype != np.dtype(encoded.dtype):
        raise FormatError(f"the codec gave {data.dtype}{data.shape}, the file says {encoded.dtype}{encoded.shape}")
    return np.asfortranarray(data) if file.metadata.get(ORDER) == b"F" else data
