"""The hierarchical integer grid for real numbers: each is coded as so many steps from its own prediction, and comes back within half a step.

    target - base (the rounded prediction) --/ step, rounded--> steps --ANS--> bytes;  decoded = base + step * steps

Predictions see what was decoded, never the targets, so errors do not add up; and where a prediction lies within half a step nothing is left to
code, which integers at fixed places cannot offer: a smooth field crosses their edges all the time. This is how SZ3 quantises (Zhao et al., ICDE
2021, section IV), with learned predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Integers = NDArray[np.int32]


@dataclass
class Targets:
    """What the encoder wants of each point, and how it goes on from what was decoded.

    values float64 [c, h, w]; deltas [c]: plane n is coded as its difference from what the plane before decodes to; known bool [c, h, w] or None;
    before int [h, w]: what the plane before the first one decodes to, 0 where nothing is said.
    """

    values: Real
    deltas: tuple[bool, ...] = ()
    known: NDArray[np.bool_] | None = None
    before: NDArray[np.int64] | None = None
    decoded: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        planes, *size = self.values.shape
        self.deltas = self.deltas or (False,) * planes
        self.decoded = np.zeros((planes + 1, *size), np.int64)
        if self.before is not None:
            self.decoded[0] = self.before

    @property
    def reach(self) -> float:
        """Largest magnitude that is coded, at most."""
        most = float(np.abs(self.values if self.known is None else self.values[self.known]).max(initial=0.0))
        return max(2 * most + 1.0, most + float(np.abs(self.decoded[0]).max(initial=0))) if any(self.deltas) else most

    def at(self, channel: int, points: tuple[slice, ...]) -> Real:
        """Flat targets of some points of a plane."""
        target = self.values[channel][points]
        return (target - self.decoded[channel][points] if self.deltas[channel] else target).ravel()

    def settle(self, channel: int, points: tuple[slice, ...], integers: NDArray[Any]) -> None:
        """integers: what these points decode to, in the shape of `points`."""
        whole = integers + self.decoded[channel][points] if self.deltas[channel] else integers
        self.decoded[channel + 1][points] = whole if self.known is None else np.where(self.known[channel][points], whole, 0)


@dataclass(frozen=True)
class Steps:
    """Where steps are counted from and how wide they are, flat: origin int32, the rounded predictions; shifts int32, log2 of the steps."""

    origin: Integers
    shifts: Integers

    def at(self, points: NDArray[np.intp]) -> Steps:
        return Steps(self.origin[points], self.shifts[points])

    def nearest(self, target: Real) -> Integers:
        """Steps to the place nearest to the target."""
        return np.floor((target - self.origin) / np.ldexp(1.0, self.shifts) + 0.5).astype(np.int32)

    def place(self, steps: NDArray[Any]) -> NDArray[Any]:
        """Where so many steps lead."""
        return self.origin + (steps << self.shifts)
