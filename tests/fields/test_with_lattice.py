"""Datasets with the codec that ships, not its stand-in."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
import pytest
import xarray

import latentpress
from latentpress.codecs import registry
from latentpress.codecs.lattice import Lattice
from latentpress.fields.summary import describe_dataset
from latentpress.plugins.numcodecs import Latentpress
from latentpress.plugins.xarray import LatentpressBackend
from tests.fields.datasets import raw, weather_file
from tests.helpers import python

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "climate" / "train"


@pytest.fixture(autouse=True)
def real(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the stand-in, whatever the environment's age."""
    usual = registry.codec_entry_points()
    point = EntryPoint("lattice", "latentpress.codecs.lattice:Lattice", "latentpress.codecs")
    monkeypatch.setattr(registry, "codec_entry_points", lambda: {**usual, "lattice": point})
    registry.load_installed.cache_clear()


def test_a_dataset_keeps_its_bounds_and_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = weather_file(tmp_path, times=7)
    blob = latentpress.encode_dataset(source, max_error=0.05, variables={"t2m": {"max_error": 0.5}})
    before, lazy = raw(source), xarray.open_dataset(blob, engine=LatentpressBackend, mask_and_scale=False, decode_times=False, decode_coords=False)
    assert 0 < abs(before.t2m.values.astype(float) - lazy.t2m.values).max() <= 0.5
    assert abs(before.sst.values.astype(int) - lazy.sst.values).max() <= 5
    assert ((before.sst.values == -32768) == (lazy.sst.values == -32768)).all()
    np.testing.assert_array_equal(before.land.values, lazy.land.values)
    part = lazy.t2m.isel(time=slice(4, 5), lat=slice(3, 9), lon=[30, 2])
    np.testing.assert_array_equal(part.load().values, latentpress.decode_dataset(blob).t2m.values[4:5, 3:9][..., [30, 2]])


def test_lossless_files_are_those_that_went_in(tmp_path: Path) -> None:
    source = weather_file(tmp_path)
    xarray.testing.assert_identical(raw(source), latentpress.decode_dataset(latentpress.encode_dataset(source, lossless=True), decode_cf=False))


@pytest.mark.parametrize("name", ["ecmwf_global_0p25_bathymetry.nc", "ersstv5_global_2p0_sst.nc"])
def test_a_real_file_keeps_a_hundredth_of_its_deviation(name: str) -> None:
    if not (SHARED / name).is_file():
        pytest.skip("the shared climate files are not here")
    before = raw(SHARED / name)
    fields = [n for n, v in before.data_vars.items() if v.ndim >= 2 and min(v.shape[-2:]) > 8]
    part = before.isel({d: slice(0, 48 if d in before[fields[0]].dims[-2:] else 2) for d in before.dims})
    decoded = xarray.decode_cf(part)
    bound = {n: {"max_error": float(decoded[n].std()) / 100} for n in fields}
    back = latentpress.decode_dataset(latentpress.encode_dataset(part, variables=bound), decode_cf=False)
    for n in fields:
        scale = float(part[n].attrs.get("scale_factor", 1))
        missing = np.isnan(part[n].values.astype(float)) | (part[n].values == part[n].attrs.get("_FillValue", np.nan))
        error = np.where(missing, 0, abs(part[n].values.astype(float) - back[n].values) * scale)
        assert error.max() <= bound[n]["max_error"]
        np.testing.assert_array_equal(part[n].values[missing], back[n].values[missing])


@pytest.mark.skipif("bounded" not in {e.name for e in entry_points(group="latentpress.codecs")}, reason="the environment is older: make env")
def test_a_base_with_a_residual_keeps_bounds_and_means_in_a_dataset(tmp_path: Path) -> None:
    source = weather_file(tmp_path)
    blob = latentpress.encode_dataset(source, max_error=0.5, codec="bounded/vaeformer-field", keep_mean=True)
    before, back = raw(source), latentpress.decode_dataset(blob, decode_cf=False)
    assert {row["codec"] for row in describe_dataset(blob)} == {"bounded/vaeformer-field", "exact"}
    assert 0 < abs(before.t2m.values.astype(float) - back.t2m.values).max() <= 0.5
    assert abs(before.sst.values.astype(int) - back.sst.values).max() <= 50
    lazy = xarray.open_dataset(blob, engine=LatentpressBackend, decode_times=False)
    np.testing.assert_array_equal(lazy.t2m[1, 3:9].values, back.t2m.values[1, 3:9])


def test_points_beside_the_fill_value_do_not_become_missing() -> None:
    data = np.round(np.random.default_rng(0).normal(0, 10, (40, 50))).astype(np.int16)
    for fill in range(-4, 4):
        codec = Latentpress(max_error=2.0, fill=fill)
        assert ((codec.decode(codec.encode(data)) == fill) == (data == fill)).all()


def test_numcodecs_with_the_real_codec() -> None:
    data = np.cumsum(np.random.default_rng(0).normal(size=(3, 20, 30)), -1).astype(np.float32)
    codec = Latentpress(max_error=0.01)
    back = codec.decode(codec.encode(data))
    assert back.shape == data.shape and 0 < abs(back.astype(float) - data).max() <= 0.01


INSTALLED = {(e.group, e.name) for g in ("zarr.codecs", "xarray.backends", "latentpress.codecs") for e in entry_points(group=g)}


@pytest.mark.skipif(not {("zarr.codecs", "latentpress"), ("xarray.backends", "latentpress"), ("latentpress.codecs", "lattice")} <= INSTALLED,
                    reason="the environment is older than the entry points: make env")  # fmt: skip
def test_a_fresh_process_opens_stores_and_files_with_nothing_but_xarray(tmp_path: Path) -> None:
    write = """
import sys, numpy as np, xarray, latentpress
from latentpress.plugins.zarr import LatentpressCodec
ds = xarray.Dataset({"a": (("y", "x"), np.arange(1200, dtype="f4").reshape(30, 40))})
ds.to_zarr(sys.argv[1], consolidated=False, encoding={"a": {"serializer": LatentpressCodec(max_error=0.5)}})
open(sys.argv[2], "wb").write(latentpress.encode_dataset(ds, max_error=0.5))
"""
    read = """
import sys, xarray
for path in sys.argv[1:]:
    print(float(xarray.open_dataset(path, **({"consolidated": False} if path.endswith("zarr") else {})).a[29, 39]))
"""
    paths = [str(tmp_path / "s.zarr"), str(tmp_path / "s.lpz")]
    python(write, *paths, check=True)
    values = [float(line) for line in python(read, *paths, check=True).stdout.split()]
    assert len(values) == 2 and all(abs(v - 1199) <= 0.5 for v in values)


def test_the_codec_of_the_registry_is_the_real_one() -> None:
    assert isinstance(registry.load_installed("lattice"), Lattice)
