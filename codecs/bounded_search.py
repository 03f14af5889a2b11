"""Which qualities of a base are worth a residual: those whose error lies in a certain proportion to the bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from latentpress.codecs.base import Codec, Encoded, Signal, Target
from latentpress.codecs.bounded_residual import Task, Values

# root of the mean squared error over the bound, where base and residual together are smallest as a rule (on training fields: .25 to .36);
# where no quality gets there, a residual costs more than the base saves
PART = 0.31
CLOSE, ROUNDS = 0.12, 4  # in the logarithm of that quotient
BESIDE = (-9.0, 9.0)  # qualities


@dataclass(frozen=True)
class Tried:
    """The base at a quality, and what it decodes to; error: root of the mean squared error over the bound."""

    coded: Encoded
    values: Values
    error: float


def tries(base: Codec, task: Task, *, several: bool) -> Iterator[Tried]:
    """The quality whose error is PART of the bound, the worst one if that is better, none if even the best is not; several: those beside it too.
    Raises what the base raises."""
    quality = 100.0
    best = at(base, task, quality)
    if not best.error <= PART:
        return
    low, found = 0.0, at(base, task, 0.0)
    ends = [(low, found.error), (quality, best.error)]
    quality = low
    for _ in range(ROUNDS if found.error > PART else 0):
        (a, error_a), (b, error_b) = ends
        share = math.log(error_a / PART) / max(math.log(error_a / max(error_b, 1e-9 * error_a)), 1e-9)
        quality = a + (b - a) * min(0.9, max(0.1, share))
        found = at(base, task, quality)
        if abs(math.log(max(found.error, 1e-300) / PART)) < CLOSE:
            break
        ends = [(quality, found.error), ends[1]] if found.error > PART else [ends[0], (quality, found.error)]
    yield found
    if several:
        yield from (at(base, task, quality + more) for more in BESIDE if 0 <= quality + more <= 100)


def at(base: Codec, task: Task, quality: float) -> Tried:
    coded = base.encode(Signal(data=task.for_base, dims=("plane", "y", "x")), Target(quality=quality))
    values = np.asarray(base.decode(coded).data)
    with np.errstate(over="ignore", invalid="ignore"):
        miss = values[task.known].astype(np.float64) - task.values[task.known].astype(np.float64)
    return Tried(coded, values, float(np.sqrt(np.mean(miss * miss))) / task.bound)
