"""The climate bench on tiny files: rows kept and found again, tables that follow from rows, a page that stands alone."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pytest

from latentpress.errors import InputError
from latentpress.eval.bench_climate import parse, run
from latentpress.eval.climate import baselines, memory, speed, unbounded
from latentpress.eval.climate.coders import OwnCoder, PeerCoder
from latentpress.eval.climate.measure import Task, measure, serves
from latentpress.eval.climate.page import _worst
from latentpress.eval.climate.plan import grid
from latentpress.eval.climate.tables import compared, figures_of, markdown, others_of, summary
from latentpress.eval.fields import Field, find_fields, read_fields

for module in ("netCDF4", "h5py", "hdf5plugin", "numcodecs", "pcodec", "imagecodecs"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'latentpress[peers]'")

from latentpress.eval.peers.fields import BOUNDED, LOSSLESS  # noqa: E402


def smooth(*shape: int) -> np.ndarray:
    x = np.random.default_rng(8).normal(size=shape)
    return (np.cumsum(np.cumsum(x, -1), -2) / 8).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """eval/small.nc: t2m [2, 16, 24] float32 on a 1-degree grid, packed [16, 24] int16 with missing points; BASELINES.md beside."""
    import netCDF4

    (tmp_path / "eval").mkdir()
    with netCDF4.Dataset(tmp_path / "eval" / "small.nc", "w") as file:
        for name, size in (("time", 2), ("latitude", 16), ("longitude", 24)):
            file.createDimension(name, size)
        file.createVariable("latitude", "f4", ("latitude",))[:] = 8 - np.arange(16)
        file.createVariable("t2m", "f4", ("time", "latitude", "longitude"))[:] = smooth(2, 16, 24)
        packed = file.createVariable("packed", "i2", ("latitude", "longitude"), fill_value=-32768)
        packed.scale_factor, packed.add_offset, packed.units = 0.1, 3.0, "m"
        packed.set_auto_maskandscale(False)
        packed[:] = np.where(np.arange(24) < 3, -32768, np.arange(16 * 24).reshape(16, 24))
    return tmp_path


def entry(codec: str, item: str, ratio: float, over: int = 0, own: bool = False, setting: str = "bound=1%") -> dict[str, object]:
    row = {"codec": codec, "item": item, "ratio": ratio, "exceedances": over, "own": own, "setting": setting}
    return row | {"status": "ok", "options": "", "versions": {}}


def test_packed_fields_are_decoded_in_float64_and_cast(folder):
    fields = {f.name: f for f in read_fields(folder / "eval" / "small.nc")}
    packed = fields["small/packed"]
    assert packed.data.dtype == np.float32 and np.isnan(packed.data[:, :3]).all() and packed.units == "m"
    assert packed.data[1, 3] == np.float32(27 * 0.1 + 3.0)
    assert list(fields["small/t2m"].latitude) == list(range(8, -8, -1)) and fields["small/t2m"].plane((1,)).name == "small/t2m#1"
    assert fields["small/t2m"].std == pytest.approx(np.std(smooth(2, 16, 24).astype(np.float64)))


def test_unknown_fields_and_folders_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="no field 'small/q'"):
        find_fields(folder / "eval", ["small/q"])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no NetCDF files"):
        find_fields(tmp_path / "none")
    (tmp_path / "none" / "a.nc").write_bytes(b"CDF nothing")
    with pytest.raises(InputError, match=r"a\.nc: no readable NetCDF"):
        find_fields(tmp_path / "none")


def test_a_bench_of_peers_alone_keeps_its_rows_and_is_not_measured_twice(folder, capsys):
    options = ["--data", str(folder / "eval"), "--codecs", "--peers", "sz3", "zfp", "pcodec", "--bounds", "1", "--parts", "grid", "unbounded",
               "-o", str(folder / "out"), "--figures", str(folder / "f.json"), "--page", str(folder / "p.html"), "--show", "small/t2m"]  # fmt: skip
    figures = run(parse(options))
    assert "/8 small/" in capsys.readouterr().err
    assert figures["grid"]["bounded"]["1"]["summary"]["fields"] == 2 and figures["unbounded"]["ratios"]["small/t2m"]["sz3"] > 1
    size = (folder / "out" / "rows.jsonl").stat().st_size
    assert run(parse(options))["grid"] == figures["grid"] and (folder / "out" / "rows.jsonl").stat().st_size == size
    assert capsys.readouterr().err == ""
    page = (folder / "p.html").read_text()
    assert "http-equiv" in page and 'src="http' not in page and "small/t2m" in page


def test_single_planes_stand_beside_the_published_figures(folder, monkeypatch):
    monkeypatch.setattr(baselines, "ITEMS", {"Small t2m": ("small/t2m", (0,)), "Absent": ("other/x", ())})
    (folder / "BASELINES.md").write_text(
        "| field | size | std | codec | 10 % | 1 % | max err/bound |\n|---|---|---|---|---|---|---|\n| Small t2m | 1 | 1 | SZ3 | 9.0 | 2.0 | 1 |\n\n"
        "| field | pcodec level 8 |\n|---|---|\n| Small t2m | 1.5 |\n\n"
        "| field | exact | pcodec 8 on integer codes |\n|---|---|---|\n| Small t2m | no | 1.9 (x) |\n"
    )
    published = baselines.read_baselines(folder / "BASELINES.md")
    assert published == {"Small t2m": {"bound=10%": {"sz3": 9.0}, "bound=1%": {"sz3": 2.0}, "lossless": {"pcodec": 1.5, "lattice known": 1.9}}}
    options = ["--data", str(folder / "eval"), "--codecs", "--peers", "sz3", "--bounds", "1", "--single-planes", "-o", str(folder / "out"),
               "--figures", str(folder / "f.json")]  # fmt: skip
    found = run(parse(options))["single_planes"]
    assert [p["codec"] for p in found["peers"]] == ["sz3"] and found["peers"][0]["published"] == 2.0
    assert json.loads((folder / "f.json").read_text())["single_planes"] == found


def test_ours_is_compared_with_the_best_yardstick_even_where_that_broke_its_bound():
    rows = [entry("lattice", "a", 12, own=True), entry("sz3", "a", 8), entry("sperr", "a", 10, over=3), entry("pcodec", "a", 11)]
    rows += [entry("sz3", "b", 4), entry("lattice", "b", 4, own=True)]
    first, second = compared(rows, 1, "lattice")
    assert (first["yardstick"], first["over_yardstick"], first["best"], first["over_best"]) == ("sperr", 1.2, "pcodec", 1.0909)
    assert first["exceedances"] == {"sperr": 3} and second["over_yardstick"] == 1
    found = summary([first, second])
    assert found["median_over_yardstick"] == 1.1 and found["worst_field"] == "b" and found["fields_with_a_broken_yardstick"] == 1
    text = markdown({"own": "lattice", "grid": figures_of(rows, [1.0], "lattice")})
    assert "12.0 / 10.0 sperr* = **1.20**" in text and "**1.10** (least 1.00)" in text


def test_our_codecs_stand_beside_each_other():
    rows = [entry("lattice", "a", 12, own=True), entry("bounded/x", "a", 15, own=True), entry("lattice", "b", 4, own=True)]
    found = figures_of(rows, [1.0], "lattice")
    assert others_of(found, "lattice") == ["bounded/x"]
    text = markdown({"own": "lattice", "grid": found})
    assert "15.0 / 12.0 = **1.25**" in text and "`b`" not in text and "0 points of `bounded/x` beyond a bound" in text
    assert "sperr" not in text, "no peers, no table of them"
    with_peers = markdown({"own": "lattice", "grid": figures_of([*rows, entry("sz3", "a", 10)], [1.0], "lattice")})
    assert "12.0 / 10.0 sz3 = **1.20**" in with_peers and "15.0 / 12.0 = **1.25**" in with_peers


def test_a_coder_that_refuses_or_fails_gives_a_row_that_says_so():
    field = Field(name="f/x", data=smooth(16, 24) + np.float32(1e6), dims=("y", "x"))
    coder = PeerCoder(peer=BOUNDED["pcodec"])
    task = Task(coder=coder, digest=coder.digest, field=field, field_digest=field.digest, percent=1e-8)
    row = measure(task)
    assert row["status"] == "refused" and "asks for more" in row["error"] and serves(row, task)
    infinite = Field(name="f/y", data=np.full((4, 4), np.inf, np.float32), dims=("y", "x"))
    assert measure(Task(coder=coder, digest="", field=infinite, field_digest="", percent=0))["status"] == "error"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_does_not_grow_with_the_number_of_chunks():
    few, many = memory.costs("lattice", (1, 4), (24, 32))
    if many["encode"] is None:
        pytest.skip("the system does not tell")
    assert (few["chunks"], many["chunks"]) == (1, 4) and many["field_bytes"] == 4 * few["field_bytes"]
    for way in memory.WAYS:  # fourfold, were it to grow; a few megabytes are malloc's own habits
        assert many[way] < 2 * max(few[way], 4e6), (way, few, many)
    assert "| 4 |" in memory.memory_table([few, many])


def test_tasks_travel_to_worker_processes():
    field = Field(name="f/x", data=smooth(16, 24), dims=("y", "x"))
    for task in grid([field], [OwnCoder(codec="lattice")], list(BOUNDED | LOSSLESS), [1.0]):
        again = pickle.loads(pickle.dumps(task))
        assert again.key == task.key and np.array_equal(again.field.data, field.data)


def test_ours_is_a_whole_file_that_keeps_the_bound():
    field = Field(name="f/x", data=smooth(2, 16, 24), dims=("time", "y", "x"))
    coder = OwnCoder(codec="lattice")
    task = Task(coder=coder, digest=coder.digest, field=field, field_digest=field.digest, percent=1, metrics=("rmse", "mask_errors"))
    row = measure(task)
    assert row["status"] == "ok" and row["exceedances"] == 0 and 0 < row["worst_over_bound"] <= 1 and row["rmse"] > 0
    assert row["bytes"] == len(coder.encode(field, task.bound)) and row["bound"] == task.bound


def test_the_search_keeps_the_limit_and_uses_it():
    field = Field(name="f/t2m", data=smooth(64, 96), dims=("y", "x"), latitude=np.arange(64.0))
    coder = PeerCoder(peer=BOUNDED["sz3"])
    tight, loose = (unbounded.search(next(unbounded.knobs(coder, field)), coder, field, limit) for limit in (0.001, 0.0164))
    assert tight.nmse <= 0.001 and 0.005 < loose.nmse <= 0.0164 and len(loose.blob) < len(tight.blob)
    assert unbounded.search(next(unbounded.knobs(coder, field)), coder, field, 1e-9) is None
    assert unbounded.chosen([field, Field(name="f/q", data=field.data, dims=("y", "x"))]) == [field]


def test_growth_is_the_exponent_of_cost(tmp_path):
    costs = {n: {"encode_cpu_s": n**2 / 1e6, "decode_cpu_s": n**3 / 1e9, "encode_us_per_point": 1, "decode_us_per_point": n} for n in (10, 20, 40)}
    entries = [{"codec": "a", "shape": [n, n], **cost} for n, cost in costs.items()]
    assert speed.slopes(entries) == {"a": {"encode": 1.0, "decode": 1.5}}
    pytest.importorskip("matplotlib")
    speed.plot(tmp_path / "cost.png", entries)
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_costs_are_measured_at_three_sizes():
    field = Field(name="f/x", data=smooth(32, 48), dims=("y", "x"))
    entries = speed.costs(field, [PeerCoder(peer=BOUNDED["zfp"])], threads=1, repeats=1)
    assert [e["shape"] for e in entries] == [[8, 12], [16, 24], [32, 48]]
    with pytest.raises(InputError, match="721"):
        speed.source([field])


def test_thinned_error_maps_show_the_worst_point_of_each_block():
    error = np.zeros((5, 6))
    error[1, 1], error[4, 5] = -3, 2
    assert _worst(error, 2).tolist() == [[-3, 0, 0], [0, 0, 0], [0, 0, 2]]
