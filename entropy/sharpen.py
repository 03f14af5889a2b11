"""Tables fitted by counting: they start as those of a density, and the symbols that really occur sharpen them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.tables import Tables


class Counter:
    """Occurrences by row and symbol."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.flat = tables, np.zeros(len(tables.cdf), np.float64)

    def add(self, symbols: NDArray[np.int32], rows: NDArray[np.integer[Any]]) -> None:
        low, high = self.tables.low[rows], self.tables.high[rows]
        inside = np.where((symbols < low) | (symbols >= high), high, symbols) - low
        self.flat += np.bincount(self.tables.start[rows] + inside, minlength=len(self.flat))

    def counts(self) -> list[NDArray[np.float64]]:
        """One array a row, escapes last."""
        start = self.tables.start
        return [self.flat[start[r] : start[r + 1] - 1] for r in range(self.tables.rows)]


def sharpen(tables: Tables, counts: list[NDArray[np.float64]], strength: float, symmetric: bool) -> Tables:
    """Posterior mean of each row: its masses weigh `strength` observations. counts[r]: occurrences of each symbol of row r, escape last."""
    rows = []
    for r in range(tables.rows):
        seen = counts[r]
        if symmetric:
            seen = np.append((seen[:-1] + seen[-2::-1]) / 2, seen[-1])
        rows.append(tables.row_counts(r) / 2.0**24 * strength + seen)
    return Tables.from_masses(rows, [int(v) for v in tables.low])


def sharpened(tables: Tables, pushes: Iterable[tuple[NDArray[np.int32], NDArray[np.integer[Any]]]], strength: float) -> Tables:
    """`tables` after seeing (symbols, rows) pairs; rows that saw nothing stay as they were."""
    counter = Counter(tables)
    for symbols, rows in pushes:
        counter.add(symbols, rows)
    return sharpen(tables, counter.counts(), strength, False)
