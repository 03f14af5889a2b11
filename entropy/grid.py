"""The hierarchical integer grid: planes of integers to bytes and back, exactly. Coarse grid first, then thrice an octave the points between.

    planes [c, h, w] --split--> base grid + octaves of three groups, each of c channels = stages
    stage: network (what is decoded) -> location, scale -> row; residual = x - base --ANS--> bytes

Sides need not be even: a group that lacks a last row or column repeats the one before for its neighbours and codes nothing there.
Every stage is one vectorised evaluation; the network runs in strips of rows that stay in the processor's cache, which changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.grid_frozen import Buffers, FrozenGroup, GroupPass, Strips, strips
from latentpress.entropy.grid_network import CHANNELS, GROUPS, LOCATION, LOG_STEPS, REACH, GridNetwork
from latentpress.entropy.grid_tables import MAX_LOW, PER_SHAPE, WIDE_LOW, Chosen, choose
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError

Planes = NDArray[np.int32]
Push = tuple[NDArray[np.int32], NDArray[np.int32]]
BASE_SIDE = 8  # octaves go on until both sides of the coarsest grid are at most this
CELLS = {"oo": (1, 1), "eo": (0, 1), "oe": (1, 0)}
STRIP = 8192  # positions of a group that the network evaluates at once, about: few enough for the cache, many enough for a call to be worth it


@dataclass(frozen=True)
class Stage:
    """One channel of one group: shape (its index among tables), where its points are in the planes, which of them are coded (flat indices;
    None: all), their shifts (None: 0), and what to code these with (flat)."""

    shape: int
    channel: int
    points: tuple[slice, slice]
    coded: NDArray[np.intp] | None
    shifts: NDArray[np.int32] | None
    chosen: Chosen


@dataclass(frozen=True)
class Sides:
    """What encoder and decoder both know of the samples: which exist, and how often each can be halved. None: all, and never."""

    known: NDArray[np.bool_] | None
    shifts: NDArray[np.int32] | None

    @classmethod
    def of(cls, shape: tuple[int, ...], known: NDArray[np.bool_] | None, shifts: NDArray[np.int32] | None) -> Sides:
        """Raises ValueError for shapes that are not those of the planes, and for shifts outside 0 to 30."""
        if known is not None and (known.shape != shape or known.dtype != np.bool_):
            raise ValueError(f"known: {known.dtype}{known.shape}, bool{shape} expected")
        if shifts is not None and (shifts.shape not in (shape, shape[1:]) or shifts.dtype != np.int32):
            raise ValueError(f"shifts: {shifts.dtype}{shifts.shape}, int32{shape} or int32{shape[1:]} expected")
        if shifts is not None and shifts.size and not 0 <= shifts.min() <= shifts.max() <= 30:
            raise ValueError(f"shifts reach from {shifts.min()} to {shifts.max()}, 0 to 30 expected")
        return cls(known, None if shifts is None else np.broadcast_to(shifts, shape))

    def at(self, channel: int, points: tuple[slice, slice]) -> tuple[NDArray[np.intp] | None, NDArray[np.int32] | None]:
        """(flat indices of what is coded, flat shifts of all points)."""
        coded = None if self.known is None else np.flatnonzero(self.known[channel][points])
        return coded, None if self.shifts is None else self.shifts[channel][points].ravel()


def octaves_of(size: tuple[int, int]) -> int:
    """Octaves until both sides are at most BASE_SIDE."""
    return max(0, int(np.ceil(np.log2(max(size) / BASE_SIDE)))) if max(size) > BASE_SIDE else 0


class GridPrior:
    """Frozen network and tables. channels coded may be fewer than the network's three: the others are zero and cost nothing.

    known bool [c, h, w]: False where a sample is missing on both sides; nothing is coded there, and what is predicted stands for it.
    shifts int32 [h, w] or [c, h, w], 0 to 30: where it is j, the sample is a multiple of 2**j, and its quotient is coded.
    A call holds about 210 bytes a point of h x w (three channels, 48 features; 120 for one channel), its planes and symbols aside.
    """

    def __init__(self, network: GridNetwork, tables: Tables) -> None:
        if tables.rows != len(GROUPS) * CHANNELS * PER_SHAPE + MAX_LOW:
            raise ValueError(f"{tables.rows} rows, {len(GROUPS) * CHANNELS * PER_SHAPE + MAX_LOW} expected")
        self.network, self.tables, self.peak = network, tables, network.config.peak
        self.flat_rows = len(GROUPS) * CHANNELS * PER_SHAPE
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
        differences = self._base_symbols(planes, sides)
        self._fill_base(planes, differences, sides)
        pushes = [(differences, self._base_rows(len(differences)))]

        def known_values(stage: Stage) -> Planes:
            values = planes[stage.channel][stage.points].ravel()
            values = values if stage.coded is None else values[stage.coded]
            values = values if stage.shifts is None else values >> stage.shifts
            pushes.extend(self._split(values - stage.chosen.base, stage))
            return values

        self._walk(planes, sides, known_values)
        return pushes

    def decode(
        self, blob: bytes, shape: tuple[int, int, int], known: NDArray[np.bool_] | None = None, shifts: NDArray[np.int32] | None = None
    ) -> Planes:
        """Inverse of `encode`. Raises FormatError on damaged bytes."""
        from latentpress.entropy.coder import Decoder

        decoder, planes, sides = Decoder(blob), np.zeros(shape, np.int32), Sides.of(shape, known, shifts)
        self._fill_base(planes, decoder.pull(self._base_rows(self._base_count(planes, sides)), self.tables), sides)

        def found(stage: Stage) -> Planes:
            residual = decoder.pull(stage.chosen.row + stage.shape * PER_SHAPE, self.tables).astype(np.int64)
            for at, bits, start in self._flat_parts(stage.chosen.low):
                low = decoder.pull(self.flat_rows + bits - 1, self.tables)
                if (low >> bits).any():
                    raise FormatError("damaged stream: a residual is out of range")
                if not start.any():
                    residual[at] <<= stage.chosen.low[at]
                residual[at] += low.astype(np.int64) << start
            values = residual + stage.chosen.base
            peak = self.peak if stage.shifts is None else self.peak >> stage.shifts
            if (np.abs(values) > peak).any():
                raise FormatError("damaged stream: a value is out of range")
            return values.astype(np.int32)

        self._walk(planes, sides, found)
        decoder.close()
        return planes

    def _split(self, residual: NDArray[np.int32], stage: Stage) -> Iterator[Push]:
        low = stage.chosen.low
        yield residual >> low, stage.chosen.row + stage.shape * PER_SHAPE
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

    # ---- base grid: differences along the scan, by the widest row

    def _base(self, values: NDArray[Any]) -> NDArray[Any]:
        step = 1 << octaves_of((values.shape[1], values.shape[2]))
        return values[:, ::step, ::step]

    def _base_count(self, planes: Planes, sides: Sides) -> int:
        return self._base(planes).size if sides.known is None else int(self._base(sides.known).sum())

    def _base_rows(self, count: int) -> NDArray[np.int32]:
        return np.full(count, PER_SHAPE - 1, np.int32)

    def _base_scan(self, planes: Planes, sides: Sides) -> Iterator[tuple[tuple[int, ...], bool, int]]:
        """Of each point of the base grid: where it is, whether it is coded, its shift."""
        base = self._base(planes)
        known = np.ones(base.shape, np.bool_) if sides.known is None else self._base(sides.known)
        shifts = np.zeros(base.shape, np.int32) if sides.shifts is None else self._base(sides.shifts)
        yield from zip(np.ndindex(base.shape), known.ravel().tolist(), shifts.ravel().tolist(), strict=True)

    def _base_symbols(self, planes: Planes, sides: Sides) -> NDArray[np.int32]:
        differences, base, last = [], self._base(planes), 0
        for place, known, shift in self._base_scan(planes, sides):
            last = last if any(place[1:]) else 0
            value = int(base[place]) if known else last >> shift << shift
            if known:
                differences.append((value >> shift) - (last >> shift))
            last = value
        return np.array(differences, np.int32)

    def _fill_base(self, planes: Planes, differences: NDArray[np.int32], sides: Sides) -> None:
        base, last, coded = self._base(planes), 0, iter(differences.tolist())
        for place, known, shift in self._base_scan(planes, sides):
            last = (last if any(place[1:]) else 0) >> shift
            last = last + (next(coded) if known else 0)
            if abs(last) > self.peak >> shift:
                raise FormatError("damaged stream: a value is out of range")
            last <<= shift
            base[place] = last

    # ---- the walk

    @torch.no_grad()
    def _walk(self, planes: Planes, sides: Sides, code: Callable[[Stage], Planes]) -> None:
        """Visit all stages in coding order; `code` gives the quotients of what each stage codes; samples are written into `planes`."""
        height, width = planes.shape[1:]
        frozen = self._frozen(len(planes))
        misses = torch.full((CHANNELS, *self._base(planes).shape[1:]), 4.0 * LOCATION, dtype=self.carrier)
        buffers = Buffers()
        with strips(STRIP, height * width // 4) as runner:
            for octave in reversed(range(octaves_of((height, width)))):
                walk = _Octave(self, frozen, planes, sides, code, octave, buffers, runner)
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
            network = GroupPass(self.frozen[name], quarters, missed, self.octave, self.buffers, self.runner)
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
            found = self._samples(g * CHANNELS + k, k, points, location.numpy().ravel(), scale.numpy().ravel()).reshape(inside)
            self.planes[k][points] = found
            values[k] = torch.from_numpy(found)
            torch.sub(LOCATION * values[k], location, out=errors[k]).abs_()
        return values, errors

    def _samples(self, shape: int, channel: int, points: tuple[slice, slice], location: Planes, scale: Planes) -> Planes:
        """Flat samples of a stage: what `code` gives, and predictions where nothing is coded."""
        coded, shifts = self.sides.at(channel, points)
        if shifts is not None:
            location, scale = location >> shifts, np.maximum(scale - LOG_STEPS * shifts, 0)
        chosen = choose(location, scale, self.prior.max_low)
        if coded is None:
            found = self.code(Stage(shape, channel, points, None, shifts, chosen))
        else:
            peak = self.prior.peak if shifts is None else self.prior.peak >> shifts
            found = np.clip(location + LOCATION // 2 >> LOCATION.bit_length() - 1, -peak, peak)
            found[coded] = self.code(Stage(shape, channel, points, coded, shifts if shifts is None else shifts[coded], chosen.at(coded)))
        return found if shifts is None else found << shifts


def _framed(x: Tensor, size: tuple[int, int], frame: int = REACH) -> Tensor:
    """[c, h, w]: the last row and column repeated up to `size`, then every edge `frame` times."""
    return F.pad(x[None], (frame, frame + size[1] - x.shape[2], frame, frame + size[0] - x.shape[1]), mode="replicate")[0]
