"""Datasets through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner, Result

from latentpress.cli import app
from latentpress.errors import InputError, LatentpressError, MissingExtraError
from latentpress.fields import sources
from tests.fields.datasets import raw, weather_file


def run(*arguments: str | Path) -> Result:
    """In this process, where the stand-in is registered; errors of ours come out as they are."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(done.exception, LatentpressError):
        raise done.exception
    return done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return weather_file(tmp_path)


def test_netcdf_to_lpz_to_netcdf(source: Path, tmp_path: Path) -> None:
    told = run("encode", source, "-o", tmp_path / "a.lpz", "--max-error", "0.1", "--var", "t2m:max-error=1")
    assert told.exit_code == 0 and "times smaller" in told.output, told.output
    assert run("decode", tmp_path / "a.lpz", "-o", tmp_path / "b.nc").exit_code == 0
    before, after = raw(source), raw(tmp_path / "b.nc")
    assert list(before.variables) == list(after.variables)
    assert 0 < np.nanmax(abs(before.t2m.values - after.t2m.values)) <= 1
    assert abs(before.sst.values.astype(int) - after.sst.values).max() == 10
    told = run("info", tmp_path / "a.lpz")
    assert "max_error 0.1" in told.output and "t2m" in told.output
    assert "ok" in run("verify", tmp_path / "a.lpz").output


def test_netcdf_to_lpz_to_a_zarr_store_and_back_to_lpz(source: Path, tmp_path: Path) -> None:
    assert run("encode", source, "-o", tmp_path / "a.lpz", "--lossless").exit_code == 0
    assert run("decode", tmp_path / "a.lpz", "-o", tmp_path / "b.zarr").exit_code == 0
    with xarray.open_dataset(source) as before, xarray.open_zarr(tmp_path / "b.zarr", chunks=None, consolidated=False) as after:
        xarray.testing.assert_identical(before.load(), after.load())
    assert run("encode", tmp_path / "b.zarr", "-o", tmp_path / "c.lpz", "--lossless").exit_code == 0
    assert "t2m" in run("info", tmp_path / "c.lpz").output


def test_the_bound_of_each_point_comes_from_another_file(source: Path, tmp_path: Path) -> None:
    before = raw(source)
    bound = np.linspace(0, 0.5, before.t2m.size).reshape(before.t2m.shape)
    xarray.Dataset({"spread": (before.t2m.dims, bound)}).to_netcdf(tmp_path / "spread.nc", engine="scipy")
    plain = run("encode", source, "-o", tmp_path / "a.lpz", "--lossless", "--var", f"t2m:max-error-from={tmp_path / 'spread.nc'}:spread")
    assert plain.exit_code == 0, plain.output
    run("decode", tmp_path / "a.lpz", "-o", tmp_path / "b.nc")
    error = abs(raw(tmp_path / "b.nc").t2m.values.astype(float) - before.t2m.values)
    assert (error <= bound).all() and error.max() > 0


@pytest.mark.parametrize("options, words", [
    (("--var", "t2n:max-error=1"), ["'t2n'", "t2m"]),
    (("--var", "t2m=3"), ["NAME:max-error=E"]), (("--var", "t2m:max-error=x"), ["'x' is no number"]),
    (("--max-error", "1", "-q", "3"), ["max-error", "quality"]), (("--psnr", "30"), ["--psnr"]), (("--max-error-from", "x"), ["FILE:VARIABLE"]),
    (("--max-error-from", "x.nc:t2m"), ["x.nc", "no such file"]), (("--codec", "grid-rgb"), ["codes images"]),
], ids=str)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(source: Path, tmp_path: Path, options: tuple[str, ...], words: list[str]) -> None:
    try:
        told = run("encode", source, "-o", tmp_path / "a.lpz", *options)
        lines, code = told.output.strip(), told.exit_code
    except LatentpressError as error:
        lines, code = str(error), 1
    assert code in (1, 2) and "\n" not in lines and all(word in lines for word in words), lines
    assert not (tmp_path / "a.lpz").exists()


def test_existing_files_stay_unless_told_otherwise(source: Path, tmp_path: Path) -> None:
    (tmp_path / "a.lpz").write_bytes(b"mine")
    assert "exists" in run("encode", source, "-o", tmp_path / "a.lpz").output and (tmp_path / "a.lpz").read_bytes() == b"mine"
    assert run("encode", source, "-o", tmp_path / "a.lpz", "--lossless", "--overwrite").exit_code == 0
    (tmp_path / "b.zarr").mkdir()
    assert run("decode", tmp_path / "a.lpz", "-o", tmp_path / "b.zarr", "--overwrite").exit_code == 1, "a folder that is no store is not replaced"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_what_is_no_dataset_and_what_no_reader_is_there_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nc").write_bytes(b"not a NetCDF file")
    with pytest.raises(InputError, match=r"a\.nc: cannot be read as netcdf4"):
        sources.raw_dataset(tmp_path / "a.nc")
    (tmp_path / "a.grib").write_bytes(b"GRIB")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None if name == "cfgrib" else object())
    with pytest.raises(MissingExtraError, match=r"latentpress\[grib\]"):
        sources.raw_dataset(tmp_path / "a.grib")
    with pytest.raises(InputError, match="are for datasets"):
        run("encode", "photo.png", "-o", tmp_path / "p.lpz", "--max-error", "1")
