"""The hierarchical integer grid: planes of integers to bytes and back, exactly. Coarse grid first, then thrice an octave the points between.

    planes [c, h, w] --split--> base grid + octaves of three groups, each of c channels = stages
    stage: network (what is decoded) -> location, scale -> row; residual = x - base --ANS--> bytes

Sides need not be even: a group that lacks a last row or column repeats the one before for its neighbours and codes nothing there.
Every stage is one vectorised evaluation; the network runs in strips of rows that stay in the processor's cache, which changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.entropy.grid_base import BaseGrid, Sides, octaves_of
from latentpress.entropy.grid_closed import Steps, Targets
from latentpress.entropy.grid_fit import Fit
from latentpress.entropy.grid_fit_coding import pulled, pushes_of
from latentpress.entropy.grid_fit_search import Search
from latentpress.entropy.grid_frozen import Buffers, FrozenGroup, strips
from latentpress.entropy.grid_network import CHANNELS, GROUPS, LOCATION, MAX_LANES, GridNetwork
from latentpress.entropy.grid_tables import CLOSED_ROWS, MAX_LOW, PER_SHAPE, WIDE_LOW, rows_of
from latentpress.entropy.grid_walk import Coding, Octave, Stage, Unfitted, lanes_of
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError

Planes = NDArray[np.int32]
Push = tuple[NDArray[np.int32], NDArray[np.int32]]
Sink = Callable[[int, Push], None]  # takes what a lane pushes
Fitting = Callable[[Unfitted], Fit | None] | None
BASE_BITS = 7  # of the name of a row
STRIP = 16384  # positions of a group that the network evaluates at once, about: few enough for the cache, many enough for a call to be worth it


@dataclass(frozen=True)
class Fits:
    """Of one stream, lane by lane in coding order."""

    lanes: list[list[Fit | None]]

    @classmethod
    def none(cls, lanes: int = MAX_LANES) -> Fits:
        return cls([[] for _ in range(lanes)])


class GridPrior:
    """Frozen network and tables. channels coded may be fewer than the network's three: the others are zero and cost nothing.

    known bool [c, h, w]: False where a sample is missing on both sides; nothing is coded there, and what is predicted stands for it.
    shifts int32 [h, w] or [c, h, w], 0 to 30: where it is j, the sample is a multiple of 2**j, and its quotient is coded. Of `approximate` (and
    decoding with closed=True): where it is j, steps of 2**j are counted from predictions; COARSE everywhere if left out.
    Where the network has lanes, large planes have a stream for each (grid_walk.lanes_of), which threads take side by side.
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

    def encode(
        self, planes: Planes, known: NDArray[np.bool_] | None = None, shifts: NDArray[np.int32] | None = None, fits: Fits | bool = True
    ) -> bytes:
        """int32 [c, h, w], magnitudes up to the network's peak -> bytes. fits: whether to look for some, or those of `decode`, which give the same
        bytes again. Raises ValueError beyond the peak, and for samples that shifts do not divide."""
        Sides.of(planes.shape, known, shifts)
        counted = planes if known is None else planes[known]
        if counted.size and max(-int(counted.min()), int(counted.max())) > self.peak:
            raise ValueError(f"values up to {max(-int(counted.min()), int(counted.max()))}, {self.peak} expected")
        encoders = self._encoders(planes.shape)
        self._code(planes, known, shifts, self._into(encoders), fits)
        return _joined([e.finish() for e in encoders])

    def symbols(self, planes: Planes, known: NDArray[np.bool_] | None = None, shifts: NDArray[np.int32] | None = None) -> list[Push]:
        """(symbols, rows) of each push, lane by lane, in order."""
        pushes = self._lists(planes.shape)
        self._code(planes, known, shifts, lambda lane, push: pushes[lane].append(push), True)
        return [push for lane in pushes for push in lane]

    def _code(
        self, planes: Planes, known: NDArray[np.bool_] | None, shifts: NDArray[np.int32] | None, into: Sink, fits: Fits | bool
    ) -> None:
        sides = Sides.of(planes.shape, known, shifts)
        if sides.shifts is not None and ((planes & (1 << sides.shifts) - 1) != 0).any(where=True if known is None else known):
            raise ValueError("a sample is not a multiple of 2**shifts")
        if known is not None:
            planes = planes.copy()  # what is missing is filled in on the way
        base = self._base(planes, sides)
        differences = base.symbols(planes)
        base.fill(planes, differences)
        into(0, (differences, self._widest(len(differences))))

        def given(stage: Stage) -> Planes:
            values = planes[stage.channel][stage.points].ravel()
            values = values if stage.coded is None else values[stage.coded]
            values = values if stage.shifts is None else values >> stage.shifts
            self._split(values - stage.chosen.base, stage, into)
            return values

        self._walk(planes, sides, given, self._sending(into, fits, Search(*self._costs, sides, planes)))

    def approximate(
        self, targets: Targets, shifts: NDArray[np.int32] | None = None, fits: Fits | bool = True
    ) -> tuple[bytes, Planes]:
        """-> (bytes, what decoding gives: integers within half a step of the targets, or of what deltas leave of them). Raises ValueError for
        targets beyond the peak."""
        encoders = self._encoders(targets.values.shape)
        planes = self._approximate(targets, shifts, self._into(encoders), fits)
        return _joined([e.finish() for e in encoders]), planes

    def approximated(self, targets: Targets, shifts: NDArray[np.int32] | None = None) -> tuple[list[Push], Planes]:
        """As `approximate`, with the (symbols, rows) of each push, lane by lane, in place of bytes."""
        pushes = self._lists(targets.values.shape)
        planes = self._approximate(targets, shifts, lambda lane, push: pushes[lane].append(push), True)
        return [push for lane in pushes for push in lane], planes

    def _approximate(self, targets: Targets, shifts: NDArray[np.int32] | None, into: Sink, fits: Fits | bool) -> Planes:
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
        for push in self._base_pushes(differences, base.counts(len(planes))):
            into(0, push)

        def nearest(stage: Stage) -> Planes:
            want = targets.at(stage.channel, stage.points)
            steps = _counted(stage).nearest(want if stage.coded is None else want[stage.coded])
            self._split(steps - stage.chosen.base, stage, into)
            return steps

        self._walk(planes, sides, nearest, self._sending(into, fits, Search(*self._costs, sides, planes, targets)), targets)
        return planes

    def decode(
        self, blob: bytes, shape: tuple[int, int, int], known: NDArray[np.bool_] | None = None, shifts: NDArray[np.int32] | None = None,
        closed: bool = False, fits: Fits | None = None,
    ) -> Planes:  # fmt: skip
        """Inverse of `encode`, or with closed=True of `approximate`; `fits` takes what is found. Raises FormatError on damaged bytes."""
        from latentpress.entropy.coder import Decoder

        if closed and not self.closable:
            raise FormatError("damaged stream: it counts steps from predictions, which this preset does not")
        decoders = [Decoder(part) for part in _parted(blob, self._lanes(shape))]
        planes, sides = np.zeros(shape, np.int32), Sides.of(shape, known, shifts, closed)
        base = self._base(planes, sides)
        counts = base.counts(len(planes))
        rows = self._widest(sum(counts))
        if closed:
            rows = self._base_rows(decoders[0].pull(self._flat(len(planes), BASE_BITS), self.tables), counts)
        base.fill(planes, decoders[0].pull(rows, self.tables))

        def found(stage: Stage) -> Planes:
            decoder = decoders[stage.lane]
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

        kept = Fits.none(len(decoders)) if fits is None else fits

        def fit(stage: Unfitted) -> Fit | None:
            made = pulled(lambda rows: decoders[stage.lane].pull(rows, self.tables), stage.around.count, self.flat_rows)
            kept.lanes[stage.lane].append(made)
            return made

        self._walk(planes, sides, found, fit)
        for decoder in decoders:
            decoder.close()
        return planes

    # ---- fits

    @property
    def _costs(self) -> tuple[Tables, int, int, int]:
        return self.tables, self.max_low, self.closed_rows, self.peak

    def _sending(self, into: Sink, fits: Fits | bool, search: Search) -> Fitting:
        """Fits that are looked for, or replayed, each pushed before what it is of."""
        again = [iter(lane) for lane in fits.lanes] if isinstance(fits, Fits) else []

        def fit(stage: Unfitted) -> Fit | None:
            made = next(again[stage.lane], None) if again else search(stage) if fits else None
            for push in pushes_of(made, self.tables, self.flat_rows):
                into(stage.lane, push)
            return made

        return fit

    # ---- lanes

    def _lanes(self, shape: tuple[int, ...]) -> int:
        """Streams of planes [c, h, w]: one, or as many as the lanes of their finest groups."""
        return len(lanes_of(-(-shape[1] // 2), -(-shape[2] // 2), self.network.config.lanes))

    def _lists(self, shape: tuple[int, ...]) -> list[list[Push]]:
        return [[] for _ in range(self._lanes(shape))]

    def _encoders(self, shape: tuple[int, ...]) -> list[Any]:
        from latentpress.entropy.coder import Encoder

        return [Encoder() for _ in range(self._lanes(shape))]

    def _into(self, encoders: list[Any]) -> Sink:
        return lambda lane, push: encoders[lane].push(np.ascontiguousarray(push[0], np.int32), push[1], self.tables)

    def _split(self, residual: NDArray[np.int32], stage: Stage, into: Sink) -> None:
        low = stage.chosen.low
        into(stage.lane, (residual >> low, stage.chosen.row))
        for at, bits, start in self._flat_parts(low):
            into(stage.lane, (residual[at] >> start & (1 << bits) - 1, self.flat_rows + bits - 1))

    def _flat_parts(self, low: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]]:
        """Where bits go out flat, MAX_LOW of them at a time, lowest first: (flat indices, how many bits, the first of them)."""
        for part in range(0, self.max_low, MAX_LOW):
            at = np.flatnonzero(low > part)
            if len(at):
                bits = np.minimum(low[at] - part, MAX_LOW)
                yield at, bits, np.full_like(bits, part)

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
    def _walk(self, planes: Planes, sides: Sides, code: Callable[[Stage], Planes], fit: Fitting, aims: Targets | None = None) -> None:
        """Visit all stages in coding order; `code` gives the quotients, or steps, of what each stage codes; samples are written into `planes`."""
        height, width = planes.shape[1:]
        frozen = self._frozen(len(planes))
        octaves = octaves_of((height, width))
        misses = torch.full((CHANNELS, -(-height // (1 << octaves)), -(-width // (1 << octaves))), 4.0 * LOCATION, dtype=self.carrier)
        fit = fit if self.network.config.fits else None
        coding = Coding(planes, sides, code, fit, aims, self.peak, self.max_low, self.closed_rows, self.network.config.log_range - 1)
        buffers = Buffers()
        with strips(STRIP, height * width // 4) as runner:
            for octave in reversed(range(octaves)):
                misses = Octave(coding, frozen, octave, buffers, runner, self.network.config.lanes).run(misses)

    def _frozen(self, channels: int) -> dict[str, FrozenGroup]:
        if channels not in self._groups:
            self._groups[channels] = {name: FrozenGroup(self.network.groups[name], channels) for name in GROUPS}  # type: ignore[arg-type]
        return self._groups[channels]


def _counted(stage: Stage) -> Steps:
    if stage.steps is None:
        raise ValueError("a stage of integers, not of steps")
    return stage.steps


def _joined(streams: list[bytes]) -> bytes:
    """One after the other; before each but the last how many words of 32 bits it has, as a word itself."""
    return b"".join([*((len(s) // 4).to_bytes(4, "little") + s for s in streams[:-1]), streams[-1]])


def _parted(blob: bytes, count: int) -> list[bytes]:
    """Inverse of `_joined`. Raises FormatError."""
    streams, at = [], 0
    for _ in range(count - 1):
        size = 4 * int.from_bytes(blob[at : at + 4], "little")
        if len(blob) - at < 4 + size:
            raise FormatError("damaged stream: a lane ends beyond it")
        streams.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return [*streams, blob[at:]]
