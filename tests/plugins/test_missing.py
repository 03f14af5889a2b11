"""Where latentpress is not installed, whoever meets its files is told its name: there is no code of ours to say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

import latentpress
from latentpress.plugins.zarr import LatentpressCodec
from tests.fields.datasets import weather
from tests.helpers import python

WITHOUT = """
import sys
from importlib.metadata import MetadataPathFinder
find = MetadataPathFinder.find_distributions
MetadataPathFinder.find_distributions = lambda *a, **k: (d for d in find(*a, **k) if d.metadata["Name"] != "latentpress")
try:
    {statement}
except Exception as error:
    print(type(error).__name__, error)
"""
CASES = {
    "a Zarr store opened by xarray": "import xarray; print(xarray.open_zarr(sys.argv[1] + '/s.zarr', consolidated=False, chunks=None).a.values)",
    "a Zarr store opened by zarr": "import zarr; print(zarr.open_group(sys.argv[1] + '/s.zarr', mode='r')['a'][:])",
    "an .lpz file by its engine": "import xarray; xarray.open_dataset(sys.argv[1] + '/s.lpz', engine='latentpress')",
    "a numcodecs configuration": "import numcodecs; numcodecs.get_codec({'id': 'latentpress'})",
}


@pytest.mark.parametrize("statement", CASES.values(), ids=CASES.keys())
def test_the_error_names_the_package(statement: str, tmp_path: Path) -> None:
    zarr.registry.register_codec("latentpress", LatentpressCodec)
    dataset = xarray.Dataset({"a": (("y", "x"), np.ones((8, 9), np.float32))})
    dataset.to_zarr(tmp_path / "s.zarr", consolidated=False, encoding={"a": {"serializer": LatentpressCodec(), "compressors": None}})
    (tmp_path / "s.lpz").write_bytes(latentpress.encode_dataset(weather(), lossless=True))
    said = python(WITHOUT.format(statement=statement), str(tmp_path), check=True).stdout.decode()
    assert "Error" in said and "latentpress" in said and "<xarray" not in said, said
