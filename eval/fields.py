"""The fields a bench measures on: each variable of each NetCDF file is one item, decoded as its attributes say and cast to float32.

    fields = read_fields(Path("era5_global_1p0_surface.nc"))      Field(name="era5_global_1p0_surface/t2m", data=[4, 181, 360], ...)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError, MissingExtraError

SUFFIX = ".nc"
FILLS = ("_FillValue", "missing_value")


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """One variable.

    name      file's stem / variable, then "#" and the index of a plane where it is but one of several
    data      float32 [..., y, x]; NaN where points are missing
    dims      one name an axis
    latitude  float64 [y] in degrees, None where the rows have none (projected and curvilinear grids)
    units     as the file says, "" if it does not
    """

    name: str
    data: NDArray[np.float32]
    dims: tuple[str, ...]
    latitude: NDArray[np.float64] | None = None
    units: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def std(self) -> float:
        """Standard deviation of all points that are there, in float64: bounds are given in percent of it."""
        return float(np.nanstd(self.data.astype(np.float64)))

    @property
    def digest(self) -> str:
        """First 8 bytes of the SHA-256 of the samples, in hex."""
        return hashlib.sha256(np.ascontiguousarray(self.data).tobytes()).hexdigest()[:16]

    def plane(self, index: Sequence[int]) -> Field:
        """The two-dimensional field at `index` of the axes before the last two."""
        label = ",".join(map(str, index))
        return replace(self, name=f"{self.name}#{label}", data=self.data[tuple(index)], dims=self.dims[-2:])


def read_fields(path: Path) -> list[Field]:
    """All variables of a file with two or more axes. Raises InputError where it cannot be read or holds none, MissingExtraError."""
    try:
        import netCDF4
    except ImportError as error:
        raise MissingExtraError("netCDF4", "climate") from error
    try:
        with netCDF4.Dataset(path) as dataset:
            found = list(_variables(dataset, path.stem))
    except OSError as error:
        raise InputError(f"{path}: no readable NetCDF file ({error.strerror or error})") from error
    if not found:
        raise InputError(f"{path}: no variable with two or more axes")
    return found


def find_fields(folder: Path, wanted: Sequence[str] = ()) -> list[Field]:
    """Every field of the NetCDF files below `folder` (or of one file), by path.

    wanted: names, or beginnings of names ("era5_global_1p0_surface" means all of its variables)
    Raises InputError where there is no such file or field.
    """
    paths = [folder] if folder.is_file() else sorted(folder.rglob(f"*{SUFFIX}"))
    if not paths:
        raise InputError(f"{folder}: no NetCDF files; give their folder by --data")
    fields = [f for p in paths for f in read_fields(p)]
    for name in wanted:
        if not any(_means(name, f.name) for f in fields):
            raise InputError(f"{folder} has no field {name!r}: there are {', '.join(f.name for f in fields)}")
    return [f for f in fields if not wanted or any(_means(name, f.name) for name in wanted)]


def _means(wanted: str, name: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}/")


def _variables(dataset: Any, stem: str) -> Iterator[Field]:
    latitude = _latitude(dataset)
    for name, variable in dataset.variables.items():
        if variable.ndim >= 2 and variable.dtype != str and np.dtype(variable.dtype).kind in "fiu":
            data = decoded(variable)
            rows = latitude if latitude is not None and variable.dimensions[-2] == "latitude" else None
            yield Field(name=f"{stem}/{name}", data=data, dims=tuple(variable.dimensions), latitude=rows, units=str(getattr(variable, "units", "")))


def _latitude(dataset: Any) -> NDArray[np.float64] | None:
    return np.asarray(dataset.variables["latitude"][:], np.float64) if "latitude" in dataset.variables else None


def decoded(variable: Any) -> NDArray[np.float32]:
    """Samples by CF: code * scale_factor + add_offset in float64, fill values NaN, then float32 (which plain float32 variables are already)."""
    variable.set_auto_maskandscale(False)
    codes = np.asarray(variable[...])
    known = {k: variable.getncattr(k) for k in variable.ncattrs()}
    data = codes.astype(np.float64) * known.get("scale_factor", 1.0) + known.get("add_offset", 0.0)
    for fill in (known[f] for f in FILLS if f in known):
        data[codes == fill] = np.nan
    return data.astype(np.float32)
