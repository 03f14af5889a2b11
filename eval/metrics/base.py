"""What a metric is: a function of reference and decoded signal, with a name for the row."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError, MissingExtraError


def _needs_nothing() -> None:
    """For metrics that need no extra."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of quality.

    name     of the row's field, and of the option's value ("psnr")
    measure  (reference, decoded) -> number. UnsupportedError for signals that it has no value for (too small, ...): the row then has null
             and says why. Both are arrays as the domain's reader gives them
    about    unit and direction, in one line
    prepare  loads what it needs, so that no measurement is charged with it; raises MissingExtraError where that is not installed
    module, extra   a module that it needs and the extra that brings it, "" for none: tells what is missing without loading anything
    default  measured unless metrics are named

    `measure` and `prepare` are functions of a module, so that they travel to worker processes.
    """

    name: str
    measure: Callable[[Any, Any], float]
    about: str
    prepare: Callable[[], None] = _needs_nothing
    module: str = ""
    extra: str = ""
    default: bool = False

    def check(self) -> None:
        """Raises MissingExtraError where its module is not installed."""
        if self.module and importlib.util.find_spec(self.module) is None:
            raise MissingExtraError(self.module, self.extra)


def check_pair(metric: str, reference: NDArray[Any], decoded: NDArray[Any]) -> None:
    """Raises InputError unless both are uint8 [height, width, 3] of one shape."""
    for array in (reference, decoded):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise InputError(f"{metric} of {array.dtype}{array.shape}: uint8 [height, width, 3] expected")
    if reference.shape != decoded.shape:
        raise InputError(f"{metric} of {reference.shape} and {decoded.shape}: shapes must agree")
