"""Datasets of other people, raw: as they are on disk, nothing unpacked, no time decoded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpress.errors import InputError, LatentpressError, MissingExtraError

if TYPE_CHECKING:
    import xarray

NETCDF, ZARR, GRIB = frozenset((".nc", ".nc4", ".h5", ".cdf")), frozenset((".zarr",)), frozenset((".grib", ".grb", ".grib2", ".grb2"))
READABLE = NETCDF | ZARR | GRIB
_ENGINES = {**dict.fromkeys(NETCDF, "netcdf4"), **dict.fromkeys(ZARR, "zarr"), **dict.fromkeys(GRIB, "cfgrib")}
_NEEDS = {"netcdf4": "netCDF4", "zarr": "zarr", "cfgrib": "cfgrib"}
_KEPT = ("zlib", "complevel", "shuffle", "fletcher32", "contiguous", "chunksizes", "endian")  # of what xarray says of a variable on disk


def is_dataset_path(path: str | PathLike[str]) -> bool:
    """By its suffix, or a folder that is a Zarr store."""
    where = Path(path)
    return where.suffix.lower() in READABLE or any(os.path.isfile(where / name) for name in ("zarr.json", ".zgroup"))


def extra(module: str, name: str = "climate") -> None:
    """Raises MissingExtraError if `module` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(module, name)


def raw_dataset(source: xarray.Dataset | str | PathLike[str]) -> xarray.Dataset:
    """Lazy where it is a path; a Dataset in memory becomes what writing it to a NetCDF file would write. Raises InputError, MissingExtraError."""
    extra("xarray")
    import xarray

    if isinstance(source, xarray.Dataset):
        return _encoded(source)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    engine = _ENGINES.get(path.suffix.lower(), "zarr" if path.is_dir() else "netcdf4")
    extra(_NEEDS[engine], "grib" if engine == "cfgrib" else "climate")
    options: dict[str, Any] = {"backend_kwargs": {"indexpath": ""}} if engine == "cfgrib" else {}
    try:
        dataset = xarray.open_dataset(path, engine=engine, decode_cf=False, chunks=None, **options)
    except LatentpressError:
        raise
    except Exception as error:  # every reader has its own
        raise InputError(f"{path}: cannot be read as {engine} ({' '.join(str(error).split())[:200] or type(error).__name__})") from error
    if engine == "netcdf4":
        _refuse_groups(path)
    return dataset


def _refuse_groups(path: Path) -> None:
    import netCDF4

    with netCDF4.Dataset(os.fspath(path)) as file:
        if groups := [name for name, group in file.groups.items() if group.variables or group.groups]:
            raise InputError(f"{path}: has groups ({', '.join(groups[:6])}), and one file holds one group: open it with xarray and give a Dataset")


def _encoded(dataset: xarray.Dataset) -> xarray.Dataset:
    """Times as numbers, packing as the encodings say: what stands in a file."""
    import xarray
    from xarray.conventions import cf_encoder, encode_dataset_coordinates

    try:
        variables, attrs = encode_dataset_coordinates(dataset)
        variables, attrs = cf_encoder(variables, attrs)
        bare = {name: _without_new_fill(v, dataset.variables.get(name)) for name, v in variables.items()}
        out = xarray.Dataset(bare, attrs=attrs)
    except (ValueError, TypeError) as error:
        raise InputError(f"this dataset cannot be stored: {' '.join(str(error).split())}") from error
    out.encoding = dict(dataset.encoding)
    return out


def _without_new_fill(v: Any, before: Any) -> Any:
    """xarray gives floats a _FillValue of NaN where nobody asked for one."""
    added = before is not None and "_FillValue" in v.attrs and "_FillValue" not in {**before.attrs, **before.encoding}
    if added and v.attrs["_FillValue"] != v.attrs["_FillValue"]:
        v = v.copy(deep=False)
        del v.attrs["_FillValue"]
    return v


def kept_encoding(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """How the variable lay on disk, as far as a NetCDF file can be told to do the same."""
    encoding = {**({"chunksizes": encoding["chunks"]} if encoding.get("chunks") else {}), **encoding}  # as Zarr calls it
    kept = {key: encoding[key] for key in _KEPT if isinstance(encoding.get(key), bool | int | str | tuple | list)}
    if "chunksizes" in kept:
        kept["chunksizes"] = [int(n) for n in kept["chunksizes"]]
    return {key: value for key, value in kept.items() if value is not False and value != "native"}
