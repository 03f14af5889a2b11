"""The entropy coder alone, beside CompressAI's rANS: `make bench-coder`.

One million symbols, each drawn from one of 64 rounded Gaussians whose index is distributed as a hyperprior gives it: most elements nearly
certain, a long tail of uncertain ones. One thread; runs take turns; seconds are medians.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from latentpress.errors import LatentpressError
from latentpress.eval.coder_peers import CompressAICoder, OwnCoder, Rows, SymbolCoder, Symbols
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.timing import interleaved, paired_ratio

TABLES = 64


def scales() -> list[float]:
    """64 standard deviations, .11 to 256, evenly spaced in the logarithm: CompressAI's scale table."""
    return [float(s) for s in np.exp(np.linspace(np.log(0.11), np.log(256), TABLES))]


def draw(count: int, seed: int = 0) -> tuple[Symbols, Rows]:
    """symbols int32 [count], rows int32 [count]: rows ~ gamma of shape 1.5 and mean 12 cut at 63; symbols ~ round(N(0, scale[row]**2))."""
    random = np.random.default_rng(seed)
    rows = np.minimum(random.gamma(1.5, 8.0, count), TABLES - 1).astype(np.int32)
    symbols = np.rint(random.normal(0, 1, count) * np.array(scales())[rows]).astype(np.int32)
    return symbols, rows


def ideal_bytes(symbols: Symbols, rows: Rows) -> float:
    """Code length of the symbols under the distributions that they were drawn from, in bytes."""
    from scipy.special import ndtr

    scale = np.array(scales())[rows]
    distance = np.abs(symbols.astype(np.float64))  # by symmetry, so that both tails are lower tails and precise
    mass = ndtr((0.5 - distance) / scale) - ndtr((-0.5 - distance) / scale)
    return float(-np.log2(mass).sum() / 8)


KINDS = ("encode", "decode", "encode_from_array", "decode_to_array")
Seconds = dict[str, dict[str, list[float]]]  # kind -> coder -> one number a round


def blobs_of(coders: Sequence[SymbolCoder], symbols: Symbols, rows: Rows) -> dict[str, bytes]:
    """name -> bytes. Raises LatentpressError where a coder does not give the symbols back."""
    blobs = {}
    for coder in coders:
        ready = coder.prepare(rows)
        blobs[coder.name] = coder.encode(coder.prepare(symbols), ready)
        if not np.array_equal(coder.restore(coder.decode(blobs[coder.name], ready)), symbols):
            raise LatentpressError(f"{coder.name} did not give the symbols back")
    return blobs


def seconds_of(coders: Sequence[SymbolCoder], blobs: Mapping[str, bytes], symbols: Symbols, rows: Rows, repeats: int) -> Seconds:
    """encode, decode: the coder's own calls; encode_from_array, decode_to_array: with the conversion of arrays that these calls need."""
    calls: dict[str, dict[str, Callable[[], object]]] = {kind: {} for kind in KINDS}
    for coder in coders:
        for kind, call in _calls(coder, blobs[coder.name], symbols, rows).items():
            calls[kind][coder.name] = call
    return {kind: interleaved(candidates, repeats) for kind, candidates in calls.items()}


def _calls(coder: SymbolCoder, blob: bytes, symbols: Symbols, rows: Rows) -> dict[str, Callable[[], object]]:
    ready, ready_rows = coder.prepare(symbols), coder.prepare(rows)
    return {
        "encode": lambda: coder.encode(ready, ready_rows),
        "decode": lambda: coder.decode(blob, ready_rows),
        "encode_from_array": lambda: coder.encode(coder.prepare(symbols), coder.prepare(rows)),
        "decode_to_array": lambda: coder.restore(coder.decode(blob, coder.prepare(rows))),
    }


def result(blobs: Mapping[str, bytes], seconds: Seconds, ideal: float, about: dict[str, Any]) -> dict[str, Any]:
    """What `eval/figures/coder.json` holds. ratio: ours over theirs, below 1 is better for us."""
    ratios = {kind: round(paired_ratio(by["latentpress"], by["compressai"]), 4) for kind, by in seconds.items()}
    return {
        **about,
        "seconds": {n: {kind: round(median(seconds[kind][n]), 4) for kind in seconds} for n in blobs},
        "bytes": {n: len(b) for n, b in blobs.items()},
        "ideal_bytes": round(ideal),
        "excess_percent": {n: round(100 * (len(b) / ideal - 1), 4) for n, b in blobs.items()},
        "ratio": {"bytes": round(len(blobs["latentpress"]) / len(blobs["compressai"]), 4), **ratios},
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as text, one line a coder and one of ratios."""
    out = []
    for name, seconds in figures["seconds"].items():
        timings = ", ".join(f"{k.replace('_', ' ')} {v:.3f} s" for k, v in seconds.items())
        out.append(f"{name}: {figures['bytes'][name]} bytes ({figures['excess_percent'][name]:+.3f} % of the ideal), {timings}")
    return [*out, "ratio: " + ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in figures["ratio"].items())]


def run(arguments: argparse.Namespace, coders: Sequence[SymbolCoder] | None = None) -> dict[str, Any]:
    symbols, rows = draw(arguments.count)
    coders = coders or [OwnCoder(scales()), CompressAICoder(scales())]
    blobs = blobs_of(coders, symbols, rows)
    seconds = seconds_of(coders, blobs, symbols, rows, arguments.repeats)
    about = {"command": arguments.command, "symbols": arguments.count, "tables": TABLES, "threads": 1, "repeats": arguments.repeats}
    figures = result(blobs, seconds, ideal_bytes(symbols, rows), about | environment() | {"codecs": _versions()})
    write_figures(arguments.figures, figures)
    print("\n".join(lines(figures)))
    return figures


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("constriction", "compressai"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_coder", description="entropy coder beside CompressAI's")
    parser.add_argument("--count", type=int, default=1_000_000, help="symbols")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--figures", type=Path, default=FOLDER / "coder.json")
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_coder", *argv])
    return arguments


def main() -> None:
    try:
        run(parse(sys.argv[1:]))
    except LatentpressError as error:
        raise SystemExit(f"bench-coder: {error}") from error


if __name__ == "__main__":
    main()
