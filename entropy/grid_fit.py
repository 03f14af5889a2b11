"""What the network cannot know of one image or field: a linear correction of its locations and scales, fitted by the encoder and sent.

    location + floor(sum of coefficient * feature / 128 + 1/2)        in 1/16
    scale + offset + bend of the scale's class                        in 1/8 octaves

Of each channel of each lane of each group that has points enough. Features are what both sides know: the neighbours beside the mean of the nearest
four, of this channel and the others; of the channels before what they are here, and by how much the prediction missed; how much it missed the
nearest four; one. Least squares on a sample of the points, weighted by the expected deviation, large misses less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.grid_network import LOCATION, LOG_STEPS, UNITS

UNIT = 128  # coefficients count 1/128
FLOAT32_PEAK = 255  # samples of which a float32 carrier holds all sums, with
MOST, MOST_SUM = 127, 2047  # largest coefficient, and sum of magnitudes
OTHERS = 8  # nearest places of another channel
NEAREST = 4
MOST_OFFSET = 7  # of the scale
MOST_BEND = 15
EDGES = (-12, -6, -2, 2, 8)  # of the classes of scales
PIVOT_STEP, PIVOTS = 4, 64
LEAST_POINTS = 1024  # of a lane: fewer are not worth it
SAMPLE = 24576  # points that the encoder looks at, about: half of their rows to fit, the others to judge
FLOOR = 0.7  # deviation, in units or steps, below which all points weigh the same
ROBUST = 2.0  # deviations beyond which a miss weighs less
RIDGE = 1e-3
CLAMP = 4095  # of misses in a float32 carrier


Part = tuple[slice, slice]
WHOLE = slice(None), slice(None)


@dataclass(frozen=True)
class Fit:
    """offset: of the scale; coefficients int32 [features], or None where locations stay; bends: what is added to scales of each class, counted from
    4 * pivot, or none."""

    offset: int
    coefficients: NDArray[np.int32] | None = None
    bends: tuple[int, ...] = ()
    pivot: int = 0

    def scaled(self, scale: NDArray[np.int32], last: int) -> NDArray[np.int32]:
        """Scales after it, 0 to `last`."""
        out = scale + np.int32(self.offset)
        if self.bends:
            out += np.array(self.bends, np.int32)[classes(scale, self.pivot)]
        return np.clip(out, 0, last, out=out)


def classes(scale: NDArray[np.int32], pivot: int) -> NDArray[np.intp]:
    """Class of each scale: how many EDGES above 4 * pivot it reaches."""
    found: NDArray[np.intp] = np.searchsorted(np.array(EDGES) + PIVOT_STEP * pivot, scale, side="right")
    return found


@dataclass(frozen=True)
class Feature:
    """unit * (values - less) in 1/16, [rows, columns]."""

    values: Tensor
    unit: int
    less: int | None = None  # index among `totals`


@dataclass(frozen=True)
class Around:
    """What the points of one channel of one lane see. quarters, misses: values of each place, [rows, columns], by channel; totals: sums of the
    nearest four, by channel; here, missed: 4 x and misses of the channels before."""

    quarters: Sequence[Sequence[Tensor]]
    misses: Sequence[Tensor]
    totals: Sequence[Tensor]
    here: Sequence[Tensor]
    missed: Sequence[Tensor]
    channel: int
    narrow: bool  # whether a float32 carrier holds the sums

    def features(self, part: Part = WHOLE) -> list[Feature]:
        """In the order of the coefficients."""
        found = [Feature(v[part], 4, self.channel) for v in self.quarters[self.channel]]
        for other, places in enumerate(self.quarters):
            if other != self.channel:
                found += [Feature(v[part], 4, other) for v in places[:OTHERS]]
        found += [Feature(v[part], 4, m) for m, v in enumerate(self.here)]
        found += [Feature(self._clamped(v[part]), 1) for v in (*self.missed, *self.misses)]
        return [*found, Feature(torch.ones_like(self.totals[0][part]), LOCATION)]

    @property
    def count(self) -> int:
        own, others = len(self.quarters[self.channel]), len(self.quarters) - 1
        return own + OTHERS * others + len(self.here) + len(self.missed) + len(self.misses) + 1

    def _clamped(self, misses: Tensor) -> Tensor:
        return misses.clamp(-CLAMP, CLAMP) if self.narrow else misses

    def correction(self, coefficients: NDArray[np.int32], part: Part = WHOLE) -> Tensor:
        """float [rows, columns], whole numbers of 1/16. Exact in any order: see MOST_SUM."""
        out = torch.zeros_like(self.totals[0][part], dtype=torch.float32 if self.narrow else torch.float64)
        less = [0] * len(self.totals)
        for c, feature in zip(coefficients.tolist(), self.features(part), strict=True):
            if c:
                out.add_(feature.values, alpha=c * feature.unit)
                if feature.less is not None:
                    less[feature.less] += c * feature.unit
        for total, c in zip(self.totals, less, strict=True):
            if c:
                out.add_(total[part], alpha=-c)
        return out.add_(UNIT // 2).div_(UNIT).floor_()


def corrected(
    around: Around, location: NDArray[np.int32], coefficients: NDArray[np.int32] | None, limit: int, part: Part = WHOLE
) -> NDArray[np.int32]:
    """Locations after a fit [rows, columns], magnitudes up to `limit` (where there are coefficients)."""
    if coefficients is None:
        return location[part]
    moved = around.correction(coefficients, part).clamp_(-limit, limit).to(torch.int32).numpy()
    return np.clip(location[part] + moved, -limit, limit)


def sampled(rows: int, columns: int) -> Part:
    """Evenly spaced points, about SAMPLE of them."""
    step = max(1, round(math.sqrt(rows * columns / SAMPLE)))
    return slice(None, None, step), slice(None, None, step)


def least_squares(around: Around, part: Part, miss: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.int32]:
    """Coefficients for misses [n] in units at the sampled points (NaN: none there), given the deviations that are expected."""
    features = around.features(part)
    kept = torch.from_numpy(np.flatnonzero(~np.isnan(miss)))
    weight = 1 / deviation[kept.numpy()]
    target = miss[kept.numpy()]
    weight *= np.minimum(1, ROBUST / np.maximum(np.abs(target) * weight, 1e-9))
    matrix = torch.empty(len(features) + 1, len(kept))  # torch's product, as it keeps to the thread that calls
    for row, f in zip(matrix, features, strict=False):
        values = f.values if f.less is None else f.values - around.totals[f.less][part]
        row[:] = values.reshape(-1)[kept] * (f.unit / LOCATION)
    matrix[-1] = torch.from_numpy(target)
    matrix *= torch.from_numpy(weight)
    products = (matrix @ matrix.T).double().numpy()
    gram, with_target = products[:-1, :-1], products[:-1, -1]
    gram[np.diag_indices_from(gram)] += RIDGE * (1 + np.diag(gram))
    found = np.linalg.solve(gram, with_target)
    whole: NDArray[np.int32] = np.clip(np.round(found * UNIT), -MOST, MOST).astype(np.int32)
    return whole


def expected(scale: NDArray[np.int32], step: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Deviations in units, at least FLOOR of a step."""
    out: NDArray[Any] = np.maximum(2.0 ** ((scale - UNITS) / LOG_STEPS), FLOOR * step)
    return out
