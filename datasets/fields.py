"""Gridded fields as training data: NetCDF files of a folder -> triples of planes that belong together, each plane with mean 0 and deviation 1.

A triple is three consecutive steps along an axis before the last two (time, level, member), three variables on one grid at one place of those
axes, or one plane with two empty ones. What the network learns from it is how planes help each other, and how one stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError, MissingExtraError

Place = tuple[str, tuple[int, ...]]  # variable, index along its axes before the last two
LEAST_SIDE = 128  # smaller planes are continued by their mirror images
LEAST_COVER = 0.3  # of a plane that must not be missing


class FieldStacks:
    """The triples of all NetCDF files below a folder, in the order of paths. sizes: (h, w) of each; `load` gives float32 [3, h, w].

    scale: what `load` is divided by to be in units. Raises InputError where there are no fields.
    """

    scale = 1.0

    def __init__(self, folder: Path) -> None:
        self.entries: list[tuple[Path, tuple[Place | None, ...]]] = []
        self.sizes: list[tuple[int, int]] = []
        files = sorted([folder] if folder.is_file() else folder.rglob("*.nc"))
        for path in files:
            for places, size in _triples(path):
                self.entries.append((path, places))
                self.sizes.append((max(size[0], LEAST_SIDE), max(size[1], LEAST_SIDE)))
        if not self.entries:
            raise InputError(f"{folder}: no NetCDF file with fields of two dimensions; give a folder of .nc files")
        self._open: dict[Path, dict[str, NDArray[Any]]] = {}

    def load(self, index: int) -> Any:
        """float32 tensor [3, h, w]: mean 0 and deviation 1 where present, 0 where empty; missing points hold the nearest value along the row."""
        import torch

        path, places = self.entries[index]
        if path not in self._open:
            self._open[path] = dict(_variables(path))
        planes = [self._open[path][place[0]][place[1]] if place else None for place in places]
        first = next(p for p in planes if p is not None)
        full = [np.zeros(first.shape, np.float32) if p is None else normalised(p) for p in planes]
        return torch.from_numpy(np.stack([mirrored(p, LEAST_SIDE) for p in full]))


def _variables(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """(name, float array of two or more dimensions) of each variable."""
    try:
        import xarray
    except ImportError as error:
        raise MissingExtraError("xarray", "climate") from error
    try:
        with xarray.open_dataset(path, decode_times=False) as dataset:
            for name, variable in dataset.data_vars.items():
                if variable.ndim >= 2 and min(variable.shape[-2:]) >= 16 and variable.dtype.kind in "fiu":
                    yield str(name), variable.values.astype(np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable NetCDF file ({error}); remove it from the training data") from error


def _triples(path: Path) -> Iterator[tuple[tuple[Place | None, ...], tuple[int, int]]]:
    variables = {n: x for n, x in _variables(path)}
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, x in variables.items():
        by_shape.setdefault(x.shape, []).append(name)
        usable = [i for i in np.ndindex(x.shape[:-2]) if _usable(x[i])]
        for i in usable:
            yield ((name, i), None, None), x.shape[-2:]
            for axis in range(len(i)):
                chain = [tuple(v + k * (a == axis) for a, v in enumerate(i)) for k in range(3)]
                if all(c in usable for c in chain):
                    yield tuple((name, c) for c in chain), x.shape[-2:]
                    yield tuple((name, c) for c in reversed(chain)), x.shape[-2:]
    for shape, names in by_shape.items():
        for i in np.ndindex(shape[:-2]):
            here = [n for n in names if _usable(variables[n][i])]
            for k in range(len(here) if len(here) > 1 else 0):
                chosen = [(n, i) for n in (here[k:] + here[:k])[:3]]
                yield (*chosen, *[None] * (3 - len(chosen))), (shape[-2], shape[-1])


def _usable(plane: NDArray[Any]) -> bool:
    finite = np.isfinite(plane)
    return bool(finite.mean() > LEAST_COVER and np.ptp(plane[finite]) > 0)


def normalised(plane: NDArray[Any]) -> NDArray[np.float32]:
    finite = np.isfinite(plane)
    x = (plane - plane[finite].mean()) / plane[finite].std()
    return filled(x, finite).astype(np.float32)


def filled(plane: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Missing points get the nearest known value to their left along the scan, those before the first the first."""
    flat, at = plane.ravel(), np.where(known.ravel(), np.arange(plane.size), 0)
    at = np.maximum.accumulate(at)
    first = int(np.argmax(known.ravel()))
    return flat[np.where(np.arange(plane.size) < first, first, at)].reshape(plane.shape)


def mirrored(plane: NDArray[Any], least: int) -> NDArray[Any]:
    while min(plane.shape) < least:
        plane = np.pad(plane, [(0, min(max(0, least - n), n - 1)) for n in plane.shape], mode="reflect")
    return plane
