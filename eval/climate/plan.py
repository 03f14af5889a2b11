"""What is to be measured, and its rows: each is kept at once, so that a run goes on where another stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from latentpress.eval.climate.coders import Coder, PeerCoder
from latentpress.eval.climate.measure import Task, serves
from latentpress.eval.climate.tables import YARDSTICKS
from latentpress.eval.fields import Field
from latentpress.eval.metrics.fields import FIELD
from latentpress.eval.peers.fields import BOUNDED, LOSSLESS
from latentpress.eval.rows import Row, RowCache


def grid(fields: Sequence[Field], own: Sequence[Coder], peers: Sequence[str], bounds: Sequence[float], full: bool = False) -> list[Task]:
    """Every coder at every bound and lossless (percent 0) on every field: what the targets need first, small fields first.

    peers: names; full: of peers all metrics, not only those that cost next to nothing
    """
    every, cheap = tuple(m.name for m in FIELD), tuple(m.name for m in FIELD if m.default)
    stages: list[list[tuple[Coder, float]]] = [[(c, b) for b in (*bounds, 0.0) for c in own]]
    stages.append([(PeerCoder(peer=BOUNDED[n]), b) for b in bounds for n in BOUNDED if n in peers and n in YARDSTICKS])
    stages.append([(PeerCoder(peer=p), 0.0) for n, p in LOSSLESS.items() if n in peers])
    stages.append([(PeerCoder(peer=BOUNDED[n]), b) for b in bounds for n in BOUNDED if n in peers and n not in YARDSTICKS])
    digests = {c.name: c.digest for stage in stages for c, _ in stage}
    prints = {f.name: f.digest for f in fields}
    ordered = sorted(fields, key=lambda f: f.data.size)
    return [
        Task(coder=c, digest=digests[c.name], field=f, field_digest=prints[f.name], percent=b, metrics=every if c.own or full else cheap)
        for stage in stages for f in ordered for c, b in stage
    ]  # fmt: skip


def rows_of(
    tasks: Sequence[Task], measure: Callable[[Task], Row], cache: RowCache, *, again: Sequence[str] = (), jobs: int = 1,
    report: Callable[[int, int, Row], None] = lambda done, total, row: None,
) -> list[Row]:  # fmt: skip
    """The tasks' rows: those that the cache has, unless they lack something or their codec is to be measured again, and new ones.

    measure: a function of a module; report: sees each new row
    """
    todo = [t for t in tasks if t.key not in cache or not serves(cache[t.key], t) or t.coder.name in again]
    for number, row in enumerate(_measured(todo, measure, jobs), 1):
        cache.add(row)
        report(number, len(todo), row)
    return [cache[t.key] for t in tasks]


def _measured(todo: Sequence[Task], measure: Callable[[Task], Row], jobs: int) -> Iterator[Row]:
    if jobs == 1 or len(todo) < 2:
        yield from map(measure, todo)
        return
    with ProcessPoolExecutor(min(jobs, len(todo)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(measure, todo)


def line(row: Row) -> str:
    """A row for the terminal."""
    head = f"{row['item']} {row['setting']} {row['codec']}:"
    if row["status"] != "ok":
        return f"{head} {row['error']}"
    beyond = f", {row['exceedances']} beyond" if row.get("exceedances") is not None else ""
    times = f", {row['encode_s']:.2f} s, {row['decode_s']:.2f} s" if "encode_s" in row else ""
    return f"{head} {row['ratio']:.2f}{beyond}{times}"
