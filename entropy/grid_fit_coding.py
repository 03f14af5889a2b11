"""Fits in the stream of their lane: a head, 0 where there is none, else offset + 8 and negative where coefficients follow; these name the row that
codes them (of shape 0, fraction 0, as the head's) in six flat bits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.grid_fit import MOST, MOST_OFFSET, MOST_SUM, Fit
from latentpress.entropy.grid_tables import FIRST, ROWS, START, STEPS
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError

Push = tuple[NDArray[np.int32], NDArray[np.int32]]
ROW_BITS = 6
NEAR = 5  # rows to either side that are tried
HEAD_ROW = 12  # a scale of .35: no fit is cheap
HEAD_COST = 24.0  # bits of other heads, about


def pushes_of(fit: Fit | None, tables: Tables, flat_rows: int) -> list[Push]:
    """flat_rows: the row of one flat bit."""
    head = 0 if fit is None else fit.offset + MOST_OFFSET + 1
    if fit is None or fit.coefficients is None:
        return [_one(head, int(START[HEAD_ROW]))]
    row, _ = _best_row(fit.coefficients, tables)
    coded = fit.coefficients, np.full(len(fit.coefficients), START[row], np.int32)
    return [_one(-head, int(START[HEAD_ROW])), _one(row, flat_rows + ROW_BITS - 1), coded]


def pulled(pull: Callable[[NDArray[np.int32]], NDArray[np.int32]], count: int, flat_rows: int) -> Fit | None:
    """Inverse of `pushes_of`: pull gives the symbols of rows; count: of coefficients. Raises FormatError."""
    head = int(pull(np.array([START[HEAD_ROW]], np.int32))[0])
    if not head:
        return None
    offset = abs(head) - MOST_OFFSET - 1
    if abs(offset) > MOST_OFFSET:
        raise FormatError("damaged stream: no such fit")
    if head > 0:
        return Fit(offset)
    row = int(pull(np.array([flat_rows + ROW_BITS - 1], np.int32))[0])
    if not 0 <= row < ROWS:
        raise FormatError("damaged stream: a row is out of range")
    coefficients = pull(np.full(count, START[row], np.int32))
    if (np.abs(coefficients) > MOST).any() or int(np.abs(coefficients).sum()) > MOST_SUM:
        raise FormatError("damaged stream: a coefficient is out of range")
    return Fit(offset, coefficients)


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
