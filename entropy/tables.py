"""Static coding tables: integer CDFs of 24 bits, made once and stored, never rebuilt from floats when a file is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRECISION = 24
TOTAL = 1 << PRECISION
MAX_SYMBOL = 1 << 30  # |symbol| stays below, so that the arithmetic of escapes fits int64 with room


@dataclass(frozen=True, eq=False)
class Tables:
    """R rows; row r codes the symbols low[r], low[r] + 1, ... and ends with an escape for all others.

    cdf    int32 [sum of row lengths]; each row rises strictly from 0 to 2**24
    start  int32 [R + 1]; row r is cdf[start[r]:start[r + 1]]
    low    int32 [R]
    Raises ValueError that names the first bad row.
    """

    cdf: NDArray[np.int32]
    start: NDArray[np.int32]
    low: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name in ("cdf", "start", "low"):
            if getattr(self, name).dtype != np.int32 or getattr(self, name).ndim != 1:
                raise ValueError(f"{name}: expected a flat int32 array")
        if len(self.start) != len(self.low) + 1 or self.start[0] != 0 or self.start[-1] != len(self.cdf):
            raise ValueError("start does not fit low and cdf")
        for r in range(len(self.low)):
            row = self.cdf[self.start[r] : self.start[r + 1]]
            if len(row) < 3 or row[0] != 0 or row[-1] != TOTAL or (np.diff(row) < 1).any():
                raise ValueError(f"row {r}: a CDF of at least one symbol and the escape, rising strictly from 0 to 2**{PRECISION}, expected")

    @classmethod
    def from_counts(cls, counts: Sequence[NDArray[Any]], low: Sequence[int]) -> Tables:
        """counts: one integer array a row, every entry >= 1, sums 2**24, the last entry being the escape."""
        rows = [np.concatenate([[0], np.cumsum(np.asarray(c, np.int64))]) for c in counts]
        start = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
        return cls(np.concatenate(rows).astype(np.int32), start.astype(np.int32), np.asarray(low, np.int32))

    @classmethod
    def from_masses(cls, masses: Sequence[NDArray[Any]], low: Sequence[int]) -> Tables:
        """masses: one array of non-negative floats a row (probabilities or histograms), the last entry being the escape."""
        return cls.from_counts([quantise_masses(m) for m in masses], low)

    @property
    def rows(self) -> int:
        return len(self.low)

    @cached_property
    def high(self) -> NDArray[np.int32]:
        """First symbol above each row, int32 [R]; also the symbol value that stands for the escape inside the coder."""
        return (self.low + np.diff(self.start) - 2).astype(np.int32)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Probability of each cdf entry in 2**-24; the entry at the end of each row is meaningless."""
        wide = self.cdf.astype(np.int64)
        return np.append(wide[1:] - wide[:-1], 0)

    def row_counts(self, row: int) -> NDArray[np.int64]:
        wide = self.cdf[self.start[row] : self.start[row + 1]].astype(np.int64)
        return wide[1:] - wide[:-1]

    def bits(self, symbols: NDArray[np.int32], rows: NDArray[np.integer[Any]]) -> float:
        """Ideal code length in bits of `symbols` under `rows`, escapes included: what the coder will need, within a fraction of a per mille."""
        return float(self.costs(symbols, rows).sum())

    def costs(self, symbols: NDArray[np.int32], rows: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """The same of each symbol."""
        low, high = self.low[rows], self.high[rows]
        escaped = (symbols < low) | (symbols >= high)
        inside = np.where(escaped, high, symbols) - low
        costs: NDArray[np.float64] = self._cost[self.start[rows] + inside]
        if escaped.any():
            excess = escape_value(symbols[escaped].astype(np.int64), low[escaped], high[escaped])
            costs[escaped] += 4 + bit_length(excess)
        return costs

    @cached_property
    def _cost(self) -> NDArray[np.float64]:
        return PRECISION - np.log2(np.maximum(self.counts, 1))

    def state(self, prefix: str) -> dict[str, NDArray[np.int32]]:
        return {f"{prefix}.{k}": getattr(self, k) for k in ("cdf", "start", "low")}

    @classmethod
    def from_state(cls, state: dict[str, Any], prefix: str) -> Tables:
        return cls(*(np.ascontiguousarray(np.asarray(state[f"{prefix}.{k}"]), dtype=np.int32) for k in ("cdf", "start", "low")))


def quantise_masses(mass: NDArray[Any]) -> NDArray[np.int64]:
    """Non-negative masses to integer counts >= 1 with the sum 2**24, each within about one count of its share."""
    mass = np.asarray(mass, np.float64)
    if mass.ndim != 1 or len(mass) < 2 or not np.isfinite(mass).all() or (mass < 0).any() or mass.sum() <= 0:
        raise ValueError("at least two finite masses >= 0 with a positive sum expected")
    counts = np.floor(mass / mass.sum() * (TOTAL - len(mass))).astype(np.int64) + 1
    counts[np.argmax(counts)] += TOTAL - counts.sum()
    return counts


def gaussian_masses(scale: float, *, tail: float = 2.0**-18) -> tuple[NDArray[np.float64], int]:
    """Masses of round(x) for x ~ N(0, scale**2), symmetric support that leaves at most `tail` to the escape; (masses, low)."""
    beyond = [math.erfc(-0.5 / scale * math.sqrt(0.5))]  # twice the mass above k - 1/2, for k = 0, 1, ...
    while len(beyond) < 3 or beyond[-1] > tail:
        beyond.append(math.erfc((len(beyond) - 0.5) / scale * math.sqrt(0.5)))
    upper = 0.5 * (np.array(beyond[:-1]) - np.array(beyond[1:]))
    reach = len(upper) - 1
    return np.append(np.concatenate([upper[:0:-1], upper]), beyond[-1]), -reach


def gaussian_tables(scales: Sequence[float]) -> Tables:
    """One row a scale (standard deviation in units of the quantisation step)."""
    rows = [gaussian_masses(s) for s in scales]
    return Tables.from_masses([m for m, _ in rows], [low for _, low in rows])


def escape_value(symbols: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.int64]:
    """Symbols outside [low, high) to 1, 2, 3, ...: odd above, even below, nearest first."""
    symbols = symbols.astype(np.int64)
    return np.where(symbols >= high, 2 * (symbols - high) + 1, 2 * (low.astype(np.int64) - 1 - symbols) + 2)


def escaped_symbol(value: NDArray[np.int64], low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.int64]:
    """Inverse of `escape_value`."""
    return np.where(value % 2 == 1, high + (value - 1) // 2, low.astype(np.int64) - value // 2)


def bit_length(value: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of binary digits of positive integers below 2**52."""
    return np.frexp(value.astype(np.float64))[1].astype(np.int64)
