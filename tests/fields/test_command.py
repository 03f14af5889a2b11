"""Datasets through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from latentpress.cli import app
from latentpress.errors import InputError, LatentpressError
from tests.fields.datasets import raw, weather_file


def run(*arguments: str | Path) -> Result:
    """In this process, where the stand-in is registered; errors of ours come out as they are."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(done.exception, LatentpressError):
        raise done.exception
    return done


def test_netcdf_to_lpz_to_netcdf(tmp_path: Path) -> None:
    source = weather_file(tmp_path)
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
