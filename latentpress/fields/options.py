"""Bounds as the command line spells them: --var t2m:max-error=0.05 and --max-error-from spread.nc:t2m."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError
from latentpress.fields.sources import raw_dataset

_NUMBERS = {"max-error": "max_error", "max-rel-error": "max_rel_error", "quality": "quality", "q": "quality"}
_FORM = "--var {}: expected NAME:max-error=E, NAME:max-rel-error=R, NAME:quality=Q or NAME:lossless"


def variables_of(options: Iterable[str]) -> dict[str, dict[str, Any]]:
    """["t2m:max-error=0.05", "tp:lossless"] -> {"t2m": {"max_error": 0.05}, "tp": {"lossless": True}}. Raises InputError."""
    found: dict[str, dict[str, Any]] = {}
    for option in options:
        name, colon, setting = option.partition(":")
        key, equals, value = setting.partition("=")
        if not colon or not name or name in found:
            raise InputError(f"--var {option}: {name} is there twice" if name in found else _FORM.format(option))
        if setting == "lossless":
            found[name] = {"lossless": True}
        elif key == "max-error-from" and equals:
            found[name] = {"max_error": bounds_from(value)[1]}
        elif key in _NUMBERS and equals:
            found[name] = {_NUMBERS[key]: _number(value, option)}
        else:
            raise InputError(_FORM.format(option))
    return found


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--var {option}: {text!r} is no number") from None


def bounds_from(text: str) -> tuple[str, NDArray[np.float64]]:
    """"spread.nc:t2m" -> ("t2m", its values, decoded). Raises InputError for missing files and variables, and bounds that are no numbers."""
    import xarray

    file, colon, name = text.rpartition(":")
    if not colon or not file or not name:
        raise InputError(f"--max-error-from {text}: expected FILE:VARIABLE")
    dataset = xarray.decode_cf(raw_dataset(Path(file)), decode_times=False, drop_variables=())
    if name not in dataset.variables:
        raise InputError(f"{file}: no variable is called {name!r}; there are {', '.join(map(str, dataset.data_vars))}")
    values = np.asarray(dataset[name].values, np.float64)
    # where the spread is missing nothing says how much may be lost
    return name, np.where(np.isfinite(values), values, 0.0)
