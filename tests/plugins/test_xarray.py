"""xarray opens .lpz files: lazily, and decoding no more than is looked at."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray

import latentpress
from latentpress.plugins.xarray import LatentpressBackend
from tests.fields import standin
from tests.fields.datasets import weather


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "w.lpz").write_bytes(latentpress.encode_dataset(weather(), lossless=True))
    return tmp_path / "w.lpz"


def test_one_time_step_and_a_region_decode_only_their_chunks(file: Path) -> None:
    dataset = xarray.open_dataset(file, engine=LatentpressBackend)
    assert not standin.DECODED
    part = dataset.t2m.isel(time=1, lat=slice(2, 7), lon=slice(9, 20)).values
    assert dict(standin.DECODED) == {(1, 0, 1): 1, (1, 0, 2): 1}
    np.testing.assert_array_equal(part, weather().t2m.values[1, 2:7, 9:20])


def test_chunks_of_dask_compute_the_same_and_decode_only_their_own(file: Path) -> None:
    dataset = xarray.open_dataset(file, engine=LatentpressBackend, chunks={"time": 1, "lat": 8, "lon": 8})
    assert dataset.t2m.chunks == ((1, 1, 1), (8, 8, 4), (8, 8, 8, 8, 4)) and not standin.DECODED
    part = dataset.t2m.isel(time=1, lat=slice(2, 7), lon=slice(9, 20))
    mean = part.mean()
    assert not standin.DECODED, "nothing is decoded before it is computed"
    np.testing.assert_array_equal(part.values, weather().t2m.values[1, 2:7, 9:20])
    assert dict(standin.DECODED) == {(1, 0, 1): 1, (1, 0, 2): 1}
    assert float(mean) == pytest.approx(float(weather().t2m.values[1, 2:7, 9:20].mean(dtype=np.float64)), rel=1e-6)
    xarray.testing.assert_identical(dataset.compute(), weather())


def test_chunks_left_to_dask_are_those_of_the_file(file: Path) -> None:
    dataset = xarray.open_dataset(file, engine=LatentpressBackend, chunks={})
    assert dataset.t2m.chunks == ((1, 1, 1), (8, 8, 4), (8, 8, 8, 8, 4))
    dataset.t2m.load()
    assert set(standin.DECODED.values()) == {1} and len(standin.DECODED) == 3 * 3 * 5, "each chunk is decoded once"


@pytest.mark.parametrize("key", [
    (0,), (slice(None, None, -1), slice(15, 3, -4)), (slice(1, 3), 5, slice(None, None, 7)), ([2, 0], slice(3, 4), [30, 1, 1]), (-1, -1, -1),
    (slice(2, 2),), (...,),
], ids=str)  # fmt: skip
def test_indexing_is_that_of_the_values(file: Path, key: tuple) -> None:
    dataset = xarray.open_dataset(file, engine=LatentpressBackend)
    xarray.testing.assert_identical(dataset.t2m[key].load(), weather().t2m[key])


def test_the_dataset_is_the_one_that_was_encoded_also_through_pickle(file: Path) -> None:
    dataset = xarray.open_dataset(file, engine=LatentpressBackend)
    xarray.testing.assert_identical(pickle.loads(pickle.dumps(dataset)).load(), weather())
    without = xarray.open_dataset(file.read_bytes(), engine=LatentpressBackend, drop_variables="sst")
    xarray.testing.assert_identical(without.load(), weather().drop_vars("sst"))


def test_the_engine_guesses_by_suffix_and_by_first_bytes(file: Path) -> None:
    engine = LatentpressBackend()
    assert engine.guess_can_open(file) and engine.guess_can_open(str(file)) and engine.guess_can_open(file.read_bytes())
    assert not engine.guess_can_open("a.nc") and not engine.guess_can_open(b"CDF") and not engine.guess_can_open(object())
