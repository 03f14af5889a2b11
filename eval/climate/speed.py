"""What coding a field costs: seconds at 721x1440, and per point from a sixteenth of it upwards, with a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from latentpress.errors import InputError, MissingExtraError
from latentpress.eval.climate.coders import Coder
from latentpress.eval.climate.measure import timed
from latentpress.eval.fields import Field
from latentpress.eval.measure import use_threads
from latentpress.eval.report.palette import LIGHT, MARKERS

STRIDES = (4, 2, 1)
PERCENT = 1.0
WAYS = ("encode", "decode")


def source(fields: Sequence[Field]) -> Field:
    """The field that costs are measured on: the first of one plane with 721 rows. Raises InputError where there is none."""
    for field in fields:
        if field.data.ndim == 2 and field.shape[0] == 721:
            return field
    raise InputError("no field of 721 rows to measure speed on: leave --parts speed out, or give more fields")


def thinned(field: Field, stride: int) -> Field:
    """Every so many rows and columns."""
    latitude = None if field.latitude is None else field.latitude[::stride]
    return replace(field, data=np.ascontiguousarray(field.data[::stride, ::stride]), latitude=latitude)


def costs(field: Field, coders: Sequence[Coder], threads: int, repeats: int = 3) -> list[dict[str, Any]]:
    """One entry a coder and size: medians over the repeats, of seconds by the clock and of processor seconds of all threads.

    On a busy machine the clock also counts the waiting; processor seconds do not, and are what costs per point are made of.
    Coders take turns, and a first round at the smallest size is not counted: tables are made once a process.
    """
    use_threads(threads)
    sizes = [thinned(field, s) for s in STRIDES]
    for coder in coders:
        coder.decode(coder.encode(sizes[0], sizes[0].std * PERCENT / 100))
    entries = []
    for small in sizes:
        taken: dict[str, list[dict[str, float]]] = {c.name: [] for c in coders}
        for _ in range(repeats):
            for coder in coders:
                taken[coder.name].append(_once(coder, small))
        entries += [_entry(c.name, small, threads, taken[c.name]) for c in coders]
    return entries


def _once(coder: Coder, field: Field) -> dict[str, float]:
    bound = field.std * PERCENT / 100
    blob, encode = timed(lambda: coder.encode(field, bound))
    _, decode = timed(lambda: coder.decode(blob))
    return {f"{way}_{k}": v for way, times in zip(WAYS, (encode, decode), strict=True) for k, v in times.items()}


def _entry(codec: str, field: Field, threads: int, taken: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    times = {k: round(median(t[k] for t in taken), 4) for k in taken[0]}
    least = {f"{way}_least_s": round(min(t[f"{way}_s"] for t in taken), 4) for way in WAYS}
    per_point = {f"{way}_us_per_point": round(1e6 * times[f"{way}_cpu_s"] / field.data.size, 4) for way in WAYS}
    return {"codec": codec, "shape": list(field.shape), "threads": threads, **times, **least, **per_point}


def slopes(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Codec -> way -> exponent of processor seconds in points: 1 means that cost per point is constant."""
    found: dict[str, dict[str, float]] = {}
    for codec in dict.fromkeys(e["codec"] for e in entries):
        own = [e for e in entries if e["codec"] == codec]
        points = [np.log(np.prod(e["shape"])) for e in own]
        found[codec] = {w: round(float(np.polyfit(points, np.log([max(e[f"{w}_cpu_s"], 1e-6) for e in own]), 1)[0]), 3) for w in WAYS}
    return found


def plot(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Microseconds of processor time a point against the number of points, both axes logarithmic. Raises MissingExtraError."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "bench") from error
    from latentpress.eval.report.static import STYLE

    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(6.4, 3), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, way in zip(panels, WAYS, strict=True):
            for i, codec in enumerate(dict.fromkeys(e["codec"] for e in entries)):
                line = [(np.prod(e["shape"]), e[f"{way}_us_per_point"]) for e in entries if e["codec"] == codec]
                axes.plot(*zip(*line, strict=True), MARKERS[i % 8] + "-", color=LIGHT[i % 8], label=codec)
            axes.set(xscale="log", yscale="log", title=way, xlabel="points of the field")
            sizes = {int(np.prod(e["shape"])): "x".join(map(str, e["shape"])) for e in entries}
            axes.set_xticks(list(sizes), list(sizes.values()), fontsize=7)
            axes.minorticks_off()
        panels[0].set_ylabel("processor time, µs a point")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
