"""Fits in the stream of their lane: a head, 0 where there is none, else offset + 8 and negative where coefficients follow; then 1 where bends follow,
else 0. Bends: the pivot in six flat bits, and they. Coefficients: the row that codes them in six flat bits, and they. Rows are those of shape 0 and
fraction 0."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.grid_fit import EDGES, MOST, MOST_BEND, MOST_OFFSET, MOST_SUM, PIVOTS, Fit
from latentpress.entropy.grid_tables import FIRST, ROWS, START, STEPS
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError

Push = tuple[NDArray[np.int32], NDArray[np.int32]]
ROW_BITS = 6
NEAR = 5  # rows to either side that are tried
HEAD_ROW = 12  # a scale of .35: no fit is cheap
HEAD_COST = 24.0  # bits of other heads, about
BEND_ROW = 21  # a scale of 1.7
PIVOT_BITS = 6
BENDS_COST = 28.0  # bits, about


def pushes_of(fit: Fit | None, tables: Tables, flat_rows: int) -> list[Push]:
    """flat_rows: the row of one flat bit."""
    if fit is None:
        return [_one(0, int(START[HEAD_ROW]))]
    head = fit.offset + MOST_OFFSET + 1
    out = [_one(head if fit.coefficients is None else -head, int(START[HEAD_ROW])), _one(int(bool(fit.bends)), int(START[HEAD_ROW]))]
    if fit.bends:
        out += [_one(fit.pivot, flat_rows + PIVOT_BITS - 1), (np.array(fit.bends, np.int32), np.full(len(fit.bends), START[BEND_ROW], np.int32))]
    if fit.coefficients is not None:
        row, _ = _best_row(fit.coefficients, tables)
        out += [_one(row, flat_rows + ROW_BITS - 1), (fit.coefficients, np.full(len(fit.coefficients), START[row], np.int32))]
    return out


def pulled(pull: Callable[[NDArray[np.int32]], NDArray[np.int32]], count: int, flat_rows: int) -> Fit | None:
    """Inverse of `pushes_of`: pull gives the symbols of rows; count: of coefficients. Raises FormatError."""

    def one(row: int) -> int:
        return int(pull(np.array([row], np.int32))[0])

    head = one(int(START[HEAD_ROW]))
    if not head:
        return None
    offset, bent, bends, pivot = abs(head) - MOST_OFFSET - 1, one(int(START[HEAD_ROW])), (), 0
    if bent == 1:
        pivot = one(flat_rows + PIVOT_BITS - 1)
        bends = tuple(pull(np.full(len(EDGES) + 1, START[BEND_ROW], np.int32)).tolist())
    if abs(offset) > MOST_OFFSET or bent not in (0, 1) or not 0 <= pivot < PIVOTS or max(map(abs, bends), default=0) > MOST_BEND:
        raise FormatError("damaged stream: no such fit")
    if head > 0:
        return Fit(offset, None, bends, pivot)
    row = one(flat_rows + ROW_BITS - 1)
    if not 0 <= row < ROWS:
        raise FormatError("damaged stream: a row is out of range")
    coefficients = pull(np.full(count, START[row], np.int32))
    if (np.abs(coefficients) > MOST).any() or int(np.abs(coefficients).sum()) > MOST_SUM:
        raise FormatError("damaged stream: a coefficient is out of range")
    return Fit(offset, coefficients, bends, pivot)


def coefficient_bits(tables: Tables, coefficients: NDArray[np.int32]) -> float:
    """What coefficients cost, with the head that announces them."""
    return HEAD_COST + ROW_BITS + _best_row(coefficients, tables)[1]


def _best_row(coefficients: NDArray[np.int32], tables: Tables) -> tuple[int, float]:
    """(row, bits): the best of those whose scale is near that of the coefficients."""
    guess = round(STEPS * math.log2(max(float(np.abs(coefficients).mean()), 0.1))) - FIRST
    rows = range(max(0, guess - NEAR), min(ROWS, guess + NEAR + 1))
    costs = [tables.bits(coefficients, np.full(len(coefficients), START[r], np.int32)) for r in rows]
    best = int(np.argmin(costs))
    return rows[best], costs[best]


def _one(value: int, row: int) -> Push:
    return np.array([value], np.int32), np.array([row], np.int32)
