"""Gridded fields: `lattice` beside SZ3, ZFP, SPERR, JPEG 2000, bit rounding, pcodec and Blosc at the same bounds: `make bench-climate`.

Every variable of every file is one item, whole, however many axes it has. Bounds are pointwise, in percent of the variable's own standard
deviation, and every decoded field is compared with them. Rows stay in a file, so that a run goes on where another stopped and peers are
measured once. Ours are whole .lpz files; of the peers the payload alone counts, as if shape, dtype and settings were free.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentpress.errors import LatentpressError
from latentpress.eval.climate.coders import Coder, OwnCoder, PeerCoder
from latentpress.eval.climate.measure import Task, measure, serves
from latentpress.eval.climate.tables import YARDSTICKS, bounded_table, compared, lossless_table, summary
from latentpress.eval.fields import Field, find_fields
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.metrics.fields import FIELD
from latentpress.eval.peers.fields import BOUNDED, LOSSLESS, not_available
from latentpress.eval.readme import write_block
from latentpress.eval.rows import Row, RowCache

BOUNDS = (10.0, 1.0, 0.1, 0.01)
ROWS = "rows.jsonl"


def tasks_of(fields: Sequence[Field], own: Sequence[Coder], peers: Sequence[str], bounds: Sequence[float], brief: bool = False) -> list[Task]:
    """Every coder at every bound and lossless (percent 0) on every field: what the targets need first, small fields first.

    peers: names; brief: of peers only the metrics that cost next to nothing
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
        Task(coder=c, digest=digests[c.name], field=f, field_digest=prints[f.name], percent=b, metrics=every if c.own or not brief else cheap)
        for stage in stages for f in ordered for c, b in stage
    ]  # fmt: skip


def measured(tasks: Sequence[Task], cache: RowCache, again: Sequence[str] = ()) -> list[Row]:
    """The tasks' rows: those that the cache has, unless they lack something or their codec is to be measured again, and new ones."""
    todo = [t for t in tasks if t.key not in cache or not serves(cache[t.key], t) or t.coder.name in again]
    for number, task in enumerate(todo, 1):
        row = measure(task)
        cache.add(row)
        print(f"{number}/{len(todo)} {line(row)}", flush=True)
    return [cache[t.key] for t in tasks]


def line(row: Row) -> str:
    head = f"{row['item']} {row['setting']} {row['codec']}:"
    if row["status"] != "ok":
        return f"{head} {row['error']}"
    return f"{head} {row['ratio']:.2f}, {row['exceedances']} beyond, {row['encode_s']:.2f} s, {row['decode_s']:.2f} s"


def figures_of(rows: Sequence[Row], bounds: Sequence[float], own: str) -> dict[str, Any]:
    """What `eval/figures/climate.json` holds of the grid."""
    bounded = {f"{b:g}": compared(rows, b, own) for b in bounds}
    lossless = compared(rows, 0, own)
    ours = [r for r in rows if r["own"] and r["status"] == "ok"]
    return {
        "own": own,
        "bounds": list(bounds),
        "bounded": {b: {"summary": summary(e), "fields": e} for b, e in bounded.items()},
        "lossless": {"summary": summary(lossless), "fields": lossless},
        "pairs": len(ours),
        "exceedances": sum(r["exceedances"] for r in ours),
        "failed": [line(r) for r in rows if r["status"] != "ok"],
        "settings": {r["codec"]: r["options"] for r in rows},
        "not_available": not_available(),
        "versions_of_codecs": {r["codec"]: r["versions"] for r in rows},
    }


def markdown(figures: dict[str, Any], rows: Sequence[Row]) -> str:
    """The README's block."""
    about = (
        "Float32 bytes over compressed bytes at pointwise bounds in percent of each variable's standard deviation: ours / best of SZ3, ZFP, SPERR. "
        f"{figures['pairs']} field-bound pairs of ours (lossless included), {figures['exceedances']} points beyond a bound; "
        "a peer marked * broke its own bound."
    )
    return f"{bounded_table(figures)}\n\n{about}\n\nLossless:\n\n{lossless_table(figures, rows)}"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing, write figures and tables; gives the figures."""
    fields = find_fields(arguments.data, arguments.fields)
    if arguments.single_planes:
        fields = [p for f in fields for p in planes(f)]
    own = [OwnCoder(codec=c) for c in arguments.codecs]
    cache = RowCache(arguments.output / ROWS)
    rows = measured(tasks_of(fields, own, arguments.peers, arguments.bounds, arguments.brief), cache, arguments.again)
    name = arguments.codecs[0] if arguments.codecs else ""
    figures = {"command": arguments.command, **environment(), **figures_of(rows, arguments.bounds, name)}
    write_figures(arguments.figures, figures)
    text = markdown(figures, rows)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, "climate", text)
    return figures


def planes(field: Field) -> list[Field]:
    """The first plane of a variable, for comparison with tables of single planes."""
    return [field if field.data.ndim == 2 else field.plane((0,) * (field.data.ndim - 2))]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_climate", description="gridded fields at pointwise bounds, and lossless")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/climate/eval"), help="folder of NetCDF files (default: %(default)s)")
    parser.add_argument("--bounds", type=float, nargs="+", default=list(BOUNDS), metavar="PERCENT", help="of each variable's standard deviation")
    parser.add_argument("--fields", nargs="*", default=[], metavar="NAME", help="only these: FILE or FILE/VARIABLE")
    parser.add_argument("--codecs", nargs="*", default=["lattice"], metavar="NAME", help="ours; the first one is compared with the peers")
    parser.add_argument("--peers", nargs="*", choices=list(BOUNDED | LOSSLESS), default=list(BOUNDED | LOSSLESS))
    parser.add_argument("--brief", action="store_true", help="of peers no metrics that take longer than coding")
    parser.add_argument("--again", nargs="*", default=[], metavar="CODEC", help="measure these again though rows are there")
    parser.add_argument("--single-planes", action="store_true", help="the first plane of each variable in place of the whole")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench/climate"), help="folder of the rows")
    parser.add_argument("--figures", type=Path, default=FOLDER / "climate.json")
    parser.add_argument("--readme", type=Path, default=None, help="file whose figures:climate block is replaced")
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_climate", *argv])
    return arguments


def main() -> None:
    try:
        run(parse(sys.argv[1:]))
    except LatentpressError as error:
        raise SystemExit(f"bench-climate: {error}") from error


if __name__ == "__main__":
    main()
