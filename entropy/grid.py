"""The hierarchical integer grid: planes of integers to bytes and back, exactly. Coarse grid first, then thrice an octave the points between.

    planes [c, h, w] --split--> base grid + octaves of three groups, each of c channels = stages
    stage: network (what is decoded) -> location, scale -> row; residual = x - base --ANS--> bytes

Sides need not be even: a group that lacks a last row or column repeats the one before for its neighbours and codes nothing there.
Every stage is one vectorised evaluation; the network runs in strips of rows that stay in the processor's cache, which changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.grid_base import BaseGrid, Sides, octaves_of
from latentpress.entropy.grid_closed import Steps, Targets
from latentpress.entropy.grid_frozen import Buffers, FrozenGroup, GroupPass, Strips, strips
from latentpress.entropy.grid_network import CHANNELS, GROUPS, LOCATION, LOG_STEPS, REACH, GridNetwork
from latentpress.entropy.grid_tables import CLOSED_ROWS, MAX_LOW, PER_SHAPE, WIDE_LOW, Chosen, choose, choose_closed, rows_of
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError

Planes = NDArray[np.int32]
Push = tuple[NDArray[np.int32], NDArray[np.int32]]
BASE_BITS = 7  # of the name of a row
CELLS = {"oo": (1, 1), "eo": (0, 1), "oe": (1, 0)}
STRIP = 8192  # positions of a group that the network evaluates at once, about: few enough for the cache, many enough for a call to be worth it


@dataclass(frozen=True)
class Stage:
    """One channel of one group: where its points are in the planes, which of them are coded (flat indices; None: all), their shifts (None: 0),
    what to code these with (flat, rows among all tables), and the steps that are counted in place of integers (None: none)."""

    channel: int
    points: tuple[slice, slice]
    coded: NDArray[np.intp] | None
    shifts: NDArray[np.int32] | None
    chosen: Chosen
    steps: Steps | None = None


class GridPrior:
    """Frozen network and tables. channels coded may be fewer than the network's three: the others are zero and cost nothing.

    known bool [c, h, w]: False where a sample is missing on both sides; nothing is coded there, and what is predicted stands for it.
    shifts int32 [h, w] or [c, h, w], 0 to 30: where it is j, the sample is a multiple of 2**j, and its quotient is coded. Of `approximate` (and
    decoding with closed=True): where it is j, steps of 2**j are counted from predictions; COARSE everywhere if left out.
    A call holds about 210 bytes a point of h x w (three channels, 48 features; 120 for one channel), its planes and symbols aside.
    """

    def __init__(self, network: GridNetwork, tables: Tables) -> None:
        shapes = len(GROUPS) * CHANNELS
        self.closable = network.config.modes > 1
        if tables.rows != rows_of(shapes, self.closable):
            raise ValueError(f"{tables.rows} rows, {rows_of(shapes, self.closable)} expected")
        self.network, self.tables, self.peak = network, tables, network.config.peak
        self.flat_rows = shapes * PER_SHAPE
        self.closed_rows = self.flat_rows + MAX_LOW
        self.max_low = WIDE_LOW if network.config.wide else MAX_LOW
        self._groups: dict[int, dict[str, FrozenGroup]] = {}
        self.carrier = torch.float64 if network.config.wide else torch.float32

    # ---- bytes

    def encode(self, planes: Planes, known: NDArray[np.bool_] | None = None, shifts: NDArray[np.int32] | None = None) -> bytes:
        """int32 [c, h, w], magnitudes up to the network's peak -> bytes. Raises ValueError beyond, and for samples that shifts do not divide."""
        Sides.of(planes.shape, known, shifts)
        counted = planes if known is None else planes[known]
        if counted.size and max(-int(counted.min()), int(counted.max())) > self.peak:
            raise ValueError(f"values up to {max(-int(counted.min()), int(counted.max()))}, {self.peak} expected")
        return self._packed(self.symbols(planes, known, shifts))

    def symbols(self, planes: Planes, known: NDArray[np.bool_] | None = None, shifts: NDArray[np.int32] | None = None) -> list[Push]:
        """(symbols, rows) of each push, in order."""
        sides = Sides.of(planes.shape, known, shifts)
        if sides.shifts is not None and ((planes & (1 << sides.shifts) - 1) != 0).any(where=True if known is None else known):
            raise ValueError("a sample is not a multiple of 2**shifts")
        if known is not None:
            planes = planes.copy()  # what is missing is filled in on the way
        base = self._base(planes, sides)
        differences = base.symbols(planes)
        base.fill(planes, differences)
        pushes = [(differences, self._widest(len(differences)))]

        def given(stage: Stage) -> Planes:
            values = planes[stage.channel][stage.points].ravel()
            values = values if stage.coded is None else values[stage.coded]
            values = values if stage.shifts is None else values >> stage.shifts
            pushes.extend(self._split(values - stage.chosen.base, stage))
            return values

        self._walk(planes, sides, given)
        return pushes

    def approximate(self, targets: Targets, shifts: NDArray[np.int32] | None = None) -> tuple[bytes, Planes]:
        """-> (bytes, what decoding gives: integers within half a step of the targets, or of what deltas leave of them). Raises ValueError for
        targets beyond the peak."""
        pushes, planes = self.approximated(targets, shifts)
        return self._packed(pushes), planes

    def approximated(self, targets: Targets, shifts: NDArray[np.int32] | None = None) -> tuple[list[Push], Planes]:
        """As `approximate`, with the (symbols, rows) of each push in place of bytes."""
        if not self.closable:
            raise ValueError("this network was not trained to count steps from its predictions")
        sides = Sides.of(targets.values.shape, targets.known, shifts, closed=True)
        step = 0 if sides.shifts is None else 1 << int(sides.shifts.max(initial=0))
        if not targets.reach + step <= self.peak:
            raise ValueError(f"targets up to {targets.reach:.4g} and a step of {step}, {self.peak} expected")
        planes = np.zeros(targets.values.shape, np.int32)
        base = self._base(planes, sides)
        base.aim(planes, targets)
        differences = base.symbols(planes)
        base.fill(planes, differences)
        pushes = self._base_pushes(differences, base.counts(len(planes)))

        def nearest(stage: Stage) -> Planes:
            want = targets.at(stage.channel, stage.points)
            steps = _counted(stage).nearest(want if stage.coded is None else want[stage.coded])
            pushes.extend(self._split(steps - stage.chosen.base, stage))
            return steps

        self._walk(planes, sides, nearest, targets)
        return pushes, planes

    def decode(
        self, blob: bytes, shape: tuple[int, int, int], known: NDArray[np.bool_] | None = None, shifts: NDArray[np.int32] | None = None,
        closed: bool = False,
    ) -> Planes:  # fmt: skip
        """Inverse of `encode`, or with closed=True of `approximate`. Raises FormatError on damaged bytes."""
        from latentpress.entropy.coder import Decoder

        if closed and not self.closable:
            raise FormatError("damaged stream: it counts steps from predictions, which this preset does not")
        decoder, planes, sides = Decoder(blob), np.zeros(shape, np.int32), Sides.of(shape, known, shifts, closed)
        base = self._base(planes, sides)
        counts = base.counts(len(planes))
        rows = self._widest(sum(counts))
        if closed:
            rows = self._base_rows(decoder.pull(self._flat(len(planes), BASE_BITS), self.tables), counts)
        base.fill(planes, decoder.pull(rows, self.tables))

        def found(stage: Stage) -> Planes:
            residual = decoder.pull(stage.chosen.row, self.tables).astype(np.int64)
            for at, bits, start in self._flat_parts(stage.chosen.low):
                low = decoder.pull(self.flat_rows + bits - 1, self.tables)
                if (low >> bits).any():
                    raise FormatError("damaged stream: a residual is out of range")
                if not start.any():
                    residual[at] <<= stage.chosen.low[at]
                residual[at] += low.astype(np.int64) << start
            values = residual + stage.chosen.base
            if stage.steps is None:
                beyond = np.abs(values) > (self.peak if stage.shifts is None else self.peak >> stage.shifts)
            else:  # few enough steps, so that their place is a number that int64 holds
                beyond = np.abs(values) > (2 * self.peak >> stage.steps.shifts) + 1
                beyond |= np.abs(stage.steps.place(np.where(beyond, 0, values))) > self.peak
            if beyond.any():
                raise FormatError("damaged stream: a value is out of range")
            return values.astype(np.int32)

        self._walk(planes, sides, found)
        decoder.close()
        return planes

    def _split(self, residual: NDArray[np.int32], stage: Stage) -> Iterator[Push]:
        low = stage.chosen.low
        yield residual >> low, stage.chosen.row
        for at, bits, start in self._flat_parts(low):
            yield residual[at] >> start & (1 << bits) - 1, self.flat_rows + bits - 1

    def _flat_parts(self, low: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]]:
        """Where bits go out flat, MAX_LOW of them at a time, lowest first: (flat indices, how many bits, the first of them)."""
        for part in range(0, self.max_low, MAX_LOW):
            at = np.flatnonzero(low > part)
            if len(at):
                bits = np.minimum(low[at] - part, MAX_LOW)
                yield at, bits, np.full_like(bits, part)

    def _packed(self, pushes: list[Push]) -> bytes:
        from latentpress.entropy.coder import Encoder

        encoder = Encoder()
        for symbols, rows in pushes:
            encoder.push(np.ascontiguousarray(symbols, np.int32), rows, self.tables)
        return encoder.finish()

    # ---- base grid: by the widest row, or where steps are counted by a row that is named for each plane

    def _base(self, planes: Planes, sides: Sides) -> BaseGrid:
        return BaseGrid(self.peak, (planes.shape[1], planes.shape[2]), sides)

    def _widest(self, count: int) -> NDArray[np.int32]:
        return np.full(count, PER_SHAPE - 1, np.int32)

    def _flat(self, count: int, bits: int) -> NDArray[np.int32]:
        return np.full(count, self.flat_rows + bits - 1, np.int32)

    def _base_pushes(self, differences: NDArray[np.int32], counts: list[int]) -> list[Push]:
        """Of each plane the row that codes it in the fewest bits, then the differences by these rows."""
        chosen = []
        for part in np.split(differences, np.cumsum(counts)[:-1]):
            costs = [self.tables.bits(part, np.full(len(part), self.closed_rows + r, np.int32)) for r in range(CLOSED_ROWS)]
            chosen.append(costs.index(min(costs)))
        named = np.array(chosen, np.int32)
        return [(named, self._flat(len(counts), BASE_BITS)), (differences, self._base_rows(named, counts))]

    def _base_rows(self, named: NDArray[np.int32], counts: list[int]) -> NDArray[np.int32]:
        if (named < 0).any() or (named >= CLOSED_ROWS).any():
            raise FormatError("damaged stream: a row is out of range")
        return np.repeat(self.closed_rows + named, counts).astype(np.int32)

    # ---- the walk

    @torch.no_grad()
    def _walk(self, planes: Planes, sides: Sides, code: Callable[[Stage], Planes], aims: Targets | None = None) -> None:
        """Visit all stages in coding order; `code` gives the quotients, or steps, of what each stage codes; samples are written into `planes`."""
        height, width = planes.shape[1:]
        frozen = self._frozen(len(planes))
        octaves = octaves_of((height, width))
        misses = torch.full((CHANNELS, -(-height // (1 << octaves)), -(-width // (1 << octaves))), 4.0 * LOCATION, dtype=self.carrier)
        buffers = Buffers()
        with strips(STRIP, height * width // 4) as runner:
            for octave in reversed(range(octaves)):
                walk = _Octave(self, frozen, planes, sides, code, aims, octave, buffers, runner)
                misses = walk.run(misses)

    def _frozen(self, channels: int) -> dict[str, FrozenGroup]:
        if channels not in self._groups:
            self._groups[channels] = {name: FrozenGroup(self.network.groups[name], channels) for name in GROUPS}  # type: ignore[arg-type]
        return self._groups[channels]


@dataclass(frozen=True)
class _Octave:
    """One octave of a walk: three groups, each seeing those before it."""

    prior: GridPrior
    frozen: Mapping[str, FrozenGroup]
    planes: Planes
    sides: Sides
    code: Callable[[Stage], Planes]
    aims: Targets | None
    octave: int
    buffers: Buffers
    runner: Strips

    def run(self, misses: Tensor) -> Tensor:
        """|errors| in 1/16 of the coarser grid, [3, h, w] -> those of this one."""
        step, carrier = 1 << self.octave, self.prior.carrier
        grid = self.planes[:, ::step, ::step]
        half = (-(-grid.shape[1] // 2), -(-grid.shape[2] // 2))
        quarters = {"ee": _framed(4 * torch.from_numpy(np.ascontiguousarray(grid[:, ::2, ::2])).to(carrier), half)}
        missed = {"ee": _framed(misses, half)}
        full = torch.zeros(CHANNELS, *grid.shape[1:], dtype=carrier)
        full[:, ::2, ::2] = misses
        for g, (name, (i, j)) in enumerate(CELLS.items()):
            inside = (grid.shape[1] - i + 1) // 2, (grid.shape[2] - j + 1) // 2
            if not min(inside):
                quarters[name], missed[name] = quarters["ee"], missed["ee"]
                continue
            network = GroupPass(self.frozen[name], quarters, missed, self.octave, self.buffers, self.runner, self.sides.closed)
            values, errors = self._group(g, network, (i, j), inside)
            quarters[name], missed[name] = _framed(values.mul_(4), half), _framed(errors, half)
            full[:, i::2, j::2] = errors
        return full

    def _group(self, g: int, network: GroupPass, cell: tuple[int, int], inside: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(samples [c, rows, columns], |errors| in 1/16 [3, rows, columns])."""
        rows, columns = inside
        step = 1 << self.octave
        points = (slice(cell[0] * step, None, 2 * step), slice(cell[1] * step, None, 2 * step))
        values = torch.empty(len(self.planes), rows, columns, dtype=self.prior.carrier)
        errors = torch.zeros(CHANNELS, rows, columns, dtype=self.prior.carrier)
        network.first()
        for k in range(len(self.planes)):
            if k:
                network.next(k, _framed(values[k - 1 : k], (network.height, network.width), 0)[0])
            location, scale = network.location[k, :rows, :columns], network.scale[k, :rows, :columns]
            samples = self._steps if self.sides.closed else self._samples
            found = samples(g * CHANNELS + k, k, points, location.numpy().ravel(), scale.numpy().ravel()).reshape(inside)
            self.planes[k][points] = found
            if self.aims is not None:
                self.aims.settle(k, points, found)
            values[k] = torch.from_numpy(found)
            torch.sub(LOCATION * values[k], location, out=errors[k]).abs_()
        return values, errors

    def _samples(self, shape: int, channel: int, points: tuple[slice, slice], location: Planes, scale: Planes) -> Planes:
        """Flat samples of a stage: what `code` gives, and predictions where nothing is coded."""
        coded, shifts = self.sides.at(channel, points)
        if shifts is not None:
            location, scale = location >> shifts, np.maximum(scale - LOG_STEPS * shifts, 0)
        chosen = choose(location, scale, self.prior.max_low).among(shape * PER_SHAPE)
        if coded is None:
            found = self.code(Stage(channel, points, None, shifts, chosen))
        else:
            peak = self.prior.peak if shifts is None else self.prior.peak >> shifts
            found = np.clip(location + LOCATION // 2 >> LOCATION.bit_length() - 1, -peak, peak)
            found[coded] = self.code(Stage(channel, points, coded, shifts if shifts is None else shifts[coded], chosen.at(coded)))
        return found if shifts is None else found << shifts

    def _steps(self, shape: int, channel: int, points: tuple[slice, slice], location: Planes, scale: Planes) -> Planes:
        """The same where steps are counted from rounded predictions."""
        coded, shifts = self.sides.at(channel, points)
        if shifts is None:
            raise ValueError("steps without a shift")
        peak = self.prior.peak
        origin = np.clip(location + LOCATION // 2 >> LOCATION.bit_length() - 1, -peak, peak)
        chosen = choose_closed(scale - LOG_STEPS * shifts, self.prior.max_low).among(self.prior.closed_rows + shape * CLOSED_ROWS)
        steps = Steps(origin, shifts)
        if coded is None:
            return steps.place(self.code(Stage(channel, points, None, None, chosen, steps)))
        origin[coded] = steps.at(coded).place(self.code(Stage(channel, points, coded, None, chosen.at(coded), steps.at(coded))))
        return origin


def _counted(stage: Stage) -> Steps:
    if stage.steps is None:
        raise ValueError("a stage of integers, not of steps")
    return stage.steps


def _framed(x: Tensor, size: tuple[int, int], frame: int = REACH) -> Tensor:
    """[c, h, w]: the last row and column repeated up to `size`, then every edge `frame` times."""
    return F.pad(x[None], (frame, frame + size[1] - x.shape[2], frame, frame + size[0] - x.shape[1]), mode="replicate")[0]
