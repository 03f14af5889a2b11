"""What coding costs as circuits grow: seconds a sample and nanoseconds an edge for more variables and for more states, with the slope.

    python -m latentpress.eval.bench_circuit_cost        writes eval/figures/circuit-cost.json and docs/circuit-cost.svg

Circuits are random (cost does not depend on what they learned), values are drawn with four fifths at 0 as in images of digits. An edge of M states
costs 2 M**2 multiplications each way; the slope is that of log(seconds a sample) over log(variables): 1 is linear.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.entropy.circuit_exact import LEAF_BITS, IntegerCircuit, carrier_of, decode_block, encode_block
from latentpress.entropy.circuit_tree import Tree
from latentpress.eval.figures import FOLDER, environment, write_figures

VARIABLES = (98, 196, 392, 784, 1568)
STATES = (16, 32, 64, 128)
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
    return IntegerCircuit(tree, np.full(states, (1 << BITS) // states), transitions, leaves.astype(np.int32), BITS)


def values_of(variables: int, samples: int, seed: int = 0) -> NDArray[np.int64]:
    draw = np.random.default_rng(seed)
    return np.where(draw.random((variables, samples)) < 0.8, 0, draw.integers(0, VALUES, (variables, samples)))


def measure(variables: int, states: int, samples: int, repeats: int) -> dict[str, Any]:
    """One row; medians of `repeats`."""
    carrier, nodes = carrier_of(random_circuit(variables, states)), values_of(variables, samples)
    encode, decode = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        blob = encode_block(carrier, nodes)
        middle = time.perf_counter()
        decode_block(carrier, samples, blob)
        encode.append((middle - start) / samples)
        decode.append((time.perf_counter() - middle) / samples)
    row: dict[str, Any] = {"variables": variables, "states": states}
    for name, seconds in (("encode", median(encode)), ("decode", median(decode))):
        row |= {f"{name}_us_a_sample": round(1e6 * seconds, 1), f"{name}_ns_an_edge": round(1e9 * seconds / max(1, variables - 1), 1)}
    return row


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Of a line through the logarithms: 1 where cost grows as size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def plot(rows: Sequence[dict[str, Any]], target: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name in ("encode", "decode"):
        for states in sorted({r["states"] for r in rows}):
            part = [r for r in rows if r["states"] == states]
            if len(part) > 1:
                x, y = [r["variables"] for r in part], [r[f"{name}_us_a_sample"] for r in part]
                axes.loglog(x, y, "o-", label=f"{name}, {states} states: slope {slope(x, y):.2f}")
    axes.set(xlabel="variables", ylabel="microseconds a sample")
    axes.legend(frameon=False)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    pyplot.close(figure)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    pairs = [*((v, 32) for v in arguments.variables), *((arguments.variables[-2], s) for s in arguments.states if s != 32)]
    rows = [measure(v, s, arguments.samples, arguments.repeats) for v, s in pairs]
    grown = [r for r in rows if r["states"] == 32]
    slopes = {name: round(slope([r["variables"] for r in grown], [r[f"{name}_us_a_sample"] for r in grown]), 3) for name in ("encode", "decode")}
    about = {"command": arguments.command, "samples": arguments.samples, "threads": 1, "repeats": arguments.repeats}
    figures = about | {"slope_over_variables": slopes, "rows": rows} | environment()
    write_figures(arguments.figures, figures)
    plot(rows, arguments.plot)
    for row in rows:
        print(row)
    print("slopes", slopes)
    return figures


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_circuit_cost", description="cost of coding as circuits grow")
    parser.add_argument("--variables", type=int, nargs="+", default=list(VARIABLES))
    parser.add_argument("--states", type=int, nargs="+", default=list(STATES))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figures", type=Path, default=FOLDER / "circuit-cost.json")
    parser.add_argument("--plot", type=Path, default=Path("docs/circuit-cost.svg"))
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "latentpress.eval.bench_circuit_cost", *argv])
    return arguments


if __name__ == "__main__":
    run(parse(sys.argv[1:]))
