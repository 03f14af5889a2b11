"""The bench on a toy domain: rows, order, what goes wrong, and that nothing measured is lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from latentpress.errors import InputError, MissingExtraError, UnsupportedError
from latentpress.eval import domains
from latentpress.eval.bench import parquet, run
from latentpress.eval.bench.manifest import peers_of
from latentpress.eval.bench.run import Request, run_bench
from latentpress.eval.domains import Domain, domain, register_domain
from latentpress.eval.rows import KEY
from tests.eval.toy import TONES, DropFamily
from tests.helpers import python

ROOT = Path(__file__).parent.parent.parent
FIELDS = {
    "schema", "domain", *KEY, "status", "error", "note", "runs", "threads", "versions", "machine", "shape", "bytes", "kbps", "largest",
    "encode_s", "decode_s", "peak_bytes",
}  # fmt: skip


@pytest.fixture(autouse=True)
def tones(monkeypatch):
    monkeypatch.setattr(domains, "_registered", dict(domains._registered))
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # worker processes import the toy domain
    register_domain(TONES)


@pytest.fixture
def data(tmp_path):
    """a.npy to c.npy, and two files of one stem."""
    folder = tmp_path / "data"
    for i, name in enumerate(("a", "b", "c", "left/d", "right/d")):
        put(folder / f"{name}.npy", i)
    (folder / "readme.txt").write_text("no signal")
    return folder


def put(path: Path, first: int, length: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(first).integers(0, 255, length, dtype=np.uint8)
    samples[0] = first
    np.save(path, samples)


def request(folder: Path, tmp_path: Path, **more) -> Request:
    return Request(**{"data": folder, "output": tmp_path / "out", "peers": ("drop",), "domain": "tones", **more})


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]


def untimed(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in r.items() if not k.endswith("_s") and k != "peak_bytes"} for r in rows]


def test_each_item_at_each_point_gives_a_row_in_the_domains_own_units(data, tmp_path):
    outcome = run_bench(request(data, tmp_path))
    rows = lines(tmp_path / "out")
    assert rows == outcome.rows and not outcome.errors and outcome.measured == 10
    assert [(r["item"], r["setting"]) for r in rows] == [(i, f"bits={b}") for i in ("a", "b", "c", "left/d.npy", "right/d.npy") for b in (2, 4)]
    assert all(set(r) == FIELDS for r in rows)
    first = rows[0]
    assert (first["bytes"], first["kbps"], first["shape"]) == (81, 8 * 81 / (80 / 8000) / 1000, [80]) and 0 < first["largest"] < 64
    assert first["schema"] == 1 and first["domain"] == "tones" and first["versions"]["drop"] == "1" and first["machine"]["cores"] == os.cpu_count()


def test_the_manifest_says_what_was_asked_for_and_where_the_time_went(data, tmp_path):
    run_bench(request(data, tmp_path, peers=("drop@q=3",), items=("2",), command="latentpress bench", threads=1))
    manifest = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    assert manifest["schema"] == 1 and manifest["domain"] == "tones" and manifest["command"] == "latentpress bench"
    entry = {"codec": "drop", "own": False, "spec": "drop@q=3", "specs": ["drop@q=3"], "settings": ["bits=3"], "digests": ["d0"]}
    assert manifest["codecs"] == [entry] and peers_of(manifest["codecs"][0], TONES.peers) == [DropFamily().at(3)]
    assert [i["item"] for i in manifest["items"]] == ["a", "b"] and Path(manifest["items"][0]["path"]) == data / "a.npy"
    assert manifest["metrics"] == ["largest"] and manifest["threads"] == manifest["jobs"] == 1
    last = manifest["last_run"]
    assert last["rows"] == 2 and 0 <= last["overhead_percent"] <= 100 and last["codec_s"] + last["metric_s"] <= last["wall_s"]


def test_parquet_holds_the_rows_of_the_json_lines(data, tmp_path):
    put(data / "bad.npy", 66)
    outcome = run_bench(request(data, tmp_path, metrics=("largest", "length")))
    table = parquet.packages()[1].read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    assert [r | {"versions": dict(r["versions"])} for r in table] == lines(tmp_path / "out") == outcome.rows
    assert outcome.errors and any(r["encode_s"] is not None for r in table)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_bench_that_is_killed_goes_on_where_it_stopped(data, tmp_path, after):
    code = f"""
import os, signal, sys
from pathlib import Path
from latentpress.eval.bench.run import Request, run_bench
from latentpress.eval.domains import register_domain
from tests.eval.toy import TONES
register_domain(TONES)
def killer(done, total, row):
    if done == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
run_bench(Request(data=Path(sys.argv[1]), output=Path(sys.argv[2]), peers=("drop",), domain="tones"), killer)
"""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = python(code, str(data), str(tmp_path / "out"), env=paths, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(lines(tmp_path / "out")) == after and not (tmp_path / "out" / "rows.parquet").exists()
    outcome = run_bench(request(data, tmp_path))
    assert outcome.measured == 10 - after
    assert untimed(lines(tmp_path / "out")) == untimed(run_bench(request(data, tmp_path, output=tmp_path / "unbroken")).rows)


def test_a_codec_that_fails_on_a_file_gives_a_row_that_says_so_and_is_tried_again(data, tmp_path):
    put(data / "b.npy", 66)
    seen = []
    outcome = run_bench(request(data, tmp_path), lambda done, total, row: seen.append((done, total)))
    assert seen == [(i, 10) for i in range(1, 11)]
    assert [(r["item"], r["setting"]) for r in outcome.errors] == [("b", "bits=2"), ("b", "bits=4")]
    error = outcome.errors[0]
    assert error["error"] == "RuntimeError: no use for 66" and set(error) == FIELDS
    assert error["bytes"] is error["largest"] is error["encode_s"] is None
    again = run_bench(request(data, tmp_path))
    assert again.measured == 2 and len(lines(tmp_path / "out")) == 10
    put(data / "b.npy", 1)  # another file of that name: its old rows are of no use
    assert run_bench(request(data, tmp_path)).errors == []


def test_a_file_that_cannot_be_read_costs_only_its_own_rows(data, tmp_path):
    (data / "b.npy").write_bytes(b"garbage")
    outcome = run_bench(request(data, tmp_path))
    assert {r["item"] for r in outcome.errors} == {"b"} and len(outcome.rows) == 10 and outcome.errors[0]["shape"] is None


def test_worker_processes_give_the_rows_of_one_process_in_the_same_order(data, tmp_path):
    one = run_bench(request(data, tmp_path))
    two = run_bench(request(data, tmp_path, output=tmp_path / "two", jobs=2))
    assert untimed(lines(tmp_path / "two")) == untimed(one.rows) == untimed(two.rows)


def test_a_worker_process_that_dies_is_replaced_and_only_what_kills_it_fails(data, tmp_path):
    put(data / "b.npy", 99)
    outcome = run_bench(request(data, tmp_path, jobs=2, peers=("drop@q=4",)))
    assert [r["item"] for r in outcome.errors] == ["b"] and "died 3 times" in outcome.errors[0]["error"]
    assert len(lines(tmp_path / "out")) == 5


@pytest.mark.long
def test_a_dask_worker_that_is_killed_loses_nothing(data, tmp_path):
    distributed = pytest.importorskip("distributed")
    for i in range(20):
        put(data / f"more{i:02}.npy", i % 60, length=200_000)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        first = cluster.workers[0].process.pid
        asked = request(data, tmp_path, scheduler=cluster.scheduler_address)
        outcome = run_bench(asked, lambda done, total, row: os.kill(first, signal.SIGKILL) if done == 3 else None)
    assert len(outcome.rows) == outcome.measured == 50 and not outcome.errors
    assert untimed(outcome.rows) == untimed(run_bench(request(data, tmp_path, output=tmp_path / "here")).rows)


def test_a_scheduler_that_does_not_answer_is_named(data, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="--scheduler nonsense"):
        run_bench(request(data, tmp_path, scheduler="nonsense"))


def test_a_later_run_measures_only_what_is_new_and_keeps_the_rest(data, tmp_path):
    run_bench(request(data, tmp_path, items=("a", "b")))
    more = run_bench(request(data, tmp_path, items=("b", "c"), peers=("drop@q=4,5",)))
    assert more.measured == 3 and [(r["item"], r["setting"]) for r in more.rows] == [(i, f"bits={b}") for i in ("b", "c") for b in (4, 5)]
    assert len(lines(tmp_path / "out")) == 7 and lines(tmp_path / "out")[:4] == more.rows
    assert run_bench(request(data, tmp_path, items=("a", "b"))).measured == 0
    assert run_bench(request(data, tmp_path, items=("a",), metrics=("largest", "length"))).measured == 2
    assert run_bench(request(data, tmp_path, items=("a",), threads=2)).measured == 2


def test_repeats_are_timed_after_a_run_that_is_not_counted(data, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(type(DropFamily().at(1)), "decode", lambda self, blob: calls.append(1) or np.zeros(80, np.uint8))
    row = run_bench(request(data, tmp_path, items=("a",), peers=("drop@q=4",), repeats=3)).rows[0]
    assert len(calls) == 4 and row["runs"] == 3
    assert run_bench(request(data, tmp_path, items=("a",), peers=("drop@q=4",))).measured == 0  # better timed than asked for
    assert run_bench(request(data, tmp_path, items=("a",), peers=("drop@q=4",), repeats=4)).measured == 1


def test_a_metric_without_a_value_is_null_and_the_row_says_why(data, tmp_path):
    put(data / "b.npy", 1, length=1000)
    rows = run_bench(request(data, tmp_path, items=("a", "b"), metrics=("length",), peers=("drop@q=4",))).rows
    assert [(r["length"], r["note"], r["status"]) for r in rows] == [(None, "length: 80 samples are too few", "ok"), (1000, None, "ok")]


def test_a_worker_with_another_codec_refuses(data, tmp_path):
    task = run.find_tasks(run.find_points([], ["drop@q=4"], TONES), run.find_items(data, TONES, ("1",)))[0]
    odd = type(task)(peer=task.peer, digest="d1", item=task.item)
    row = run.in_process([odd], run.How(domain=TONES, metrics=("largest",))).__next__().row
    assert row["status"] == "error" and "'d0' here and 'd1'" in row["error"] and row["digest"] == "d1"


@pytest.mark.parametrize(
    "text, words",
    [
        ({"schema": 2, "domain": "tones", "latentpress": "9.9"}, "schema 2 .latentpress 9.9.*another -o, or delete"),
        ({"schema": 1, "domain": "image"}, "a bench of image.*another -o, or delete"),
        ([1], "no readable description.*another -o, or delete"),
    ],
)
def test_a_folder_of_another_bench_is_left_alone(data, tmp_path, text, words):
    out = tmp_path / "out"
    out.mkdir()
    (out / "bench.json").write_text(json.dumps(text), "utf-8")
    with pytest.raises(InputError, match=words) as caught:
        run_bench(request(data, tmp_path))
    assert str(out) in str(caught.value) and json.loads((out / "bench.json").read_text("utf-8")) == text and len(list(out.iterdir())) == 1


def test_rows_of_another_schema_are_left_alone(data, tmp_path):
    run_bench(request(data, tmp_path, items=("1",)))
    path = tmp_path / "out" / "rows.jsonl"
    path.write_text(path.read_text("utf-8").replace('"schema": 1', '"schema": 0'), "utf-8")
    before = path.read_text("utf-8")
    with pytest.raises(InputError, match=r"rows of schema 0.*another -o"):
        run_bench(request(data, tmp_path))
    assert path.read_text("utf-8") == before


def test_what_makes_no_bench_is_refused_in_one_line(data, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    wrong = [
        ({"data": tmp_path / "none"}, "none: no such file or folder"),
        ({"data": tmp_path / "empty"}, "empty: the folder holds no .npy file"),
        ({"items": ("z",)}, "no item 'z'"),
        ({"items": ("9",)}, "--items 9: .* has 5"),
        ({"output": tmp_path / "file"}, "file: a file, the bench needs a folder"),
        ({"metrics": ("larges",)}, "did you mean 'largest'"),
        ({"domain": "tone"}, "did you mean 'tones'"),
        ({"peers": ()}, "nothing to measure"),
        ({"jobs": 0}, "--jobs 0"),
    ]
    for change, words in wrong:
        with pytest.raises(InputError, match=words) as caught:
            run_bench(request(data, tmp_path, **change))
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"latentpress\[bench\]"):
        run_bench(request(data, tmp_path))
    assert not (tmp_path / "out").exists()


def test_packages_add_peers_metrics_and_domains_by_entry_points(monkeypatch):
    class More(DropFamily):
        pass

    added = {
        "latentpress.peers": {"tones.more": More, "image.other": More},
        "latentpress.metrics": {"tones.again": TONES.metrics["length"]},
        "latentpress.domains": {"clicks": Domain(**{**vars(TONES), "name": "clicks"})},
    }

    def points(group):
        return [SimpleNamespace(name=n, value="x:y", load=lambda v=v: v) for n, v in added.get(group, {}).items()]

    monkeypatch.setattr(domains, "entry_points", points)
    assert list(domain("tones").peers) == ["drop", "more"] and list(domain("tones").metrics) == ["largest", "length", "again"]
    assert isinstance(domain("tones").peers["more"], More) and list(domain("clicks").peers) == ["drop"] and "other" in domain("image").peers
    added["latentpress.peers"] = {"tones.drop": More}
    with pytest.raises(UnsupportedError, match="two peers of tones are called 'drop'"):
        domain("tones")


def test_two_domains_of_one_name_are_refused():
    register_domain(TONES)
    with pytest.raises(UnsupportedError, match="'tones'"):
        register_domain(Domain(**{**vars(TONES), "rate_name": "bits"}))
