"""Small synthetic datasets, decoded as xarray has them in memory, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray


def smooth(*shape: int, seed: int = 0) -> Any:
    """float32, around 280, like a temperature."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-2], : shape[-1]] / 7.0
    steps = draw.normal(size=(*shape[:-2], 1, 1))
    return (280 + 10 * np.sin(y + steps) * np.cos(x - steps) + draw.normal(0, 0.1, shape)).astype(np.float32)


FLAGS = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "sea land"}


def weather(times: int = 3, rows: int = 20, columns: int = 36) -> xarray.Dataset:
    t2m = smooth(times, rows, columns)
    sst = smooth(times, rows, columns, seed=1)
    sst[:, 3:9, 5:20] = np.nan
    return xarray.Dataset(
        {
            "t2m": (("time", "lat", "lon"), t2m, {"units": "K", "long_name": "temperature", "valid_range": np.array([100, 400], np.float32)}),
            "sst": (("time", "lat", "lon"), sst, {"units": "K"}),
            "land": (("lat", "lon"), (smooth(rows, columns) > 281).astype(np.int8), FLAGS),
            "station": (("place",), np.array(["Århus", "", "Zürich"], object)),
            "level": ((), np.float64(2.0), {"units": "m"}),
        },
        coords={
            "time": ("time", np.datetime64("2020-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")),
            "lat": ("lat", np.linspace(90, -90, rows), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(columns) * 10.0, {"units": "degrees_east"}),
            "height": (("lat", "lon"), smooth(rows, columns, seed=2).astype(np.float64), {"units": "m"}),
        },
        attrs={"Conventions": "CF-1.8", "history": "made up", "version": np.int32(3)},
    )  # fmt: skip


SCALE, OFFSET, FILL = 0.01, 280.0, np.int16(-32768)


def packed(values: Any) -> Any:
    """int16 [...] with FILL for NaN."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(values), FILL, np.round((values.astype(np.float64) - OFFSET) / SCALE)).astype(np.int16)


def weather_file(folder: Path, name: str = "weather.nc", **changes: Any) -> Path:
    """With sst packed into int16, t2m in compressed pieces, time unlimited. Written without xarray, whose writer loads all of dask."""
    dataset = weather(**changes)
    with netCDF4.Dataset(folder / name, "w") as out:
        for dim, size in dataset.sizes.items():
            out.createDimension(dim, None if dim == "time" else size)
        out.setncatts(dataset.attrs)
        for key, v in dataset.variables.items():
            values, attrs, options = v.values, dict(v.attrs), {}
            if key == "time":
                values, attrs = np.arange(v.size) * 6, {"units": "hours since 2020-01-01", "calendar": "proleptic_gregorian"}
            if key == "sst":
                values, attrs, options = packed(values), attrs | {"scale_factor": SCALE, "add_offset": OFFSET}, {"fill_value": FILL}
            if key == "t2m":
                attrs, options = attrs | {"coordinates": "height"}, {"compression": "zlib", "chunksizes": (1, 10, 18)}
            target = out.createVariable(key, str if values.dtype == object else values.dtype, v.dims, **options)
            target.set_auto_maskandscale(False)
            target.setncatts(attrs)
            target[...] = values
    return folder / name


def raw(path: Path) -> xarray.Dataset:
    engine = "zarr" if path.is_dir() else "netcdf4"
    with xarray.open_dataset(path, decode_cf=False, engine=engine) as dataset:
        return dataset.load()
