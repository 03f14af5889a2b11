"""The unbounded part: how small a field gets at a mean squared error of at most a given share of its variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import LatentpressError
from latentpress.eval.climate.coders import Coder, OwnCoder, PeerCoder
from latentpress.eval.climate.measure import Task, base, facts
from latentpress.eval.fields import Field
from latentpress.eval.metrics.fields_points import normalised_mse
from latentpress.eval.peers.fields import BOUNDED, PSNR
from latentpress.eval.rows import Row

LIMIT = 0.0164  # of the first point of VAEformer's paper
VARIABLES = ("t2m", "msl", "u10", "v10")
SPACINGS = (1.0, 0.25)  # degrees
STEPS = 6
PEERS = ("sz3", "zfp", "sperr")


@dataclass(frozen=True)
class Knob:
    """One way to trade size for error. encode: position 0 to 1 -> bytes; a higher position means a smaller file and a larger error."""

    name: str
    encode: Callable[[float], bytes]


@dataclass(frozen=True, kw_only=True)
class Found:
    blob: bytes
    decoded: NDArray[Any]
    knob: str
    nmse: float


def chosen(fields: Sequence[Field]) -> list[Field]:
    """Those variables on grids of those spacings."""
    return [f for f in fields if f.name.rpartition("/")[2] in VARIABLES and _spacing(f) in SPACINGS]


def _spacing(field: Field) -> float | None:
    return None if field.latitude is None else round(abs(float(field.latitude[1] - field.latitude[0])), 3)


def knobs(coder: Coder, field: Field) -> Iterator[Knob]:
    """Bounds from .05 to 10 deviations; for ours quality as well, for SPERR its PSNR mode."""
    std = field.std
    yield Knob("bound", lambda p: coder.encode(field, std * 0.05 * 200**p))
    if isinstance(coder, OwnCoder):
        yield Knob("quality", lambda p: coder.at_quality(field, 100 * (1 - p)))
    if coder.name == "sperr":
        span = float(np.nanmax(field.data)) - float(np.nanmin(field.data))
        middle = 10 * math.log10((span / std) ** 2 / LIMIT)
        yield Knob("PSNR", lambda p: PSNR.encode(field.data, middle + 4 - 8 * p))


def search(knob: Knob, coder: Coder, field: Field, limit: float, steps: int = STEPS) -> Found | None:
    """The smallest of the files met on a bisection of `steps` encodings whose error is within the limit, None where none is."""
    low, high, best = 0.0, 1.0, None
    for _ in range(steps):
        middle = (low + high) / 2
        blob = knob.encode(middle)
        decoded = coder.decode(blob)
        error = normalised_mse(field.data, decoded)
        if error > limit:
            high = middle
            continue
        low = middle
        if best is None or coder.size(blob) < coder.size(best.blob):
            best = Found(blob=blob, decoded=decoded, knob=f"{knob.name} at {middle:.4g}", nmse=error)
    return best


def smallest(task: Task) -> Row:
    """The row of the smallest file over all knobs of the task's coder that keeps the task's limit."""
    limit = LIMIT if task.limit is None else task.limit
    found, refused = [], ""
    for knob in knobs(task.coder, task.field):
        try:
            found.append(search(knob, task.coder, task.field, limit))
        except LatentpressError as error:
            refused = f"{knob.name}: {error}"
    best = min((f for f in found if f), key=lambda f: task.coder.size(f.blob), default=None)
    if best is None:
        return base(task) | {"status": "refused", "error": refused or "no setting keeps the limit"}
    row = facts(task, best.blob, 0.0, best.decoded) | {"nmse": best.nmse, "knob": best.knob}
    return {k: v for k, v in row.items() if k not in ("bound", "percent", "worst_over_bound", "exceedances")}


def tasks_of(fields: Sequence[Field], own: Sequence[Coder], peers: Sequence[str]) -> list[Task]:
    coders: list[Coder] = [*own, *(PeerCoder(peer=BOUNDED[n]) for n in PEERS if n in peers)]
    return [Task(coder=c, digest=c.digest, field=f, field_digest=f.digest, percent=0, limit=LIMIT) for f in chosen(fields) for c in coders]


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Field -> codec -> ratio, None where no setting kept the limit."""
    found: dict[str, dict[str, float | None]] = {}
    for r in rows:
        found.setdefault(r["item"], {})[r["codec"]] = round(r["ratio"], 2) if r["status"] == "ok" else None
    return found




def settings(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Field -> codec -> which knob gave the file, and where it stood."""
    found: dict[str, dict[str, str]] = {}
    for r in rows:
        found.setdefault(r["item"], {})[r["codec"]] = str(r.get("knob", r["error"]))
    return found
