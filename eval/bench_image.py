"""Rate and distortion on Kodak, our codecs beside other people's: `make bench-image`.

    images x operating points -> rows (out/bench/image.jsonl) -> mean curves, BD-rates -> eval/figures/image.json -> README table

Every row is measured on a whole file: encode to bytes, decode from those bytes, compare 8-bit RGB. Rows are kept by codec, digest, setting
and image, so that peers are measured once and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from latentpress.errors import InputError, LatentpressError
from latentpress.eval import bd
from latentpress.eval.curves import Point, as_curve, bd_table, mean_curves, psnr_at
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.images import image_paths, kodak_folder
from latentpress.eval.measure import KEY, measure_row, row_key
from latentpress.eval.own import OwnCodec
from latentpress.eval.peers import DEFAULT, FAMILIES, Peer, family
from latentpress.eval.readme import table, write_block
from latentpress.eval.rows import Row, RowCache

ANCHORS = ("webp", "avif", "jpeg")
QUALITIES = (0, 14, 28, 42, 56, 70, 85, 100)
RATES = (0.25, 0.5, 1.0)  # bits per pixel at which the table states PSNR
Task = tuple[Peer, Path]


def missing(tasks: Sequence[Task], cache: RowCache) -> list[Task]:
    """What the cache lacks."""
    return [t for t in tasks if row_key(*t) not in cache]


def measure_all(tasks: Sequence[Task], cache: RowCache, jobs: int = 1) -> None:
    """Measure `tasks` and add each row to the cache as it comes; jobs > 1: so many processes, one thread of torch each."""
    for number, row in enumerate(_rows(tasks, jobs), 1):
        cache.add(row)
        if number % 24 == 0 or number == len(tasks):
            print(f"{number} of {len(tasks)} rows; last: {row['codec']} {row['setting']} {row['image']}", flush=True)


def _rows(tasks: Sequence[Task], jobs: int) -> Iterator[Row]:
    if jobs == 1:
        for task in tasks:
            yield measure_row(*task)
        return
    # spawn: a forked child would inherit the thread pools of torch, which do not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        for future in as_completed([pool.submit(measure_row, *t) for t in tasks]):
            yield future.result()


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def result(curves: dict[str, list[Point]], images: Sequence[str], anchors: Sequence[str], about: dict[str, Any]) -> dict[str, Any]:
    """What `eval/figures/image.json` holds."""
    deltas = bd_table(curves, anchors)
    return {
        **about,
        "method": {
            "bd": bd.METHOD,
            "curve": "bits per pixel and PSNR averaged over the images at each setting",
            "psnr": "dB on 8-bit RGB, squared error over all samples of an image",
            "bytes": "whole file, header included",
        },
        "images": list(images),
        "bd_rate": {c: {a: _entry(d) for a, d in row.items()} for c, row in deltas.items() if row},
        "curves": {c: [_rounded(p) for p in points] for c, points in curves.items()},
    }


def _rounded(point: Point) -> dict[str, Any]:
    means = {"bpp": round(point.bpp, 6), "psnr": round(point.psnr, 4)}
    return asdict(point) | means | {"psnr_by_image": [round(v, 4) for v in point.psnr_by_image]}


def _entry(delta: bd.Delta | str) -> dict[str, Any]:
    if isinstance(delta, str):
        return {"refused": delta}
    overlap = [round(delta.low, 3), round(delta.high, 3)]
    return {"percent": round(delta.value, 3), "overlap_db": overlap, "overlap_share": round(delta.share, 3)}


def markdown(figures: dict[str, Any], curves: dict[str, list[Point]], anchors: Sequence[str]) -> str:
    """The README's table, from the figures alone."""
    header = ["codec", "bits per pixel", "PSNR", *(f"dB at {r:g} bpp" for r in RATES), *(f"BD-rate, {a}" for a in anchors)]
    rows = [_line(c, points, figures["bd_rate"].get(c, {}), anchors) for c, points in curves.items()]
    note = (
        f"Kodak, {len(figures['images'])} images; rate and PSNR averaged over the images at each setting; BD-rate in % against the codec "
        "at the top of the column, over the PSNR range in brackets (dB)."
    )
    return table(header, rows) + "\n\n" + note


def _line(codec: str, points: list[Point], deltas: dict[str, Any], anchors: Sequence[str]) -> list[str]:
    curve = as_curve(codec, points)
    at = [psnr_at(points, r) for r in RATES]
    return [
        codec,
        f"{min(curve.rate):.2f}-{max(curve.rate):.2f}",
        f"{min(curve.quality):.1f}-{max(curve.quality):.1f}",
        *("" if v is None else f"{v:.2f}" for v in at),
        *(_cell(deltas.get(a)) for a in anchors),
    ]


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    if "refused" in entry:
        return "no overlap"
    low, high = entry["overlap_db"]
    return f"{entry['percent']:+.1f} ({low:.1f}-{high:.1f})"


def points_of(arguments: argparse.Namespace) -> list[Peer]:
    """All operating points that the command line asks for, peers first."""
    peers: list[Peer] = [family(n).at(q) for n in arguments.peers for q in family(n).points]
    grid = product(arguments.codec, arguments.effort, arguments.qualities)
    own: list[Peer] = [OwnCodec(codec=c, quality=q, effort=e) for c, e, q in grid]
    return peers + own


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, write the figures and the table; gives the figures."""
    paths = image_paths(arguments.kodak, arguments.images)
    points = points_of(arguments)
    if not points:
        raise InputError("nothing to measure: name a codec (--codec) or a peer (--peers)")
    cache = RowCache(arguments.cache, KEY)
    tasks = [(point, path) for point in points for path in paths]
    measure_all(missing(tasks, cache), cache, arguments.jobs)
    names = [p.stem for p in paths]
    curves = mean_curves([cache[row_key(*t)] for t in tasks], names)
    anchors = [a for a in ANCHORS if a in curves]
    versions = {p.name: dict(p.versions) for p in points}
    figures = result(curves, names, anchors, {"command": arguments.command, "codecs": versions, **environment()})
    write_figures(arguments.figures, figures)
    text = markdown(figures, curves, anchors)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, arguments.block, text)
    return figures


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_image", description="rate and distortion on Kodak")
    parser.add_argument("--kodak", type=Path, default=kodak_folder(), help="folder of the PNGs (default: %(default)s)")
    parser.add_argument("--images", nargs="*", default=[], metavar="NAME", help="only these, as in: kodim05 kodim19")
    parser.add_argument("--codec", nargs="*", default=["walloc-rgb"], help="our codecs; none: peers alone")
    parser.add_argument("--qualities", nargs="+", type=float, default=list(QUALITIES))
    parser.add_argument("--effort", nargs="+", type=int, default=[2])
    parser.add_argument("--peers", nargs="*", default=list(DEFAULT), choices=list(FAMILIES))
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--cache", type=Path, default=Path("out/bench/image.jsonl"))
    parser.add_argument("--figures", type=Path, default=FOLDER / "image.json")
    parser.add_argument("--readme", type=Path, default=None, help="file whose figures:image block is replaced")
    parser.add_argument("--block", default="image", help="name of that block")
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: at least 1 expected")
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_image", *argv])
    return arguments


def main() -> None:
    try:
        run(parse(sys.argv[1:]))
    except LatentpressError as error:
        raise SystemExit(f"bench-image: {error}") from error


if __name__ == "__main__":
    main()
