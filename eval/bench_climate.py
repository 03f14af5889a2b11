"""Gridded fields: `lattice` beside SZ3, ZFP, SPERR, JPEG 2000, bit rounding, pcodec and Blosc at the same bounds: `make bench-climate`.

Every variable of every file is one item, whole, however many axes it has. Bounds are pointwise, in percent of the variable's own standard
deviation, and every decoded field is compared with them. Rows stay in a file, so that a run goes on where another stopped and peers are
measured once. Ours are whole .lpz files; of the peers the payload alone counts, as if shape, dtype and settings were free.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentpress.errors import InputError, LatentpressError
from latentpress.eval.climate import baselines, memory, speed, unbounded
from latentpress.eval.climate.coders import Coder, OwnCoder, PeerCoder
from latentpress.eval.climate.measure import measure
from latentpress.eval.climate.plan import grid, line, rows_of
from latentpress.eval.climate.tables import figures_of, markdown
from latentpress.eval.fields import Field, find_fields
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.peers.fields import BOUNDED, LOSSLESS
from latentpress.eval.readme import write_block
from latentpress.eval.rows import Row, RowCache

BOUNDS = (10.0, 1.0, 0.1, 0.01)
ROWS = "rows.jsonl"
PARTS = ("grid", "unbounded", "speed", "memory")
SPEED_PEERS = ("sz3", "sperr")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing, write figures and tables; gives the figures. Parts that are left out keep the figures that they have."""
    fields = find_fields(arguments.data, arguments.fields)
    own: list[Coder] = [OwnCoder(codec=c) for c in arguments.codecs]
    name = arguments.codecs[0] if own else ""
    if "speed" in arguments.parts and not arguments.single_planes:
        speed.source(fields)  # where there is no such field, the run ends before hours of measuring
    cache = RowCache(arguments.output / ROWS)
    figures = {**_before(arguments.figures), "command": arguments.command, **environment(), "own": name}
    if arguments.single_planes:
        figures["single_planes"] = _single_planes(arguments, fields, own, cache, name)
    elif "grid" in arguments.parts:
        figures["grid"] = figures_of(_rows(arguments, fields, own, cache), arguments.bounds, name)
    if "unbounded" in arguments.parts and not arguments.single_planes:
        tasks = unbounded.tasks_of(fields, own, arguments.peers)
        rows = rows_of(tasks, unbounded.smallest, cache, again=arguments.again, jobs=arguments.jobs, report=_report)
        figures["unbounded"] = {"limit": unbounded.LIMIT, "ratios": unbounded.ratios(rows), "knobs": unbounded.settings(rows)}
    if "speed" in arguments.parts and not arguments.single_planes:
        figures["speed"] = _speed(arguments, fields, own)
    if "memory" in arguments.parts and own and not arguments.single_planes:
        figures["memory"] = memory.costs(name)
    write_figures(arguments.figures, figures)
    text = markdown(figures)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, arguments.block, text)
    if arguments.page:
        from latentpress.eval.climate.page import write_page

        coders = [*own, *(PeerCoder(peer=BOUNDED[n]) for n in SPEED_PEERS if n in arguments.peers)]
        write_page(arguments.page, figures, fields, coders, arguments.show, arguments.at)
    return figures


def _before(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path}: no readable figures ({error}); delete the file") from error
    return found


def _rows(arguments: argparse.Namespace, fields: Sequence[Field], own: Sequence[Coder], cache: RowCache) -> list[Row]:
    tasks = grid(fields, own, arguments.peers, arguments.bounds, arguments.full)
    return rows_of(tasks, measure, cache, again=arguments.again, jobs=arguments.jobs, report=_report)


def _single_planes(arguments: argparse.Namespace, fields: Sequence[Field], own: Sequence[Coder], cache: RowCache, name: str) -> dict[str, Any]:
    published = baselines.read_baselines(arguments.baselines or _beside(arguments.data))
    planes = baselines.single_planes(fields)
    rows = _rows(arguments, list(planes.values()), own, cache)
    return baselines.beside(rows, planes, published, name)


def _beside(data: Path) -> Path:
    return (data if data.is_dir() else data.parent).parent / baselines.NAME


def _speed(arguments: argparse.Namespace, fields: Sequence[Field], own: Sequence[Coder]) -> dict[str, Any]:
    coders = [*own, *(PeerCoder(peer=BOUNDED[n]) for n in SPEED_PEERS if n in arguments.peers)]
    field = speed.source(fields)
    entries = speed.costs(field, coders, arguments.threads, arguments.repeats)
    if arguments.plot:
        speed.plot(arguments.plot, entries)
    return {"field": field.name, "percent": speed.PERCENT, "repeats": arguments.repeats, "slopes": speed.slopes(entries), "costs": entries}


def _report(done: int, total: int, row: Row) -> None:
    print(f"{done}/{total} {line(row)}", file=sys.stderr, flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_climate", description="gridded fields at pointwise bounds, and lossless")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/climate/eval"), help="folder of NetCDF files (default: %(default)s)")
    parser.add_argument("--bounds", type=float, nargs="+", default=list(BOUNDS), metavar="PERCENT", help="of each variable's standard deviation")
    parser.add_argument("--fields", nargs="*", default=[], metavar="NAME", help="only these: FILE or FILE/VARIABLE")
    parser.add_argument("--codecs", nargs="*", default=["lattice"], metavar="NAME", help="ours; the first one is compared with the peers")
    parser.add_argument("--peers", nargs="*", choices=list(BOUNDED | LOSSLESS), default=list(BOUNDED | LOSSLESS))
    parser.add_argument("--full", action="store_true", help="of peers too the metrics that take longer than coding does: DSSIM, spectra, ...")
    parser.add_argument("--again", nargs="*", default=[], metavar="CODEC", help="measure these again though rows are there")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured (default: all)")
    parser.add_argument("--single-planes", action="store_true", help="in place of the parts: the twelve fields of BASELINES.md beside its figures")
    parser.add_argument("--baselines", type=Path, default=None, help="default: BASELINES.md above --data")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of torch, in the part on speed")
    parser.add_argument("--repeats", type=int, default=3, help="in the part on speed")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench/climate"), help="folder of the rows")
    parser.add_argument("--figures", type=Path, default=FOLDER / "climate.json")
    parser.add_argument("--plot", type=Path, default=None, help="PNG of cost per point")
    parser.add_argument("--page", type=Path, default=None, help="HTML page with maps")
    parser.add_argument("--show", default="", metavar="FIELD", help="the page's maps (default: the first field)")
    parser.add_argument("--at", type=float, default=1.0, metavar="PERCENT", help="their bound")
    parser.add_argument("--readme", type=Path, default=None, help="file whose figures block is replaced")
    parser.add_argument("--block", default="climate", metavar="NAME", help="of that file (default: %(default)s)")
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
