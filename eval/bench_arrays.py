"""Lossless arrays of small images: circuits beside PNG, WebP, JPEG XL, JPEG 2000, xz, bz2 and zstd. `make bench-lossless` runs it.

Bits a dimension are 8 times the bytes on disk, headers included, divided by the number of samples' values; the model's own bytes are in a
column of their own, and counted in the one beside it. Every file is decoded and compared. Seconds are for 10,000 samples.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress import api
from latentpress.codecs.registry import load_codec, preset_directories
from latentpress.errors import LatentpressError
from latentpress.eval.array_peers import PEERS, versions
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.readme import table, write_block
from latentpress.formats.array import read_array

FILE = "t10k-images-idx3-ubyte.xz"
SETS = {"mnist": (f"mnist/{FILE}", "circuit-mnist"), "fashion-mnist": (f"fashion-mnist/{FILE}", "circuit-fashion")}
PER = 10_000


def measured(
    name: str, images: NDArray[np.uint8], encode: Callable[[], list[bytes]], decode: Callable[[list[bytes]], NDArray[Any]], model: int
) -> dict[str, Any]:
    """One row. model: bytes of the weights. Raises LatentpressError where a coder is not lossless."""
    start = time.perf_counter()
    files = encode()
    middle = time.perf_counter()
    decoded = decode(files)
    stop = time.perf_counter()
    if decoded.dtype != images.dtype or not np.array_equal(decoded, images):
        raise LatentpressError(f"{name} did not give the images back")
    size, scale = sum(map(len, files)), PER / len(images)
    return {"codec": name, "bytes": size, "bpd": round(8 * size / images.size, 4), "model_bytes": model,
            "bpd_with_model": round(8 * (size + model) / images.size, 4), "encode_s": round((middle - start) * scale, 2),
            "decode_s": round((stop - middle) * scale, 2)}  # fmt: skip


def own_row(preset: str, images: NDArray[np.uint8]) -> dict[str, Any]:
    codec = load_codec(preset)
    api.decode(api.encode(images[:2], codec=preset))  # tables are made once a process
    return measured(preset, images, lambda: [api.encode(images, codec=preset)], lambda files: api.decode(files[0]).data,
                    int(codec.describe()["weight_bytes"]))  # fmt: skip


def rows_of(images: NDArray[np.uint8], preset: str, peers: Sequence[str], threads: int) -> list[dict[str, Any]]:
    rows = [own_row(preset, images)] if preset in preset_directories() else []
    for name in peers:
        peer = PEERS[name]
        rows.append(measured(name, images, lambda p=peer: p.encode(images, threads), lambda f, p=peer: p.decode(f, images.shape, threads), 0))  # type: ignore[misc]
    return rows


def block(figures: Mapping[str, Any]) -> str:
    """The README's table."""
    header = ["set, codec", "bits a dimension", "with the model's bytes", "encode, s per 10,000", "decode, s per 10,000"]
    lines = [[f"{name}, {r['codec']}", f"{r['bpd']:.3f}", f"{r['bpd_with_model']:.3f}" if r["model_bytes"] else "",
              f"{r['encode_s']:.1f}", f"{r['decode_s']:.1f}"]
             for name, rows in figures["sets"].items() for r in rows]  # fmt: skip
    about = f"{figures['samples']} test images a set, {figures['threads']} threads; bytes on disk, every file decoded and compared."
    return f"{table(header, lines)}\n\n{about}"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(arguments.threads)
    sets = {}
    for name in arguments.sets:
        file, preset = SETS[name]
        images = np.ascontiguousarray(read_array(arguments.data / file).data[: arguments.samples])
        sets[name] = rows_of(images, preset, arguments.peers, arguments.threads)
        for row in sets[name]:
            print(name, row, flush=True)
    about = {"command": arguments.command, "samples": arguments.samples, "threads": arguments.threads}
    figures = about | {"sets": sets, "peers": versions()} | environment()
    write_figures(arguments.figures, figures)
    if arguments.readme:
        write_block(arguments.readme, "lossless-arrays", block(figures))
    return figures


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_arrays", description="lossless arrays of small images")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/arrays"))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--samples", type=int, default=PER)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figures", type=Path, default=FOLDER / "lossless-arrays.json")
    parser.add_argument("--readme", type=Path, default=None)
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_arrays", *argv])
    return arguments


def main() -> None:
    try:
        run(parse(sys.argv[1:]))
    except LatentpressError as error:
        raise SystemExit(f"bench-lossless: {error}") from error


if __name__ == "__main__":
    main()
