"""The encoder's side of fits: what a stage would cost with one, on a sample of its points."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.grid_base import Sides
from latentpress.entropy.grid_closed import Steps, Targets
from latentpress.entropy.grid_fit import (
    EDGES,
    MOST_OFFSET,
    MOST_SUM,
    PIVOT_STEP,
    PIVOTS,
    Fit,
    Part,
    classes,
    corrected,
    expected,
    least_squares,
    sampled,
)
from latentpress.entropy.grid_fit_coding import BENDS_COST, HEAD_COST, coefficient_bits
from latentpress.entropy.grid_network import LOCATION, LOG_STEPS
from latentpress.entropy.grid_tables import CLOSED_ROWS, PER_SHAPE, choose, choose_closed
from latentpress.entropy.grid_walk import Unfitted, nearest
from latentpress.entropy.tables import Tables

Integers = NDArray[np.int32]
OFFSETS = range(-MOST_OFFSET, MOST_OFFSET + 1)
LEAST_SAMPLE = 256
QUIET = 0.25  # bits a point below which locations stay: nearly all steps are 0 there, and what is decoded is what was predicted
WORTH = 1.1  # bits that coefficients must save on the whole stage for each that they cost


@dataclass(frozen=True)
class Sample:
    """Points of a stage that are looked at, flat: what the encoder wants there, and log2 of the steps that are coded."""

    want: NDArray[np.float64]
    shifts: Integers | None
    share: float  # of the stage

    def at(self, points: NDArray[np.bool_]) -> Sample:
        return Sample(self.want[points], None if self.shifts is None else self.shifts[points], self.share * float(points.mean()))


@dataclass(frozen=True)
class Search:
    """Chooses the fit of each stage. planes: integers to code; targets: real numbers instead, where steps are counted from predictions."""

    tables: Tables
    max_low: int
    first_closed: int
    peak: int
    sides: Sides
    planes: Integers
    targets: Targets | None = None

    def __call__(self, stage: Unfitted) -> Fit | None:
        part = sampled(*stage.location.shape)
        sample, inside = self._sample(stage, part)
        if len(sample.want) < LEAST_SAMPLE:
            return None
        location, scale = stage.location[part].ravel()[inside], stage.scale[part].ravel()[inside]
        judged = _odd_rows(stage.location[part].shape)[inside]
        half, near, spread = sample.at(judged), location[judged], scale[judged]
        before = self._cost(stage, near, spread, half)
        kept = None
        if before > QUIET * len(near):
            coefficients = self._coefficients(stage, part, inside, np.where(judged, np.nan, sample.want - location / LOCATION), scale, sample.shifts)
            moved = self._moved(stage, part, coefficients)[inside][judged] if 0 < int(np.abs(coefficients).sum()) <= MOST_SUM else near
            saved = (before - self._cost(stage, moved, spread, half)) / half.share
            if saved > WORTH * coefficient_bits(self.tables, coefficients):
                kept, near = coefficients, moved
        fit, cost = self._rescaled(stage, near, spread, half)
        worth = kept is not None or (before - cost) / half.share > HEAD_COST
        return dataclasses.replace(fit, coefficients=kept) if worth else None

    def _coefficients(
        self, stage: Unfitted, part: Part, inside: NDArray[np.bool_], miss: NDArray[np.float64], scale: Integers, shifts: Integers | None
    ) -> Integers:  # fmt: skip
        """Least squares on the coded points of a sample, of which those with a miss of NaN are left out."""
        misses, deviations = np.full(inside.size, np.nan), np.ones(inside.size)
        misses[inside] = miss
        deviations[inside] = expected(scale, 1.0 if shifts is None else np.ldexp(1.0, shifts))
        return least_squares(stage.around, part, misses, deviations)

    def _moved(self, stage: Unfitted, part: Part, coefficients: Integers) -> Integers:
        return corrected(stage.around, stage.location, coefficients, LOCATION * self.peak, part).ravel()

    def _sample(self, stage: Unfitted, part: Part) -> tuple[Sample, NDArray[np.bool_]]:
        """(sample, which of these points are coded)."""
        down, across = (slice(p.start, p.stop, (p.step or 1) * (q.step or 1)) for p, q in zip(stage.points, part, strict=True))
        points = down, across
        inside = np.ones(stage.location[part].size, np.bool_)
        if self.sides.known is not None:
            inside = self.sides.known[stage.channel][points].ravel()
        _, shifts = self.sides.at(stage.channel, points)
        if self.targets is not None:
            want = self.targets.at(stage.channel, points)
        else:
            want = self.planes[stage.channel][points].ravel().astype(np.float64)
        share = inside.size / stage.location.size
        return Sample(want[inside], None if shifts is None else shifts[inside], share), inside

    def _rescaled(self, stage: Unfitted, location: Integers, scale: Integers, sample: Sample) -> tuple[Fit, float]:
        """(fit of the scale alone, bits of the sample with it)."""
        pivot = int(np.clip(np.median(scale) // PIVOT_STEP, 0, PIVOTS - 1))
        kinds, count = classes(scale, pivot), len(EDGES) + 1
        costs = np.stack([
            np.bincount(kinds, self._costs(stage, location, Fit(o).scaled(scale, stage.last), sample), count) for o in OFFSETS
        ])  # fmt: skip
        single = int(costs.sum(1).argmin())
        offset, each = OFFSETS[single], costs.argmin(0)
        if (costs[single].sum() - costs.min(0).sum()) / sample.share < BENDS_COST:
            return Fit(offset), float(costs[single].sum())
        bends = tuple(OFFSETS[i] - offset for i in each)
        return Fit(offset, None, bends, pivot), float(costs.min(0).sum())

    def _cost(self, stage: Unfitted, location: Integers, scale: Integers, sample: Sample) -> float:
        return float(self._costs(stage, location, scale, sample).sum())

    def _costs(self, stage: Unfitted, location: Integers, scale: Integers, sample: Sample) -> NDArray[np.float64]:
        """Bits of each point of the sample."""
        shifts = sample.shifts
        if self.targets is None:
            values = sample.want.astype(np.int32)
            if shifts is not None:
                location, scale, values = location >> shifts, np.maximum(scale - LOG_STEPS * shifts, 0), values >> shifts
            chosen = choose(location, scale, self.max_low).among(stage.shape * PER_SHAPE)
        else:
            if shifts is None:
                raise ValueError("targets without steps")
            values = Steps(nearest(location, self.peak), shifts).nearest(sample.want)
            chosen = choose_closed(scale - LOG_STEPS * shifts, self.max_low).among(self.first_closed + stage.shape * CLOSED_ROWS)
        return self.tables.costs((values - chosen.base) >> chosen.low, chosen.row) + chosen.low


def _odd_rows(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Flat: points of neighbouring rows are alike, those in one row more so, so rows that were fitted do not judge."""
    return np.repeat(np.arange(shape[0]) % 2 == 1, shape[1])
