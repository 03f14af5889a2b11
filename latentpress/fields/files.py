"""Files in, files out: what the command line does with datasets."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from latentpress import container
from latentpress.errors import InputError
from latentpress.fields.netcdf import write_netcdf
from latentpress.fields.reading import DatasetFile, open_file
from latentpress.fields.sources import NETCDF, ZARR
from latentpress.fields.writing import encode_dataset
from latentpress.fields.zarr import write_zarr

WRITABLE = (".nc", ".nc4", ".zarr")


def encode_dataset_file(source: str | PathLike[str], target: str | PathLike[str], *, overwrite: bool = False, **options: Any) -> int:
    """A NetCDF file, Zarr store or GRIB file to an .lpz file, atomically. options: those of `encode_dataset`. Returns its size in bytes."""
    _refuse_existing(Path(target), overwrite)
    blob = encode_dataset(source, **options)
    container.write_file(Path(target), blob, overwrite=overwrite)
    return len(blob)


def decode_dataset_file(source: str | PathLike[str], target: str | PathLike[str], *, overwrite: bool = False, **options: Any) -> DatasetFile:
    """An .lpz file to a NetCDF file or a Zarr store, atomically; raw values go over as they are. options: those of `open_file`."""
    _refuse_existing(Path(target), overwrite)
    suffix = Path(target).suffix.lower()
    if suffix not in NETCDF | ZARR:
        raise InputError(f"{target}: datasets are written as {', '.join(WRITABLE)}; into a folder give --format .nc")
    file = open_file(source, **options)
    (write_zarr if suffix in ZARR else write_netcdf)(file, target, overwrite=overwrite)
    return file


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or give --overwrite")
