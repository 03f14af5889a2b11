"""Rate and distortion on Kodak, our codecs beside other people's: `make bench-image`.

    eval/bench (rows in out/bench/kodak) -> mean curves, BD-rates -> eval/figures/image.json -> README table

The rows are those of `latentpress bench`: measured once, kept by codec, digest, setting and image, and the figures follow from them alone.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentpress.errors import InputError, LatentpressError
from latentpress.eval import bd
from latentpress.eval.bench.run import Outcome, Request, run_bench
from latentpress.eval.curves import Point, as_curve, bd_table, mean_curves, psnr_at
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.images import kodak_folder
from latentpress.eval.peers import FAMILIES
from latentpress.eval.readme import table, write_block
from latentpress.eval.rows import Row

ANCHORS = ("webp", "avif", "jpeg")
CODECS = ("walloc-rgb@q=0,14,28,42,56,70,85,100",)
PEERS = ("jpeg", "jpeg-444", "webp", "avif", "jxl", "jpeg2000")
RATES = (0.25, 0.5, 1.0)  # bits per pixel at which the table states PSNR


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


def versions_of(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Codec -> package -> version, without what is the same for all codecs and stands beside."""
    return {r["codec"]: {k: v for k, v in r["versions"].items() if k not in ("python", "numpy")} for r in rows}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing, write the figures and the table; gives the figures. Raises InputError where a row failed."""
    request = Request(
        data=arguments.kodak, output=arguments.output, codecs=tuple(arguments.codecs), peers=tuple(arguments.peers), items=tuple(arguments.items),
        jobs=arguments.jobs, command=arguments.command,
    )  # fmt: skip
    outcome = run_bench(request, _progress)
    if outcome.errors:
        error = outcome.errors[0]
        raise InputError(f"{len(outcome.errors)} of {len(outcome.rows)} rows failed: {error['codec']} on {error['item']}: {error['error']}")
    figures, text = figures_of(outcome, arguments.command)
    write_figures(arguments.figures, figures)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, arguments.block, text)
    return figures


def figures_of(outcome: Outcome, command: str) -> tuple[dict[str, Any], str]:
    """The figures and the README's table of a bench."""
    names = [i["item"] for i in outcome.manifest["items"]]
    curves = mean_curves(outcome.rows, names)
    anchors = [a for a in ANCHORS if a in curves]
    figures = result(curves, names, anchors, {"command": command, "codecs": versions_of(outcome.rows), **environment()})
    return figures, markdown(figures, curves, anchors)


def _progress(done: int, total: int, row: Row) -> None:
    if done % 24 == 0 or done == total:
        print(f"{done} of {total} rows; last: {row['codec']} {row['setting']} {row['item']}", flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_image", description="rate and distortion on Kodak")
    parser.add_argument("--kodak", type=Path, default=kodak_folder(), help="folder of the PNGs (default: %(default)s)")
    parser.add_argument("--items", nargs="*", default=[], metavar="NAME", help="only these, as in: kodim05 kodim19")
    parser.add_argument("--codecs", nargs="*", default=list(CODECS), metavar="SPEC", help="our codecs, as `latentpress bench` takes them")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), metavar="SPEC", help=f"as there: {', '.join(FAMILIES)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench/kodak"), help="folder of the rows")
    parser.add_argument("--figures", type=Path, default=FOLDER / "image.json")
    parser.add_argument("--readme", type=Path, default=None, help="file whose figures:image block is replaced")
    parser.add_argument("--block", default="image", help="name of that block")
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_image", *argv])
    return arguments


def main() -> None:
    try:
        run(parse(sys.argv[1:]))
    except LatentpressError as error:
        raise SystemExit(f"bench-image: {error}") from error


if __name__ == "__main__":
    main()
