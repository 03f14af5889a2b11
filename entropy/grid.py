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
from torch import Tensor

from latentpress.entropy.grid_network import CHANNELS, GROUPS, LOCATION, LOG_RANGE, GridNetwork, Group, neighbours, padded
from latentpress.entropy.grid_tables import MAX_LOW, PER_SHAPE, Chosen, choose
from latentpress.entropy.tables import MAX_SYMBOL, Tables
from latentpress.errors import FormatError

Planes = NDArray[np.int32]
BASE_SIDE = 8  # octaves go on until both sides of the coarsest grid are at most this
CELLS = {"oo": (1, 1), "eo": (0, 1), "oe": (1, 0)}
STRIP = 4096  # positions of a group that the network evaluates at once, about


@dataclass(frozen=True)
class Stage:
    """One channel of one group: shape (its index among tables), where its points are in the planes, and what to code them with (flat)."""

    shape: int
    channel: int
    points: tuple[slice, slice]
    size: tuple[int, int]
    chosen: Chosen


def octaves_of(size: tuple[int, int]) -> int:
    """Octaves until both sides are at most BASE_SIDE."""
    return max(0, int(np.ceil(np.log2(max(size) / BASE_SIDE)))) if max(size) > BASE_SIDE else 0


class GridPrior:
    """Frozen network and tables. channels coded may be fewer than the network's three: the others are zero and cost nothing."""

    def __init__(self, network: GridNetwork, tables: Tables) -> None:
        if tables.rows != len(GROUPS) * CHANNELS * PER_SHAPE + MAX_LOW:
            raise ValueError(f"{tables.rows} rows, {len(GROUPS) * CHANNELS * PER_SHAPE + MAX_LOW} expected")
        self.network, self.tables = network, tables
        self.flat_rows = len(GROUPS) * CHANNELS * PER_SHAPE

    # ---- bytes

    def encode(self, planes: Planes) -> bytes:
        """int32 [c, h, w], magnitudes up to the network's peak -> bytes. Raises ValueError beyond."""
        if np.abs(planes).max(initial=0) > self.network.config.peak:
            raise ValueError(f"values up to {np.abs(planes).max()}, {self.network.config.peak} expected")
        return self._packed(self.symbols(planes))

    def symbols(self, planes: Planes) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """(symbols, rows) of each push, in order."""
        pushes: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []

        def known(stage: Stage) -> Planes:
            values = planes[stage.channel][stage.points]
            pushes.extend(self._split(values.ravel() - stage.chosen.base, stage))
            return values

        self._walk(planes.shape[0], planes.shape[1:], planes, known)
        return [(self._base_symbols(planes), self._base_rows(planes.shape)), *pushes]

    def decode(self, blob: bytes, shape: tuple[int, int, int]) -> Planes:
        """Inverse of `encode`. Raises FormatError on damaged bytes."""
        from latentpress.entropy.coder import Decoder

        decoder = Decoder(blob)
        planes = np.zeros(shape, np.int32)
        self._fill_base(planes, decoder.pull(self._base_rows(shape), self.tables))

        def found(stage: Stage) -> Planes:
            chosen = stage.chosen
            residual = decoder.pull(chosen.row + stage.shape * PER_SHAPE, self.tables)
            wide = np.flatnonzero(chosen.low)
            if len(wide):
                low = decoder.pull(self.flat_rows + chosen.low[wide] - 1, self.tables)
                if np.abs(residual[wide]).max() >= MAX_SYMBOL >> MAX_LOW or low.max() >= 1 << MAX_LOW:
                    raise FormatError("damaged stream: a residual is out of range")
                residual[wide] = (residual[wide] << chosen.low[wide]) + low
            return self._checked(residual + chosen.base).reshape(stage.size)

        self._walk(shape[0], shape[1:], planes, found)
        decoder.close()
        return planes

    def _checked(self, values: NDArray[Any]) -> NDArray[Any]:
        if np.abs(values).max(initial=0) > self.network.config.peak:
            raise FormatError("damaged stream: a value is out of range")
        return values

    def _split(self, residual: NDArray[np.int32], stage: Stage) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        low = stage.chosen.low
        yield residual >> low, stage.chosen.row + stage.shape * PER_SHAPE
        wide = np.flatnonzero(low)
        if len(wide):
            yield residual[wide] & (1 << low[wide]) - 1, self.flat_rows + low[wide] - 1

    def _packed(self, pushes: list[tuple[NDArray[np.int32], NDArray[np.int32]]]) -> bytes:
        from latentpress.entropy.coder import Encoder

        encoder = Encoder()
        for symbols, rows in pushes:
            encoder.push(np.ascontiguousarray(symbols, np.int32), rows, self.tables)
        return encoder.finish()

    # ---- base grid: differences along the scan, by the widest row

    def _base_step(self, shape: tuple[int, ...]) -> int:
        return 1 << octaves_of((shape[1], shape[2]))

    def _base_rows(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        step = self._base_step(shape)
        count = shape[0] * -(-shape[1] // step) * -(-shape[2] // step)
        return np.full(count, PER_SHAPE - 1, np.int32)

    def _base_symbols(self, planes: Planes) -> NDArray[np.int32]:
        step = self._base_step(planes.shape)
        base = planes[:, ::step, ::step].reshape(planes.shape[0], -1)
        return np.diff(base, axis=1, prepend=0).astype(np.int32).ravel()

    def _fill_base(self, planes: Planes, differences: NDArray[np.int32]) -> None:
        step = self._base_step(planes.shape)
        target = planes[:, ::step, ::step]
        values = np.cumsum(differences.reshape(len(planes), -1).astype(np.int64), 1)
        target[:] = self._checked(values).reshape(target.shape)

    # ---- the walk

    @torch.no_grad()
    def _walk(self, channels: int, size: tuple[int, ...], planes: Planes, code: Callable[[Stage], Planes]) -> None:
        """Visit all stages in coding order; `code` gives each stage's values, which are written into `planes` (they may be there already)."""
        octaves = octaves_of((size[0], size[1]))
        top = 1 << octaves
        misses = torch.full((1, CHANNELS, *planes[0, ::top, ::top].shape), 4.0 * LOCATION)
        for octave in reversed(range(octaves)):
            misses = self._octave(channels, planes, octave, misses, code)

    def _octave(self, channels: int, planes: Planes, octave: int, misses: Tensor, code: Callable[[Stage], Planes]) -> Tensor:
        step = 1 << octave
        grid = planes[:, ::step, ::step]
        half = (-(-grid.shape[1] // 2), -(-grid.shape[2] // 2))
        parts, missed = {"ee": padded(_tensor(grid[:, ::2, ::2]))}, {"ee": padded(misses)}
        full = torch.zeros(1, CHANNELS, *grid.shape[1:])
        full[:, :, ::2, ::2] = misses
        for g, (name, (i, j)) in enumerate(CELLS.items()):
            inside = (grid.shape[1] - i + 1) // 2, (grid.shape[2] - j + 1) // 2
            if not min(inside):
                parts[name], missed[name] = parts["ee"], missed["ee"]
                continue
            near = neighbours(missed, name)[:, : 4 * CHANNELS].view(1, 4, CHANNELS, *half).sum(1)
            values, errors = self._group(g, name, channels, parts, near, octave, planes, (i, j), inside, code)
            parts[name], missed[name] = padded(_extended(values, half)), padded(_extended(errors, half))
            full[:, :, i::2, j::2] = errors
        return full

    def _group(
        self, g: int, name: str, channels: int, parts: dict[str, Tensor], near: Tensor, octave: int, planes: Planes,
        cell: tuple[int, int], inside: tuple[int, int], code: Callable[[Stage], Planes],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        group: Group = self.network.groups[name]  # type: ignore[assignment]
        rows, columns = inside
        step = 1 << octave
        points = (slice(cell[0] * step, None, 2 * step), slice(cell[1] * step, None, 2 * step))
        h, total, difference, log = self._features(group, neighbours(parts, name), near, octave, rows, columns)
        values, errors = torch.zeros(1, CHANNELS, rows, columns), torch.zeros(1, CHANNELS, rows, columns)
        seen: list[Tensor] = []
        residuals: list[Tensor] = []
        for k in range(channels):
            location, scale = group.parameters_of(k, h, seen, total, difference, residuals, log)
            row = torch.floor(scale + 0.5).clamp_(0, LOG_RANGE - 1)
            chosen = choose(location.to(torch.int32).numpy().ravel(), row.to(torch.int32).numpy().ravel())
            found = code(Stage(g * CHANNELS + k, k, points, inside, chosen))
            planes[k][points] = found
            x = torch.from_numpy(np.ascontiguousarray(found)).to(torch.float32)[None]
            values[:, k] = x
            errors[:, k] = (LOCATION * x - location).abs()
            if k + 1 < channels:
                features, residual = group.observe(k, x, location, scale, total, log)
                seen.append(features)
                residuals.append(residual)
        return values, errors

    def _features(
        self, group: Group, around: Tensor, near: Tensor, octave: int, rows: int, columns: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`Group.features` of the first rows and columns, strip by strip: equal to one evaluation, as no strip's edge reaches what is kept."""
        reach, width = len(group.blocks), around.shape[3]
        height = max(8, STRIP // width)
        parts = []
        for y0 in range(0, rows, height):
            y1 = min(y0 + height, rows)
            top, bottom = max(0, y0 - reach), min(around.shape[2], y1 + reach)
            outs = group.features(around[:, :, top:bottom], near[:, :, top:bottom], octave)
            parts.append([t[:, :, y0 - top : y1 - top, :columns] for t in outs])
        return tuple(torch.cat(p, 2) for p in zip(*parts, strict=True))  # type: ignore[return-value]


def _tensor(planes: Planes) -> Tensor:
    """int32 [c, h, w] -> float32 [1, 3, h, w], missing channels zero."""
    full = torch.zeros(1, CHANNELS, *planes.shape[1:])
    full[0, : len(planes)] = torch.from_numpy(np.ascontiguousarray(planes))
    return full


def _extended(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The last row and column repeated up to `size`."""
    return torch.nn.functional.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]), mode="replicate")
