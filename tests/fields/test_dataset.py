"""Whole datasets through one .lpz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray

import latentpress
from latentpress.fields.netcdf import write_netcdf
from latentpress.fields.reading import open_file
from tests.fields.datasets import raw, weather, weather_file


def assert_same_raw(a: xarray.Dataset, b: xarray.Dataset) -> None:
    xarray.testing.assert_identical(a, b)
    for name in a.variables:
        assert a[name].dtype == b[name].dtype, name
        for key, value in a[name].attrs.items():
            assert np.asarray(value).dtype == np.asarray(b[name].attrs[key]).dtype, (name, key)
    assert a.encoding.get("unlimited_dims") == b.encoding.get("unlimited_dims")


def test_a_netcdf_file_comes_back_as_it_was_when_lossless(tmp_path: Path) -> None:
    source = weather_file(tmp_path)
    blob = latentpress.encode_dataset(source, lossless=True)
    write_netcdf(open_file(blob), tmp_path / "back.nc")
    before, after = raw(source), raw(tmp_path / "back.nc")
    assert_same_raw(before, after)
    assert after["sst"].dtype == np.int16 and after["t2m"].encoding["chunksizes"] == (1, 10, 18) and after["t2m"].encoding["zlib"]


def test_a_dataset_in_memory_comes_back_decoded() -> None:
    dataset = weather()
    back = latentpress.decode_dataset(latentpress.encode_dataset(dataset, lossless=True))
    xarray.testing.assert_identical(dataset, back)


def test_the_bound_holds_in_decoded_units_and_is_recorded(tmp_path: Path) -> None:
    source = weather_file(tmp_path)
    blob = latentpress.encode_dataset(source, max_error=0.05, variables={"t2m": {"max_error": 0.5}})
    before, after = xarray.open_dataset(source), latentpress.decode_dataset(blob)
    for name, bound in (("t2m", 0.5), ("sst", 0.05)):
        worst = float(abs(before[name].astype("f8") - after[name].astype("f8")).max())
        assert 0 < worst <= bound + 1e-4, name
        assert after[name].attrs["latentpress_max_error"] == bound
    assert (before.sst.isnull() == after.sst.isnull()).all()
    for name in ("land", "height", "station", "time", "lat"):
        np.testing.assert_array_equal(before[name], after[name])
        assert "latentpress_max_error" not in after[name].attrs
    before.close()


def test_an_unknown_variable_is_refused_with_near_names() -> None:
    with pytest.raises(latentpress.InputError, match=r"no variable is called 't2n'.*t2m"):
        latentpress.encode_dataset(weather(), variables={"t2n": {"max_error": 1.0}})
