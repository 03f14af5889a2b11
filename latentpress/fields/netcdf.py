"""A raw dataset to a NetCDF-4 file, value for value: types, attributes, unlimited dimensions and layout as they were."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np

from latentpress.container import write_path
from latentpress.errors import InputError
from latentpress.fields.description import Variable
from latentpress.fields.exact import TEXT, known_dtype
from latentpress.fields.reading import DatasetFile
from latentpress.fields.sources import extra

AT_ONCE = 1 << 24  # values written at a time, at most, where a variable has several of them along its first axis
_LAYOUT = ("complevel", "shuffle", "fletcher32", "contiguous", "chunksizes", "endian")


def write_netcdf(file: DatasetFile, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Atomic. Raises InputError for what NetCDF cannot hold or the disk refuses; as reading."""
    extra("netCDF4")
    import netCDF4

    with write_path(path, overwrite=overwrite) as (temporary, _), netCDF4.Dataset(temporary, "w", format="NETCDF4") as out:
        about = file.description
        for name, size in about.sizes.items():
            out.createDimension(name, None if name in about.unlimited else size)
        _set_attributes(out, about.attrs, "dataset")
        for v in about.variables:
            target = _create(out, v)
            for part in _parts(v):
                target[part or ...] = file.read(v.name, part)


def _create(out: Any, v: Variable) -> Any:
    kind: Any = str if v.dtype == TEXT else known_dtype(v.dtype)
    if kind is not str and (kind.kind not in "iufS" or kind.itemsize > 8 or kind == np.float16):
        raise InputError(f"{v.name}: NetCDF holds no {v.dtype}; write .zarr")
    options = {key: v.encoding[key] for key in _LAYOUT if key in v.encoding} | ({"compression": "zlib"} if v.encoding.get("zlib") is True else {})
    if "chunksizes" in options:
        options["chunksizes"] = tuple(min(c, n) for c, n in zip(options["chunksizes"], v.shape, strict=False))
    if 0 in v.shape or kind is str or not v.dims:
        options = {}
    fill = np.asarray(v.attrs["_FillValue"]).astype(kind)[()] if "_FillValue" in v.attrs and kind is not str else None
    try:
        target = out.createVariable(v.name, kind, v.dims, fill_value=fill, **options)
    except (ValueError, TypeError, RuntimeError):  # a layout that this library cannot make
        try:
            target = out.createVariable(v.name, kind, v.dims, fill_value=fill)
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{v.name}: NetCDF cannot hold it ({error})") from error
    target.set_auto_maskandscale(False)
    target.set_auto_chartostring(False)
    _set_attributes(target, {k: a for k, a in v.attrs.items() if k != "_FillValue"}, v.name)
    return target


def _set_attributes(target: Any, attrs: Mapping[str, Any], owner: str) -> None:
    for name, value in attrs.items():
        plain = value.decode("latin-1") if isinstance(value, bytes) else int(value) if isinstance(value, bool | np.bool_) else value
        try:
            target.setncattr(name, plain)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{owner}: NetCDF cannot hold the attribute {name!r} ({error})") from error


def _parts(v: Variable) -> Iterator[tuple[slice, ...]]:
    """Slabs along the first axis."""
    if not v.shape or 0 in v.shape:
        yield from ((),) if not v.shape else ()
        return
    step = max(1, AT_ONCE // max(1, math.prod(v.shape[1:])))
    if v.coded is None:
        step = v.shape[0]
    for start in range(0, v.shape[0], step):
        yield (slice(start, min(start + step, v.shape[0])), *(slice(0, n) for n in v.shape[1:]))
