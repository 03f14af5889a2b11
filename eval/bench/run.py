"""One bench from request to rows: plan, measure what is missing, keep each row at once, close with manifest and Parquet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentpress.errors import InputError
from latentpress.eval.bench.manifest import Manifest, check_folder, describe, write_manifest
from latentpress.eval.bench.parquet import packages, write_parquet
from latentpress.eval.bench.plan import find_items, find_points, find_tasks
from latentpress.eval.bench.workers import in_pool, in_process, through_dask
from latentpress.eval.domains import Domain, domain, near
from latentpress.eval.measure import How, Measured, Task
from latentpress.eval.rows import SCHEMA, Row, RowCache

ROWS, TABLE = "rows.jsonl", "rows.parquet"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for; see `latentpress bench --help`. scheduler: "" for processes of this machine, "local" or an address for dask."""

    data: Path
    output: Path
    codecs: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    domain: str = "image"
    jobs: int = 1
    threads: int = 1
    repeats: int = 1
    scheduler: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("jobs", "threads", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: at least 1 expected")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """rows: of this request, in its order, those of earlier runs included; measured: how many are new; manifest: as in bench.json."""

    rows: list[Row]
    measured: int
    manifest: Manifest

    @property
    def errors(self) -> list[Row]:
        return [r for r in self.rows if r["status"] != "ok"]


def run_bench(request: Request, report: Callable[[int, int, Row], None] = lambda done, total, row: None) -> Outcome:
    """Measure, and keep everything in `request.output`. report(done, total, row) sees each new row.

    Raises InputError and its kin for what makes no bench at all; a codec that fails on an item gives a row with status "error" instead.
    """
    start = time.perf_counter()
    about = domain(request.domain)
    how = How(domain=about, metrics=choose_metrics(request.metrics, about), threads=request.threads, repeats=request.repeats)
    packages()
    check_folder(request.output, about.name)
    items = find_items(request.data, about, request.items)
    points = find_points(request.codecs, request.peers, about)
    tasks = find_tasks(points, items)
    manifest = describe(
        points, items, domain=about.name, command=request.command, data=str(request.data), metrics=list(how.metrics), threads=how.threads,
        jobs=request.jobs, repeats=how.repeats, scheduler=request.scheduler or None,
    )  # fmt: skip
    write_manifest(request.output, manifest)
    cache = RowCache(request.output / ROWS)
    _check_rows(cache, request.output)
    todo = missing(tasks, cache, how)
    spent = [0.0, 0.0]
    for number, measured in enumerate(_measured(request, todo, how), 1):
        cache.add(measured.row)
        spent = [spent[0] + measured.codec_s, spent[1] + measured.metric_s]
        report(number, len(todo), measured.row)
    cache.arrange([t.key for t in tasks])
    write_parquet(request.output / TABLE, cache)
    manifest["last_run"] = _account(time.perf_counter() - start, *spent, rows=len(todo), jobs=request.jobs)
    write_manifest(request.output, manifest)
    return Outcome(rows=[cache[t.key] for t in tasks], measured=len(todo), manifest=manifest)


def choose_metrics(names: Sequence[str], about: Domain) -> tuple[str, ...]:
    """Names of metrics that are installed: those asked for, or the domain's default ones. Raises InputError, MissingExtraError."""
    for name in names:
        if name not in about.metrics:
            raise InputError(f"no metric of {about.name} is called {name!r}; {near(name, about.metrics)}")
    chosen = tuple(dict.fromkeys(names)) or tuple(n for n, m in about.metrics.items() if m.default)
    for name in chosen:
        about.metrics[name].check()
    return chosen


def missing(tasks: Sequence[Task], cache: RowCache, how: How) -> list[Task]:
    """What the rows lack: never measured, failed, without a metric that is asked for, or timed in another way."""
    return [t for t in tasks if t.key not in cache or not _serves(cache[t.key], how)]


def _serves(row: Row, how: How) -> bool:
    return row["status"] == "ok" and all(m in row for m in how.metrics) and row["threads"] == how.threads and row["runs"] >= how.repeats


def _measured(request: Request, tasks: Sequence[Task], how: How) -> Iterator[Measured]:
    if request.scheduler and tasks:
        return through_dask(tasks, how, request.scheduler, request.jobs)
    jobs = min(request.jobs, len(tasks))
    return in_pool(tasks, how, jobs) if jobs > 1 else in_process(tasks, how)


def _check_rows(cache: RowCache, folder: Path) -> None:
    other = next((r.get("schema") for r in cache if r.get("schema") != SCHEMA), SCHEMA)
    if other != SCHEMA:
        raise InputError(f"{folder}: rows of schema {other}, this version writes {SCHEMA}: choose another -o, or delete the folder")


def _account(wall: float, codec: float, metric: float, *, rows: int, jobs: int) -> dict[str, Any]:
    """Where the time went. Overhead is what is neither codec nor metric: planning, starting processes, reading files, writing rows, idling."""
    overhead = 100 * max(0.0, 1 - (codec + metric) / (wall * jobs))
    return {"rows": rows, "wall_s": round(wall, 3), "codec_s": round(codec, 3), "metric_s": round(metric, 3), "overhead_percent": round(overhead, 2)}
