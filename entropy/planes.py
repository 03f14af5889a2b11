"""A prior for planes of small integers that needs no network: integer linear prediction, integer linear scales, counted tables.

    for each channel, for each step (coarse grid, then thrice a level the points between):
        what is decoded --weights--> mean, in quarters      the channel's own points around, the 3x3 around in earlier channels
                        --weights--> scale                  what the same points missed their means by
        (scale class, quarter) --> row of a counted table --> symbol - floor(mean)

Exact: all weights are integers, sums are carried in float32 and proven below 2**24, then floored by a power of two. So one file gives the
same symbols on every machine. Fitted in closed form by `train/fit_planes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.coder import Decoder, Encoder
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError

Planes = NDArray[np.int32]
LEVELS = 3  # the coarse grid has every 8th point
QUARTERS = 4  # means are in quarters of a step
MEAN_BITS = 10  # weights of means are in 2**-10 quarters
SCALE_BITS = 10
SCALE_UNIT = 16  # scales are in 1/16 of a quarter
CROSS = 4  # earlier channels whose 3x3 neighbourhoods help to predict a mean, the strongest; with 12 the rate falls by .4 %
HELPERS = 12  # channels before a channel whose misses help to predict its scale
BOUND = 1 << 24  # integers that float32 holds

_SQUARE = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
# for each kind of step: where in its cell of 2x2 the points lie, and which points around are decoded, nearest first
_KINDS: tuple[tuple[tuple[int, int], tuple[tuple[int, int], ...]], ...] = (
    ((0, 0), ()),
    ((1, 1), tuple((y, x) for r in ((1, 1), (1, 3), (3, 1)) for y in (-r[0], r[0]) for x in (-r[1], r[1]))),
    ((0, 1), ((0, -1), (0, 1), (-1, 0), (1, 0), (-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2))),
    ((1, 0), ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -2), (-1, 2), (1, -2), (1, 2))),
)
_NEAR = 8  # of these, so many help to predict the scale


@dataclass(frozen=True)
class Step:
    """Points (cell[0] * stride + 2 * stride * i, cell[1] * stride + 2 * stride * j) of one channel."""

    channel: int
    stride: int
    kind: int

    def points(self, size: tuple[int, int]) -> tuple[slice, slice]:
        cell, period = _KINDS[self.kind][0], self.stride * (2 if self.kind else 1)
        return slice(cell[0] * self.stride, size[0], period), slice(cell[1] * self.stride, size[1], period)


def steps(channels: int) -> list[Step]:
    """The order of coding."""
    fine = [(1 << level, kind) for level in reversed(range(LEVELS)) for kind in (1, 2, 3)]
    return [Step(c, stride, kind) for c in range(channels) for stride, kind in [(1 << LEVELS, 0), *fine]]


class View:
    """What a step may look at, while planes [channels, h, w] fill up. Reaching over an edge gives the nearest point of the same kind."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        h, w = self.size = size
        # a row and a column of zeros at the end stand for what does not exist: index -1
        self.values = np.zeros((channels, h + 1, w + 1), np.float32)
        self.misses = np.zeros((channels, h + 1, w + 1), np.float32)
        self._squares = np.zeros((min(channels, CROSS), h + 2, w + 2), np.float32)
        self._rings = np.zeros((channels, h, w), np.float32)
        self._kept: dict[tuple[int, int], NDArray[np.intp]] = {}

    def finish(self, channel: int) -> None:
        """All of a channel is decoded: make what later channels look at."""
        if channel < CROSS:
            self._squares[channel] = np.pad(self.values[channel, :-1, :-1], 1, mode="edge")
        misses = np.pad(self.misses[channel, :-1, :-1], 1, mode="edge")
        h, w = self.size
        self._rings[channel] = sum(misses[1 + y : 1 + y + h, 1 + x : 1 + x + w] for y, x in _SQUARE if (y, x) != (0, 0))

    def for_mean(self, step: Step) -> NDArray[np.float32]:
        """[features, N]: decoded values."""
        rows, columns = step.points(self.size)
        h, w = self.size
        own = self._around(self.values, step, len(_KINDS[step.kind][1]))
        strongest = self._squares[: min(step.channel, CROSS)]
        squares = [plane[1 + y : 1 + y + h, 1 + x : 1 + x + w][rows, columns] for plane in strongest for y, x in _SQUARE]
        return _stack([*own, *squares])

    def for_scale(self, step: Step) -> NDArray[np.float32]:
        """[features, N]: misses in quarters."""
        rows, columns = step.points(self.size)
        own = self._around(self.misses, step, _NEAR)
        earlier = [p[c, rows, columns] for c in _helpers(step) for p in (self.misses[:, :-1, :-1], self._rings)]
        return _stack([*own, *earlier])

    def _around(self, planes: NDArray[np.float32], step: Step, count: int) -> list[NDArray[np.float32]]:
        near = self._near(step)[:count]
        return list(planes[step.channel].ravel()[near]) if len(near) else []

    def _near(self, step: Step) -> NDArray[np.intp]:
        """[points around, N] into a flat plane; the same for all channels, so kept."""
        key = step.stride, step.kind
        if key not in self._kept:
            w = self.size[1] + 1
            rows, columns = (np.arange(n)[s] for n, s in zip(self.size, step.points(self.size), strict=True))
            at = [
                (_inside(rows + y * step.stride, self.size[0], step)[:, None] % (self.size[0] + 1)) * w
                + _inside(columns + x * step.stride, self.size[1], step) % w
                for y, x in _KINDS[step.kind][1]
            ]
            self._kept[key] = np.array(at, np.intp).reshape(len(at), len(rows) * len(columns))
        return self._kept[key]


def _stack(features: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack([f.ravel() for f in features]) if features else np.zeros((0, 0), np.float32)


def _inside(index: NDArray[np.int_], n: int, step: Step) -> NDArray[np.int_]:
    """Indices moved inside [0, n) by whole cells, so that they stay on decoded points; -1 where there is none."""
    period = 2 * step.stride
    index = np.where(index < 0, index % period, index)
    index = np.where(index >= n, index - -(-(index - n + 1) // period) * period, index)
    return np.where(index < 0, -1, index)


def _helpers(step: Step) -> range:
    """Earlier channels whose misses help to predict a scale."""
    return range(max(0, step.channel - HELPERS), step.channel)


def feature_peaks(step: Step, peak: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Largest magnitudes of the features for mean and scale, for values within +-peak."""
    miss = QUARTERS * 2 * peak
    mean = np.full(len(_KINDS[step.kind][1]) + 9 * min(step.channel, CROSS), peak)
    own = np.full(min(_NEAR, len(_KINDS[step.kind][1])), miss)
    return mean, np.concatenate([own, np.tile([miss, 8 * miss], len(_helpers(step)))]).astype(np.int64)


class _Port(Protocol):
    """Where symbols come from: the planes when encoding, a decoder when decoding."""

    def __call__(self, step: Step, base: NDArray[np.int32], rows: NDArray[np.int32]) -> NDArray[np.int32]: ...


class PlanePrior:
    """Frozen prior. Values lie within +-peak.

    mean, scale        int16, the weights of all steps one after the other, each step's bias in mean_bias, scale_bias (int32)
    thresholds         int32, rising: scale class = how many are <= the scale
    tables             row = scale class * 4 + quarter
    Raises ValueError if a sum could leave float32's integers.
    """

    def __init__(
        self, channels: int, peak: int, mean: NDArray[np.int16], mean_bias: NDArray[np.int32],
        scale: NDArray[np.int16], scale_bias: NDArray[np.int32], thresholds: NDArray[np.int32], tables: Tables,
    ) -> None:  # fmt: skip
        self.channels, self.peak, self.thresholds, self.tables = channels, peak, np.asarray(thresholds, np.int32), tables
        self.steps = steps(channels)
        peaks = [feature_peaks(s, peak) for s in self.steps]
        self._mean = _weights(mean, mean_bias, [p[0] for p in peaks])
        self._scale = _weights(scale, scale_bias, [p[1] for p in peaks])
        if tables.rows != (len(self.thresholds) + 1) * QUARTERS:
            raise ValueError(f"{tables.rows} tables do not fit {len(self.thresholds)} thresholds")

    def predict(self, view: View, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Step `index`: (mean in quarters, row of the tables), for each of its points."""
        step = self.steps[index]
        count = view.values[0, :-1, :-1][step.points(view.size)].size
        mean = predict_mean(*self._mean[index], view.for_mean(step), count, self.peak)
        scale = predict_scale(*self._scale[index], view.for_scale(step), count)
        kind = np.searchsorted(self.thresholds, scale, side="right").astype(np.int32)
        return mean, kind * QUARTERS + mean % QUARTERS

    def _walk(self, size: tuple[int, int], port: _Port) -> Planes:
        view = View(self.channels, size)
        for index, step in enumerate(self.steps):
            rows, columns = step.points(size)
            target = view.values[step.channel, :-1, :-1][rows, columns]
            if target.size:
                mean, table_rows = self.predict(view, index)
                values = port(step, mean // QUARTERS, table_rows)
                target[:] = values.reshape(target.shape)
                misses = np.abs(QUARTERS * values - mean)
                view.misses[step.channel, :-1, :-1][rows, columns] = misses.reshape(target.shape)
            if index + 1 == len(self.steps) or self.steps[index + 1].channel != step.channel:
                view.finish(step.channel)
        return view.values[:, :-1, :-1].astype(np.int32)

    def _of(self, planes: Planes, use: Any) -> None:
        if planes.shape[0] != self.channels or np.abs(planes).max(initial=0) > self.peak:
            raise ValueError(f"{self.channels} planes within +-{self.peak} expected")

        def port(step: Step, base: NDArray[np.int32], rows: NDArray[np.int32]) -> NDArray[np.int32]:
            values = planes[step.channel][step.points((planes.shape[1], planes.shape[2]))].ravel()
            use(values - base, rows)
            return values

        self._walk((planes.shape[1], planes.shape[2]), port)

    def encode(self, planes: Planes) -> bytes:
        """planes int32 [channels, h, w]."""
        encoder = Encoder()
        self._of(planes, lambda symbols, rows: encoder.push(symbols, rows, self.tables))
        return encoder.finish()

    def bits(self, planes: Planes) -> float:
        """Ideal code length."""
        costs: list[float] = []
        self._of(planes, lambda symbols, rows: costs.append(self.tables.bits(symbols, rows)))
        return sum(costs)

    def decode(self, blob: bytes, size: tuple[int, int]) -> Planes:
        """Inverse of `encode`. Raises FormatError on damaged bytes."""
        decoder = Decoder(blob)

        def port(step: Step, base: NDArray[np.int32], rows: NDArray[np.int32]) -> NDArray[np.int32]:
            values = decoder.pull(rows, self.tables) + base
            if np.abs(values).max() > self.peak:
                raise FormatError(f"damaged stream: a value beyond +-{self.peak}")
            return values

        planes = self._walk(size, port)
        decoder.close()
        return planes

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        out: dict[str, NDArray[Any]] = {f"{prefix}.thresholds": self.thresholds, **self.tables.state(f"{prefix}.tables")}
        for name, parts in (("mean", self._mean), ("scale", self._scale)):
            out[f"{prefix}.{name}"] = np.concatenate([w for w, _ in parts]).astype(np.int16)
            out[f"{prefix}.{name}_bias"] = np.array([b for _, b in parts], np.int32)
        return out

    @classmethod
    def from_state(cls, state: Mapping[str, Any], prefix: str, *, channels: int, peak: int) -> PlanePrior:
        tables = Tables.from_state(dict(state), f"{prefix}.tables")
        mean, mean_bias, scale, scale_bias, thresholds = (
            np.asarray(state[f"{prefix}.{n}"]) for n in ("mean", "mean_bias", "scale", "scale_bias", "thresholds")
        )
        return cls(channels, peak, mean, mean_bias, scale, scale_bias, thresholds, tables)


def _weights(flat: NDArray[Any], bias: NDArray[Any], peaks: list[NDArray[np.int64]]) -> list[tuple[NDArray[np.float32], int]]:
    """One (weights, bias) a step, the bound proven."""
    if len(flat) != sum(map(len, peaks)) or len(bias) != len(peaks):
        raise ValueError(f"{len(flat)} weights and {len(bias)} biases, {sum(map(len, peaks))} and {len(peaks)} expected")
    out, begin = [], 0
    for step, (peak, b) in enumerate(zip(peaks, bias.tolist(), strict=True)):
        w = flat[begin : begin + len(peak)].astype(np.int64)
        begin += len(peak)
        if int((np.abs(w) * peak).sum()) + abs(b) >= BOUND:
            raise ValueError(f"step {step}: sums could reach {BOUND}")
        out.append((w.astype(np.float32), b))
    return out


def _sum(weights: NDArray[np.float32], bias: int, features: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    total = weights @ features if len(weights) else np.zeros(count, np.float32)
    return total.astype(np.int32) + np.int32(bias)


def predict_mean(weights: NDArray[np.float32], bias: int, features: NDArray[np.float32], count: int, peak: int) -> NDArray[np.int32]:
    """Mean in quarters, within the range of values."""
    return np.clip(_sum(weights, bias, features, count) >> MEAN_BITS, -QUARTERS * peak, QUARTERS * peak)


def predict_scale(weights: NDArray[np.float32], bias: int, features: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    """Expected miss in units of 1 / SCALE_UNIT of a quarter."""
    return _sum(weights, bias, features, count) >> (SCALE_BITS - SCALE_UNIT.bit_length() + 1)


