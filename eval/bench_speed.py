"""Encoding and decoding speed beside CompressAI, and cost per pixel against size: `make bench-speed`.

Both sides take an 8-bit array and give bytes, and back: colour conversion, padding, network, entropy coder and (ours) the container are
included. Candidates take turns image by image; figures are medians over the images' runs, and ratios are of the same run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import LatentpressError
from latentpress.eval.compressai_peer import FactorizedPeer
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.images import image_paths, kodak_folder, read_rgb
from latentpress.eval.metrics import bits_per_pixel
from latentpress.eval.own import OwnCodec
from latentpress.eval.peers import Peer
from latentpress.eval.readme import table, write_block
from latentpress.eval.scaling import LARGE, SIDES, mosaic
from latentpress.eval.timing import interleaved, medians, paired_ratio

Image8 = NDArray[np.uint8]
IMAGES = ("kodim03", "kodim05", "kodim13", "kodim19", "kodim20", "kodim23")  # smooth to busy; one upright


def megapixels(image: Image8) -> float:
    return image.shape[0] * image.shape[1] / 1e6


def quality_at(rate: Callable[[float], float], bpp: float, steps: int = 7, tolerance: float = 0.01) -> float:
    """The quality, 0 to 100, at which `rate` (bits per pixel, rising) is `bpp`: bisection, ended after `steps` or within the tolerance."""
    low, high = 0.0, 100.0
    for _ in range(steps):
        middle = (low + high) / 2
        found = rate(middle)
        if abs(found / bpp - 1) <= tolerance:
            return middle
        low, high = (middle, high) if found < bpp else (low, middle)
    return (low + high) / 2


def mean_rate(codec: Peer, images: Sequence[Image8]) -> float:
    return sum(bits_per_pixel(len(codec.encode(i)), i.shape) for i in images) / len(images)


Runs = dict[str, dict[str, list[float]]]  # "encode", "decode" -> name -> megapixels a second, one a run


def speeds(peers: Sequence[Peer], images: Sequence[Image8], repeats: int) -> Runs:
    """Speed of every run, [images * repeats] numbers for each peer in the same order. On the first image a round more, not counted."""
    found: Runs = {d: {p.name: [] for p in peers} for d in ("encode", "decode")}
    for number, image in enumerate(images):
        calls: dict[str, dict[str, Callable[[], object]]] = {
            "encode": {p.name: partial(p.encode, image) for p in peers},
            "decode": {p.name: partial(p.decode, p.encode(image)) for p in peers},
        }
        for direction, candidates in calls.items():
            for name, seconds in interleaved(candidates, repeats, warm_up=number == 0).items():
                found[direction][name] += [megapixels(image) / s for s in seconds]
    return found


def scaling(codec: Peer, images: Sequence[Image8], sides: Sequence[int], repeats: int) -> list[dict[str, float]]:
    """One row a size: megapixels, bits per pixel, median seconds a megapixel both ways. From 20 megapixels on a single run."""
    rows = []
    for side in sides:
        image = mosaic(images, side)
        size = megapixels(image)
        times = repeats if size < 20 else 1
        blob = codec.encode(image)
        encode, decode = (medians(interleaved({"": call}, times, warm_up=False))[""] for call in _both(codec, image, blob))
        rows.append(
            {
                "megapixels": round(size, 2),
                "bpp": round(bits_per_pixel(len(blob), image.shape), 4),
                "encode_s_per_mp": round(encode / size, 4),
                "decode_s_per_mp": round(decode / size, 4),
            }
        )
        print(rows[-1], flush=True)
    return rows


def _both(codec: Peer, image: Image8, blob: bytes) -> tuple[Callable[[], object], Callable[[], object]]:
    return partial(codec.encode, image), partial(codec.decode, blob)


def result(runs: Runs, ours: str, about: dict[str, Any]) -> dict[str, Any]:
    """What `eval/figures/speed.json` holds. ratio: our speed over theirs, above 1 is better for us."""
    names = list(runs["encode"])
    return {
        **about,
        "megapixels_per_second": {n: {d: round(median(runs[d][n]), 3) for d in runs} for n in names},
        "ratio": {n: {d: round(paired_ratio(runs[d][ours], runs[d][n]), 3) for d in runs} for n in names if n != ours},
    }


def markdown(figures: dict[str, Any]) -> str:
    """The README's table, from the figures alone."""
    rows = [[n, f"{s['encode']:.2f}", f"{s['decode']:.2f}"] for n, s in figures["megapixels_per_second"].items()]
    rows += [[f"ratio to {n}", f"{r['encode']:.2f}", f"{r['decode']:.2f}"] for n, r in figures["ratio"].items()]
    text = table(["megapixels a second", "encode", "decode"], rows)
    if figures.get("scaling"):
        cells = [[f"{r['megapixels']:g}", f"{r['encode_s_per_mp']:.2f}", f"{r['decode_s_per_mp']:.2f}"] for r in figures["scaling"]]
        text += "\n\n" + table(["megapixels", "encode, s a megapixel", "decode, s a megapixel"], cells)
    return (
        f"{text}\n\n{len(figures['images'])} Kodak images, ours at {figures['bpp']:.2f} bits per pixel, {figures['threads']} threads, "
        f"array to bytes and back; candidates take turns, medians of {figures['repeats']} runs an image."
    )


def run(arguments: argparse.Namespace, peers: Sequence[Peer] | None = None) -> dict[str, Any]:
    """Measure, write figures, print the table. peers: what to stand beside, CompressAI unless given."""
    import torch

    torch.set_num_threads(arguments.threads)
    images = [read_rgb(p) for p in image_paths(arguments.kodak, arguments.images)]
    codec = _at_rate(arguments, images)
    beside = list(peers) if peers is not None else [] if arguments.alone else [FactorizedPeer()]
    measured = speeds([codec, *beside], images, arguments.repeats)
    sides = [*SIDES, LARGE] if arguments.large else list(SIDES)
    about = {
        "command": arguments.command,
        "codecs": {p.name: {"setting": p.setting, **p.versions} for p in (codec, *beside)},
        **environment(),
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "images": arguments.images,
        "bpp": round(mean_rate(codec, images), 4),
        "scaling": [] if arguments.no_scaling else scaling(codec, images, sides, arguments.repeats),
    }
    figures = result(measured, codec.name, about)
    write_figures(arguments.figures, figures)
    text = markdown(figures)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, "speed", text)
    return figures


def _at_rate(arguments: argparse.Namespace, images: Sequence[Image8]) -> OwnCodec:
    codec = OwnCodec(codec=arguments.codec, quality=50, effort=arguments.effort)
    if arguments.quality is not None:
        return replace(codec, quality=arguments.quality)
    return replace(codec, quality=quality_at(lambda q: mean_rate(replace(codec, quality=q), images), arguments.bpp))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_speed", description="speed beside CompressAI, and against size")
    parser.add_argument("--kodak", type=Path, default=kodak_folder(), help="folder of the PNGs (default: %(default)s)")
    parser.add_argument("--images", nargs="+", default=list(IMAGES), metavar="NAME")
    parser.add_argument("--codec", default="walloc-rgb")
    parser.add_argument("--effort", type=int, default=2)
    parser.add_argument("--bpp", type=float, default=0.5, help="rate at which ours is timed")
    parser.add_argument("--quality", type=float, default=None, help="quality at which ours is timed, instead of a search for --bpp")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without CompressAI")
    parser.add_argument("--no-scaling", action="store_true", help="without the large images")
    parser.add_argument("--large", action="store_true", help="up to 100 megapixels")
    parser.add_argument("--figures", type=Path, default=FOLDER / "speed.json")
    parser.add_argument("--readme", type=Path, default=None, help="file whose figures:speed block is replaced")
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_speed", *argv])
    return arguments


def main() -> None:
    try:
        run(parse(sys.argv[1:]))
    except LatentpressError as error:
        raise SystemExit(f"bench-speed: {error}") from error


if __name__ == "__main__":
    main()
