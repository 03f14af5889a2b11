"""What coding costs as circuits grow: processor time a sample and an edge for more variables and for more states, with the slope.

    python -m latentpress.eval.bench_circuit_cost --readme README.md        writes eval/figures/circuit-cost.json and docs/circuit-cost.svg

Circuits are random (cost does not depend on what they learned), values are drawn with four fifths at 0 as in images of digits. An edge of M states
costs 2 M**2 multiplications each way; slopes are those of log(seconds a sample) over log(variables), where 1 is linear, and over log(M), where 2
would be all multiplications.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.entropy.circuit_exact import LEAF_BITS, IntegerCircuit, carrier_of, decode_block, encode_block
from latentpress.entropy.circuit_symbols import COUNT
from latentpress.entropy.circuit_tree import Tree
from latentpress.eval.figures import FOLDER, environment, write_figures
from latentpress.eval.readme import table, write_block

VARIABLES = (98, 196, 392, 784, 1568)
STATES = (8, 16, 32, 64)
VALUES, BITS = 256, 12


def random_circuit(variables: int, states: int, seed: int = 0) -> IntegerCircuit:
    """Three in four nodes go on with a path, one branches off."""
    draw = np.random.default_rng(seed)
    parents = [-1, *(max(0, k - 1 - int(draw.integers(0, 4))) for k in range(1, variables))]
    tree = Tree(np.maximum.accumulate(np.array(parents, np.int64)), np.arange(variables))
    weights = draw.random((variables, states, states)) ** 8 + 1e-6
    transitions = (weights / weights.sum(2, keepdims=True) * (1 << BITS)).astype(np.int64)
    leaves = draw.random((variables, VALUES, states)) ** 4 * (1 << 10) + 1
    leaves[:, 0] = 1 << LEAF_BITS - 1
    root = np.full((1, states), (1 << BITS) // states)
    return IntegerCircuit(tree, np.array([COUNT]), root, transitions[None], leaves.astype(np.int32), BITS)


def values_of(variables: int, samples: int, seed: int = 0) -> NDArray[np.int64]:
    draw = np.random.default_rng(seed)
    return np.where(draw.random((variables, samples)) < 0.8, 0, draw.integers(0, VALUES, (variables, samples)))


def measure(variables: int, states: int, samples: int, repeats: int) -> dict[str, Any]:
    """One row, in processor time of one thread; medians of `repeats`."""
    carrier, nodes = carrier_of(random_circuit(variables, states)), values_of(variables, samples)
    encode, decode = [], []
    for _ in range(repeats):
        start = time.process_time()
        blob = encode_block(carrier, nodes)
        middle = time.process_time()
        decode_block(carrier, samples, blob)
        encode.append((middle - start) / samples)
        decode.append((time.process_time() - middle) / samples)
    row: dict[str, Any] = {"variables": variables, "states": states}
    for name, seconds in (("encode", median(encode)), ("decode", median(decode))):
        row |= {f"{name}_us_a_sample": round(1e6 * seconds, 1), f"{name}_ns_an_edge": round(1e9 * seconds / max(1, variables - 1), 1)}
    return row


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Of a line through the logarithms: 1 where cost grows as size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def slopes(rows: Sequence[dict[str, Any]], over: str) -> dict[str, float]:
    """Of encoding and decoding over "variables" or "states"."""
    return {name: round(slope([r[over] for r in rows], [r[f"{name}_us_a_sample"] for r in rows]), 3) for name in ("encode", "decode")}


def plot(parts: Mapping[str, Sequence[dict[str, Any]]], target: Path) -> None:
    """parts: rows in which only "variables", or only "states", differ."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(parts), figsize=(8, 3.5), sharey=True, squeeze=False)
    for axes, (over, rows) in zip(panels[0], parts.items(), strict=True):
        found = slopes(rows, over)
        for name in ("encode", "decode"):
            axes.loglog([r[over] for r in rows], [r[f"{name}_us_a_sample"] for r in rows], "o-", label=f"{name}: slope {found[name]:.2f}")
        axes.set(xlabel=over)
        axes.legend(frameon=False)
    panels[0][0].set(ylabel="microseconds a sample")
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    pyplot.close(figure)


def block(figures: dict[str, Any]) -> str:
    """The README's table."""
    header = ["variables, states", "encode, \u00b5s a sample", "decode, \u00b5s a sample", "encode, ns an edge", "decode, ns an edge"]
    lines = [[f"{r['variables']}, {r['states']}", *(f"{r[k]:.0f}" for k in _COSTS)] for r in figures["rows"]]
    v, s = figures["slope_over_variables"], figures["slope_over_states"]
    text = (f"Slope of log cost over log variables: {v['encode']:.2f} to encode, {v['decode']:.2f} to decode; over log states: {s['encode']:.2f}, "
            f"{s['decode']:.2f}. Processor time of one thread, {figures['samples']} samples, medians of {figures['repeats']}.")  # fmt: skip
    return f"{table(header, lines)}\n\n{text}"


_COSTS = ("encode_us_a_sample", "decode_us_a_sample", "encode_ns_an_edge", "decode_ns_an_edge")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    middle = arguments.variables[-2]
    pairs = [*((v, 32) for v in arguments.variables), *((middle, s) for s in arguments.states if s != 32)]
    rows = [measure(v, s, arguments.samples, arguments.repeats) for v, s in pairs]
    of_middle = [r for r in rows if r["variables"] == middle]
    parts = {"variables": [r for r in rows if r["states"] == 32], "states": sorted(of_middle, key=lambda r: r["states"])}
    about = {"command": arguments.command, "samples": arguments.samples, "threads": 1, "repeats": arguments.repeats}
    figures = about | {f"slope_over_{over}": slopes(part, over) for over, part in parts.items()} | {"rows": rows} | environment()
    write_figures(arguments.figures, figures)
    plot(parts, arguments.plot)
    text = block(figures)
    print(text)
    if arguments.readme:
        write_block(arguments.readme, "circuit-cost", text)
    return figures


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_circuit_cost", description="cost of coding as circuits grow")
    parser.add_argument("--variables", type=int, nargs="+", default=list(VARIABLES))
    parser.add_argument("--states", type=int, nargs="+", default=list(STATES))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figures", type=Path, default=FOLDER / "circuit-cost.json")
    parser.add_argument("--readme", type=Path, default=None, help="file whose figures:circuit-cost block is replaced")
    parser.add_argument("--plot", type=Path, default=Path("docs/circuit-cost.svg"))
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_circuit_cost", *argv])
    return arguments


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
