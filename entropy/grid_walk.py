"""The walk of the hierarchical integer grid: an octave is three groups, a group lanes of rows, a lane its channels one after the other.

    features of all points of a group, strip by strip --> each lane: location, scale -> `code` -> samples -> the next channel

Behind its features no point of a group sees another one, so lanes run side by side on threads of their own, each with its own stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.grid_base import Sides
from latentpress.entropy.grid_closed import Steps, Targets
from latentpress.entropy.grid_fit import FLOAT32_PEAK, LEAST_POINTS, NEAREST, Around, Fit, corrected
from latentpress.entropy.grid_frozen import Buffers, FrozenGroup, GroupPass, Strips, even
from latentpress.entropy.grid_network import CHANNELS, LOCATION, LOG_STEPS, REACH
from latentpress.entropy.grid_tables import CLOSED_ROWS, PER_SHAPE, Chosen, choose, choose_closed

Planes = NDArray[np.int32]
CELLS = {"oo": (1, 1), "eo": (0, 1), "oe": (1, 0)}
LANE_POINTS = 1 << 12  # points that a group has at least before its rows are divided into lanes


def lanes_of(rows: int, columns: int, most: int) -> list[tuple[int, int]]:
    """(first row, row after the last) of each lane of a group of rows x columns points: `most` of them, as even as can be, or one."""
    count = most if rows * columns >= LANE_POINTS else 1
    return even((0, rows), count)


@dataclass(frozen=True)
class Stage:
    """One channel of one lane of one group: where its points are in the planes, which of them are coded (flat indices; None: all), their shifts
    (None: 0), what to code these with (flat, rows among all tables), and the steps that are counted in place of integers (None: none)."""

    lane: int
    channel: int
    points: tuple[slice, slice]
    coded: NDArray[np.intp] | None
    shifts: NDArray[np.int32] | None
    chosen: Chosen
    steps: Steps | None = None


@dataclass(frozen=True)
class Unfitted:
    """One channel of one lane as the network gives it. shape: of the rows; location, scale int32 [rows, columns]; last: the largest scale."""

    lane: int
    shape: int
    channel: int
    points: tuple[slice, slice]
    location: Planes
    scale: Planes
    around: Around
    last: int


@dataclass(frozen=True)
class Coding:
    """What a walk is made with. code: gives the quotients, or steps, of what a stage codes; fit: gives the fit of a lane's channel, None where
    there are no fits; first_closed: row of the tables where those of counted steps begin."""

    planes: Planes
    sides: Sides
    code: Callable[[Stage], Planes]
    fit: Callable[[Unfitted], Fit | None] | None
    aims: Targets | None
    peak: int
    max_low: int
    first_closed: int
    last_scale: int


@dataclass(frozen=True)
class _Lane:
    """Rows of a group, and where what is decoded goes: values [c, rows, columns], errors [3, rows, columns]. whole: all rows there are."""

    number: int
    group: int
    network: GroupPass
    signed: Mapping[str, Tensor]
    cell: tuple[int, int]
    rows: tuple[int, int]
    values: Tensor
    errors: Tensor
    whole: bool

    def around(self, channel: int, narrow: bool) -> Around:
        (y0, y1), columns, network = self.rows, self.values.shape[2], self.network

        def seen(planes: Mapping[str, Tensor], k: int, count: int | None = None) -> list[Tensor]:
            return [
                planes[source][k, REACH + dy + y0 : REACH + dy + y1, REACH + dx : REACH + dx + columns]
                for source, dy, dx in network.frozen.places[:count]
            ]

        return Around(
            quarters=[seen(network.quarters, k) for k in range(len(self.values))], misses=seen(self.signed, channel, NEAREST),
            totals=[t[y0:y1, :columns] for t in network.total], here=[4 * v[y0:y1] for v in self.values[:channel]],
            missed=[e[y0:y1] for e in self.errors[:channel]], channel=channel, narrow=narrow,
        )  # fmt: skip


@dataclass(frozen=True)
class Octave:
    """One octave of a walk: three groups, each seeing those before it. lanes: most of a group."""

    coding: Coding
    frozen: Mapping[str, FrozenGroup]
    octave: int
    buffers: Buffers
    runner: Strips
    lanes: int

    def run(self, misses: Tensor) -> Tensor:
        """By how much predictions missed the coarser grid, in 1/16, [3, h, w] in the carrier -> the same of this one."""
        step, carrier = 1 << self.octave, misses.dtype
        grid = self.coding.planes[:, ::step, ::step]
        half = (-(-grid.shape[1] // 2), -(-grid.shape[2] // 2))
        quarters = {"ee": framed(4 * torch.from_numpy(np.ascontiguousarray(grid[:, ::2, ::2])).to(carrier), half)}
        signed = {"ee": framed(misses, half)}
        missed = {"ee": signed["ee"].abs()}
        full = torch.zeros(CHANNELS, *grid.shape[1:], dtype=carrier)
        full[:, ::2, ::2] = misses
        for g, (name, (i, j)) in enumerate(CELLS.items()):
            inside = (grid.shape[1] - i + 1) // 2, (grid.shape[2] - j + 1) // 2
            if not min(inside):
                quarters[name], signed[name], missed[name] = quarters["ee"], signed["ee"], missed["ee"]
                continue
            network = GroupPass(self.frozen[name], quarters, missed, self.octave, self.buffers, self.runner, self.coding.sides.closed)
            values, errors = self._group(g, network, signed, (i, j), inside)
            quarters[name], signed[name] = framed(values.mul_(4), half), framed(errors, half)
            missed[name] = signed[name].abs()
            full[:, i::2, j::2] = errors
        return full

    def _group(
        self, g: int, network: GroupPass, signed: Mapping[str, Tensor], cell: tuple[int, int], inside: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(samples [c, rows, columns], misses in 1/16 [3, rows, columns])."""
        rows, columns = inside
        carrier = network.carrier
        values = torch.empty(len(self.coding.planes), rows, columns, dtype=carrier)
        errors = torch.zeros(CHANNELS, rows, columns, dtype=carrier)
        network.first()
        lanes = lanes_of(rows, columns, self.lanes)

        def one(lane: int) -> None:
            self._lane(_Lane(lane, g, network, signed, cell, lanes[lane], values, errors, whole=len(lanes) == 1))

        if len(lanes) == 1:
            one(0)
        else:
            self.runner.beside(one, range(len(lanes)))
        return values, errors

    def _lane(self, lane: _Lane) -> None:
        """All channels of some rows of a group, into its values and errors and into the planes."""
        (y0, y1), columns, network = lane.rows, lane.values.shape[2], lane.network
        step = 1 << self.octave
        points = slice((2 * y0 + lane.cell[0]) * step, 2 * y1 * step, 2 * step), slice(lane.cell[1] * step, None, 2 * step)
        for k, plane in enumerate(self.coding.planes):
            if k:
                network.next(k, lane.values[k - 1, y0:y1], None if lane.whole else lane.rows)
            place = lane.number, lane.group * CHANNELS + k, k
            location, scale = network.location[k, y0:y1, :columns], network.scale[k, y0:y1, :columns]
            if self.coding.fit is not None and location.numel() >= LEAST_POINTS:
                self._fit(place, points, location, scale, lane.around(k, self.coding.peak <= FLOAT32_PEAK))
            samples = self._steps if self.coding.sides.closed else self._samples
            found = samples(place, points, location.numpy().ravel(), scale.numpy().ravel()).reshape(y1 - y0, columns)
            plane[points] = found
            if self.coding.aims is not None:
                self.coding.aims.settle(k, points, found)
            lane.values[k, y0:y1] = torch.from_numpy(found)
            torch.sub(LOCATION * lane.values[k, y0:y1], location, out=lane.errors[k, y0:y1])

    def _fit(self, place: tuple[int, int, int], points: tuple[slice, slice], location: Tensor, scale: Tensor, around: Around) -> None:
        """Correct location and scale in place, so that all that follows sees them so."""
        stage = Unfitted(*place, points, location.numpy(), scale.numpy(), around, self.coding.last_scale)
        fit = self.coding.fit(stage) if self.coding.fit is not None else None
        if fit is not None:
            location.copy_(torch.from_numpy(corrected(around, stage.location, fit.coefficients, LOCATION * self.coding.peak)))
            scale.copy_(torch.from_numpy(fit.scaled(stage.scale, stage.last)))

    def _samples(self, place: tuple[int, int, int], points: tuple[slice, slice], location: Planes, scale: Planes) -> Planes:
        """Flat samples of a stage: what `code` gives, and predictions where nothing is coded. place: lane, shape of the rows, channel."""
        coding, (lane, shape, channel) = self.coding, place
        coded, shifts = coding.sides.at(channel, points)
        if shifts is not None:
            location, scale = location >> shifts, np.maximum(scale - LOG_STEPS * shifts, 0)
        chosen = choose(location, scale, coding.max_low).among(shape * PER_SHAPE)
        if coded is None:
            found = coding.code(Stage(lane, channel, points, None, shifts, chosen))
        else:
            found = nearest(location, coding.peak if shifts is None else coding.peak >> shifts)
            found[coded] = coding.code(Stage(lane, channel, points, coded, shifts if shifts is None else shifts[coded], chosen.at(coded)))
        return found if shifts is None else found << shifts

    def _steps(self, place: tuple[int, int, int], points: tuple[slice, slice], location: Planes, scale: Planes) -> Planes:
        """The same where steps are counted from rounded predictions."""
        coding, (lane, shape, channel) = self.coding, place
        coded, shifts = coding.sides.at(channel, points)
        if shifts is None:
            raise ValueError("steps without a shift")
        origin = nearest(location, coding.peak)
        chosen = choose_closed(scale - LOG_STEPS * shifts, coding.max_low).among(coding.first_closed + shape * CLOSED_ROWS)
        steps = Steps(origin, shifts)
        if coded is None:
            return steps.place(coding.code(Stage(lane, channel, points, None, None, chosen, steps)))
        origin[coded] = steps.at(coded).place(coding.code(Stage(lane, channel, points, coded, None, chosen.at(coded), steps.at(coded))))
        return origin


def nearest(location: Planes, peak: int | Planes) -> Planes:
    """Samples nearest to locations, magnitudes up to the peak."""
    found: Planes = np.clip(location + LOCATION // 2 >> LOCATION.bit_length() - 1, -peak, peak)
    return found


def framed(x: Tensor, size: tuple[int, int], frame: int = REACH) -> Tensor:
    """[c, h, w]: the last row and column repeated up to `size`, then every edge `frame` times."""
    return F.pad(x[None], (frame, frame + size[1] - x.shape[2], frame, frame + size[0] - x.shape[1]), mode="replicate")[0]
