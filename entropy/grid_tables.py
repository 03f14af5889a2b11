"""Coding tables of the hierarchical integer grid: (shape, scale, fraction of the location) -> a row.

A scale index counts quarter octaves. Small scales need the location finely (sixteenths), large ones not at all; scales above `WIDE` are coded
by the row of the scale some octaves below, and as many low bits of the residual go out flat: the mass within so short a span is flat.
Rows are symmetric mixtures of logistics when they are made, then sharpened by counting; they are stored, never rebuilt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.grid_network import LOCATION, LOG_STEPS, UNITS
from latentpress.entropy.tables import Tables

STEPS = 4  # scale rows an octave
FIRST = -18  # scale 2**(FIRST / STEPS): .044 of a unit
WIDE = 24  # scale 2**(WIDE / STEPS) = 64 is the widest row
ROWS = WIDE - FIRST + 1
LARGEST = LOG_STEPS * 32 - 1  # scales that the network gives reach it at most
FIRST_LOW = 2 * (WIDE + 1) + round(UNITS) - 1  # smallest scale of which bits go out flat
MAX_LOW = 12  # bits that one flat row codes
WIDE_LOW = 20  # bits that may go out flat where samples are wide, in two parts
Integers = NDArray[np.int32]


def fraction_bits(row: int) -> int:
    """How many bits of the location's fraction distinguish rows of this scale."""
    octave = (row + FIRST) / STEPS
    return 4 if octave < 0 else 3 if octave < 1 else 2 if octave < 2 else 1 if octave < 3 else 0


CLOSED_FIRST = -40  # of steps counted from the prediction: a smooth field's are next to certain
CLOSED_ROWS = WIDE - CLOSED_FIRST + 1  # the prediction is their middle: no fractions
BITS = np.array([fraction_bits(r) for r in range(ROWS)], np.int32)
START = np.concatenate([[0], np.cumsum(1 << BITS)]).astype(np.int32)
PER_SHAPE = int(START[-1])


@dataclass(frozen=True)
class Chosen:
    """For each point: base (what the residual is taken from), row of the tables, low (bits of the residual that go out flat)."""

    base: Integers
    row: Integers
    low: Integers

    def at(self, points: NDArray[np.intp]) -> Chosen:
        return Chosen(self.base[points], self.row[points], self.low[points])

    def among(self, first: int) -> Chosen:
        """With rows counted from `first`."""
        return Chosen(self.base, self.row + np.int32(first), self.low)


def choose(location: Integers, scale: Integers, max_low: int = MAX_LOW) -> Chosen:
    """location in 1/16, scale in 1/8 octaves above 1/48 of a unit (what the network gives, floored): flat int32 of one length. Rows are those
    of shape 0."""
    rows, beside, lows = _choices(max_low)
    key = scale << 4 | location & LOCATION - 1
    low = lows[scale] if len(scale) and scale.max() >= FIRST_LOW else np.zeros_like(scale)
    return Chosen((location >> 4) + beside[key], rows[key], low)


def choose_closed(scale: Integers, max_low: int = MAX_LOW) -> Chosen:
    """For steps counted from the prediction; scale in 1/8 octaves above 1/48 of a step, any integers: rows of shape 0 of the closed ones."""
    index = ((scale - round(UNITS) + 1) >> 1) - CLOSED_FIRST
    low = np.clip((index - CLOSED_ROWS + STEPS) // STEPS, 0, max_low).astype(np.int32)
    row = np.clip(index - low * STEPS, 0, CLOSED_ROWS - 1).astype(np.int32)
    return Chosen(np.where(low > 0, -((1 << low) >> 1), 0).astype(np.int32), row, low)


@cache
def _choices(max_low: int) -> tuple[Integers, Integers, Integers]:
    """What `choose` looks up: for (scale, fraction of the location) row and base beside the floored location, for scale the flat bits."""
    scale = np.arange(LARGEST + 1, dtype=np.int32)
    index = ((scale - round(UNITS) + 1) >> 1) - FIRST  # LOG_STEPS is twice STEPS
    low = np.clip((index - ROWS + STEPS) // STEPS, 0, max_low)
    row = np.clip(index - low * STEPS, 0, ROWS - 1)
    bits, location = BITS[row][:, None], np.arange(LOCATION, dtype=np.int32)
    step = LOCATION >> bits
    fine = location + (step >> 1) & -step
    flat = low[:, None] > 0
    base = np.where(flat, -((1 << low[:, None]) >> 1), fine >> 4)
    fraction = np.where(flat, 0, (fine & LOCATION - 1) >> 4 - bits)
    return (START[row][:, None] + fraction).astype(np.int32).ravel(), base.astype(np.int32).ravel(), low.astype(np.int32)


def scale_of(row: int, first: int = FIRST) -> float:
    return float(2.0 ** ((row + first) / STEPS))


def rows_of(shapes: int, closed: bool) -> int:
    """Rows that tables have: PER_SHAPE a shape, MAX_LOW flat ones, and where steps are counted from predictions CLOSED_ROWS a shape."""
    return shapes * (PER_SHAPE + (CLOSED_ROWS if closed else 0)) + MAX_LOW


def mixture_tables(weights: NDArray[np.float64], widths: NDArray[np.float64], tail: float = 2.0**-19, closed: bool = False) -> Tables:
    """weights, widths [shapes, components] (relative to the scale) -> rows in the order of `rows_of`; flat ones have 1 to MAX_LOW bits."""
    masses, lows = [], []

    def add(w: NDArray[np.float64], s: NDArray[np.float64], scale: float, fraction: float) -> None:
        mass, low = _logistics(w, np.maximum(s * scale, 0.04), fraction, tail)
        masses.append(mass)
        lows.append(low)

    for w, s in zip(weights, widths, strict=True):
        for row in range(ROWS):
            for fraction in range(1 << BITS[row]):
                add(w, s, scale_of(row), fraction / (1 << BITS[row]))
    for bits in range(1, MAX_LOW + 1):
        masses.append(np.append(np.full(1 << bits, 1.0), 1e-9))
        lows.append(0)
    for w, s in zip(weights, widths, strict=True) if closed else ():
        for row in range(CLOSED_ROWS):
            add(w, s, scale_of(row, CLOSED_FIRST), 0.0)
    return Tables.from_masses(masses, lows)


def _logistics(weights: NDArray[np.float64], widths: NDArray[np.float64], centre: float, tail: float) -> tuple[NDArray[np.float64], int]:
    reach = 2
    while (weights * _above(reach - 0.5 - centre, widths)).sum() > tail / 2:
        reach += max(1, reach // 8)
    edges = np.arange(-reach, reach + 2) - 0.5 - centre
    # differences of the nearer tail on either side keep small masses exact
    upper, lower = (_above(e[:, None], widths) @ weights for e in (edges, -edges))
    mass = np.where(edges[:-1] + edges[1:] > 0, upper[:-1] - upper[1:], lower[1:] - lower[:-1])
    return np.append(np.maximum(mass, 0), tail), -reach


def _above(x: NDArray[Any] | float, width: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mass of a logistic above x."""
    return 0.5 * (1 - np.tanh(x / width / 2))


assert LOG_STEPS == 2 * STEPS
