"""The coarsest grid of planes, which the network does not predict: differences along each row of the scan; and what both sides know beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.grid_closed import Steps, Targets
from latentpress.entropy.grid_network import COARSE
from latentpress.errors import FormatError

Planes = NDArray[np.int32]
BASE_SIDE = 8  # octaves go on until both sides of the coarsest grid are at most this


@dataclass(frozen=True)
class Sides:
    """What encoder and decoder both know of the samples: which exist, and how often each can be halved. None: all, and never. closed: shifts are
    those of the steps counted from predictions (COARSE where nothing is said)."""

    known: NDArray[np.bool_] | None
    shifts: NDArray[np.int32] | None
    closed: bool = False

    @classmethod
    def of(
        cls, shape: tuple[int, ...], known: NDArray[np.bool_] | None, shifts: NDArray[np.int32] | None, closed: bool = False
    ) -> Sides:
        """Raises ValueError for shapes that are not those of the planes, and for shifts outside 0 to 30."""
        if known is not None and (known.shape != shape or known.dtype != np.bool_):
            raise ValueError(f"known: {known.dtype}{known.shape}, bool{shape} expected")
        if shifts is not None and (shifts.shape not in (shape, shape[1:]) or shifts.dtype != np.int32):
            raise ValueError(f"shifts: {shifts.dtype}{shifts.shape}, int32{shape} or int32{shape[1:]} expected")
        if shifts is not None and shifts.size and not 0 <= shifts.min() <= shifts.max() <= 30:
            raise ValueError(f"shifts reach from {shifts.min()} to {shifts.max()}, 0 to 30 expected")
        if closed and shifts is None:
            shifts = np.full((1,) * len(shape), COARSE, np.int32)
        return cls(known, None if shifts is None else np.broadcast_to(shifts, shape), closed)

    def at(self, channel: int, points: tuple[slice, slice]) -> tuple[NDArray[np.intp] | None, NDArray[np.int32] | None]:
        """(flat indices of what is coded, flat shifts of all points)."""
        coded = None if self.known is None else np.flatnonzero(self.known[channel][points])
        return coded, None if self.shifts is None else self.shifts[channel][points].ravel()


def octaves_of(size: tuple[int, int]) -> int:
    """Octaves until both sides are at most BASE_SIDE."""
    return max(0, int(np.ceil(np.log2(max(size) / BASE_SIDE)))) if max(size) > BASE_SIDE else 0


@dataclass(frozen=True)
class BaseGrid:
    """peak: largest magnitude of a sample; size [h, w] of the planes."""

    peak: int
    size: tuple[int, int]
    sides: Sides

    @property
    def points(self) -> tuple[slice, slice]:
        step = 1 << octaves_of(self.size)
        return slice(None, None, step), slice(None, None, step)

    def counts(self, channels: int) -> list[int]:
        """Points that are coded, of each plane."""
        if self.sides.known is None:
            return [int(np.prod([-(-n // self.points[0].step) for n in self.size]))] * channels
        return [int(plane[self.points].sum()) for plane in self.sides.known]

    def aim(self, planes: Planes, targets: Targets) -> None:
        """Where steps are counted: the base grid of `planes` becomes the multiples of its steps that lie nearest to the targets."""
        for k in range(len(planes)):
            _, shifts = self.sides.at(k, self.points)
            if shifts is None:
                raise ValueError("targets without steps")
            base = planes[k][self.points]
            steps = Steps(np.zeros(base.size, np.int32), shifts)
            base[...] = steps.place(steps.nearest(targets.at(k, self.points))).reshape(base.shape)
            targets.settle(k, self.points, base)

    def symbols(self, planes: Planes) -> NDArray[np.int32]:
        """Flat differences of all coded points."""
        differences, base, last = [], planes[:, *self.points], 0
        for place, known, shift in self._scan(planes):
            last = last if any(place[1:]) else 0
            value = int(base[place]) if known else self._missing(last, shift)
            if known:
                differences.append((value >> shift) - (last >> shift))
            last = value
        return np.array(differences, np.int32)

    def fill(self, planes: Planes, differences: NDArray[np.int32]) -> None:
        """Inverse of `symbols`; missing points are filled in. Raises FormatError."""
        base, last, coded = planes[:, *self.points], 0, iter(differences.tolist())
        for place, known, shift in self._scan(planes):
            last = last if any(place[1:]) else 0
            if known:
                quotient = (last >> shift) + next(coded)
                if abs(quotient) > self.peak >> shift:
                    raise FormatError("damaged stream: a value is out of range")
                last = quotient << shift
            else:
                last = self._missing(last, shift)
            base[place] = last

    def _scan(self, planes: NDArray[Any]) -> Iterator[tuple[tuple[int, ...], bool, int]]:
        """Of each point of the base grid: where it is, whether it is coded, its shift."""
        shape = planes[:, *self.points].shape
        known = np.ones(shape, np.bool_) if self.sides.known is None else self.sides.known[:, *self.points]
        shifts = np.zeros(shape, np.int32) if self.sides.shifts is None else self.sides.shifts[:, *self.points]
        yield from zip(np.ndindex(shape), known.ravel().tolist(), shifts.ravel().tolist(), strict=True)

    def _missing(self, last: int, shift: int) -> int:
        """What stands for a missing point: the one before, as a multiple of 2**shift within the peak."""
        most = self.peak >> shift
        return min(max(last >> shift, -most), most) << shift
