"""Lossless photographs: `grid-rgb` beside PNG, WebP, JPEG 2000 and JPEG XL on Kodak: `make bench-photos-lossless`.

Rows are those of `latentpress bench`: whole files, every one decoded; a row whose samples did not come back is an error here.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from latentpress.errors import InputError, LatentpressError
from latentpress.eval.bench.run import Request, run_bench
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.images import kodak_folder
from latentpress.eval.readme import table, write_block
from latentpress.eval.rows import Row

CODECS = ("grid-rgb@q=50",)
PEERS = ("png", "webp-lossless", "jpeg2000-lossless", "jxl-lossless", "jxl-lossless-9")


def entry(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one codec: mean bits a sample over the images, median megapixels a second. Raises InputError for a row that lost something."""
    for r in rows:
        if r["status"] != "ok" or r["psnr"] is not None:  # an infinite PSNR is null
            raise InputError(f"{r['codec']} on {r['item']}: {r['error'] or 'the samples did not come back'}")
    bits = [8 * r["bytes"] / (r["shape"][0] * r["shape"][1] * r["shape"][2]) for r in rows]
    pixels = [r["shape"][0] * r["shape"][1] / 1e6 for r in rows]
    speed = {f"{way}_mp_per_s": round(median(p / r[f"{way}_s"] for p, r in zip(pixels, rows, strict=True)), 3) for way in ("encode", "decode")}
    return {"setting": rows[0]["setting"], "bits_per_sample": round(sum(bits) / len(bits), 4), **speed}


def figures_of(rows: Sequence[Row], command: str) -> dict[str, Any]:
    """What `eval/figures/lossless.json` holds."""
    names = list(dict.fromkeys(r["codec"] for r in rows))
    found = {n: entry([r for r in rows if r["codec"] == n]) for n in names}
    versions = {r["codec"]: {k: v for k, v in r["versions"].items() if k not in ("python", "numpy")} for r in rows}
    return {"command": command, **environment(), "images": len({r["item"] for r in rows}), "versions": versions, "codecs": found}


def markdown(figures: dict[str, Any]) -> str:
    """The README's table, from the figures alone."""
    ordered = sorted(figures["codecs"].items(), key=lambda c: c[1]["bits_per_sample"])
    rows = [[n, c["setting"], f"{c['bits_per_sample']:.3f}", f"{c['encode_mp_per_s']:.2f}", f"{c['decode_mp_per_s']:.2f}"] for n, c in ordered]
    text = table(["codec", "setting", "bits a sample", "encode, MP/s", "decode, MP/s"], rows)
    return f"{text}\n\n{figures['images']} Kodak images, whole files, one thread a codec; every file decoded and compared."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_lossless", description="lossless photographs")
    parser.add_argument("--kodak", type=Path, default=kodak_folder(), help="folder of the PNGs (default: %(default)s)")
    parser.add_argument("--items", nargs="*", default=[], metavar="NAME", help="only these")
    parser.add_argument("--codecs", nargs="*", default=list(CODECS), metavar="SPEC")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), metavar="SPEC")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench/lossless"), help="folder of the rows")
    parser.add_argument("--figures", type=Path, default=FOLDER / "lossless.json")
    parser.add_argument("--readme", type=Path, default=None, help="file whose figures:lossless block is replaced")
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_lossless", *argv])
    return arguments


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing, write the figures and the table; gives the figures."""
    request = Request(
        data=arguments.kodak, output=arguments.output, codecs=tuple(arguments.codecs), peers=tuple(arguments.peers), items=tuple(arguments.items),
        jobs=arguments.jobs, command=arguments.command, metrics=("psnr",),
    )  # fmt: skip
    figures = figures_of(run_bench(request, lambda done, total, row: None).rows, arguments.command)
    write_figures(arguments.figures, figures)
    text = markdown(figures)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, "lossless", text)
    return figures


def main() -> None:
    try:
        run(parse(sys.argv[1:]))
    except LatentpressError as error:
        raise SystemExit(f"bench-photos-lossless: {error}") from error


if __name__ == "__main__":
    main()
