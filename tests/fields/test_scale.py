"""Archives: regions coded one by one, by workers that may die."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from latentpress import scale
from latentpress.errors import InputError
from tests.fields.datasets import raw, weather_file


class Here:
    """A client that does its tasks in this process, in order; `dies_after` of them it breaks down."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.left = dies_after

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": {"one": 1}}

    def submit(self, work: Any, *arguments: Any, **options: Any) -> Any:
        future: Future[Any] = Future()
        self.left -= 1
        if self.left < 0:
            future.set_exception(KeyboardInterrupt())
        else:
            future.set_result(work(*arguments))
        return future


class AsCompleted:
    def __init__(self, futures: Any) -> None:
        self.futures = list(futures)

    def add(self, future: Any) -> None:
        self.futures.append(future)

    def __iter__(self) -> Iterator[Any]:
        while self.futures:
            yield self.futures.pop(0)


class Distributed:
    as_completed, KilledWorker = AsCompleted, ZeroDivisionError


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without loading all of distributed."""
    import sys

    monkeypatch.setitem(sys.modules, "distributed", Distributed)
    monkeypatch.setattr(scale, "extra", lambda name: None)
    monkeypatch.setattr(scale, "VALUES", 20 * 36)


def test_a_store_is_made_region_by_region_within_its_bounds(tmp_path: Path, here: None) -> None:
    source, told = weather_file(tmp_path), []
    special = {"t2m": {"max_error": 0.5}}
    count = scale.encode_archive(source, tmp_path / "out.zarr", max_error=0.05, variables=special, report=told.append, client=Here())
    assert count == 3 + 3 + 1 and told[0].done == 0 and told[-1] == scale.Progress(7, 7)
    before, after = raw(source), raw(tmp_path / "out.zarr")
    assert set(before.variables) == set(after.variables)
    assert 0 < abs(before.t2m.values - after.t2m.values).max() <= 0.5 and after.t2m.attrs["latentpress_max_error"] == 0.5
    assert abs(before.sst.values.astype(int) - after.sst.values).max() == 5 and ((before.sst.values == -32768) == (after.sst.values == -32768)).all()
    for name in ("land", "time", "station", "height", "lat"):
        np.testing.assert_array_equal(before[name].values, after[name].values)
    with xarray.open_dataset(source) as a, xarray.open_dataset(tmp_path / "out.zarr", engine="zarr", consolidated=False) as b:
        assert float(abs(a.sst - b.sst).max()) <= 0.0501 and b.sst.attrs["units"] == "K"


def test_a_run_that_broke_off_goes_on_where_it_was(tmp_path: Path, here: None) -> None:
    source, target = weather_file(tmp_path), tmp_path / "out.zarr"
    with pytest.raises(KeyboardInterrupt):
        scale.encode_archive(source, target, max_error=0.5, client=Here(dies_after=4))
    written = {p: p.stat().st_mtime_ns for p in target.glob("*/c/*/*/*")}
    assert len(written) == 4
    with pytest.raises(InputError, match="other settings"):
        scale.encode_archive(source, target, max_error=0.25, client=Here())
    assert scale.encode_archive(source, target, max_error=0.5, client=Here()) == 3
    assert all(p.stat().st_mtime_ns == at for p, at in written.items()), "what is done is not done again"
    with pytest.raises(InputError, match="is finished"):
        scale.encode_archive(source, target, max_error=0.5, client=Here())
    assert scale.encode_archive(source, target, max_error=0.5, overwrite=True, client=Here()) == 7


def test_folders_that_are_no_archive_stay(tmp_path: Path, here: None) -> None:
    source = weather_file(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(InputError):
            scale.encode_archive(source, tmp_path / "mine", overwrite=overwrite, client=Here())
    assert (tmp_path / "mine" / "photo.png").exists()
    with pytest.raises(InputError, match="number"):
        scale.encode_archive(source, tmp_path / "o.zarr", variables={"t2m": {"max_error": np.ones((20, 36))}}, client=Here())
    assert not (tmp_path / "o.zarr").exists()


def test_chunks_are_whole_planes_then_as_many_of_them_as_make_four_million_values() -> None:
    assert scale.chunks_for((8760, 721, 1440)) == (5, 721, 1024)
    assert scale.chunks_for((24, 37, 181, 360)) == (1, 37, 181, 360)
    assert scale.chunks_for((4, 5)) == (4, 5)
    assert scale.chunks_for((3, 4000, 4000)) == (3, 1024, 1024)


PRELOAD = """
import sys
sys.path.insert(0, {root!r})
import pytest
from tests.fields import standin


def slowed(usual):
    def slow(self, signal, target, *, effort=2):
        import time
        time.sleep(0.3)
        return usual(self, signal, target, effort=effort)

    return slow

if standin.StandIn.encode.__name__ != "slow":  # dask runs this twice in a worker
    standin.register(pytest.MonkeyPatch())
    standin.StandIn.encode = slowed(standin.StandIn.encode)
"""


@pytest.mark.long
def test_a_worker_killed_in_the_middle_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    monkeypatch.setattr(scale, "VALUES", 20 * 36)
    source, target, killed = weather_file(tmp_path, times=12), tmp_path / "out.zarr", []
    preload = PRELOAD.format(root=str(Path(__file__).parent.parent.parent))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "preload": preload}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:

        def report(progress: scale.Progress) -> None:
            if progress.done == 5 and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], 9)

        count = scale.encode_archive(source, target, max_error=0.5, report=report, client=client)
    assert killed and count == 25
    state = json.loads((target / scale.STATE).read_text())
    assert state["finished"]
    assert 0 < abs(raw(source).t2m.values - raw(target).t2m.values).max() <= 0.5
