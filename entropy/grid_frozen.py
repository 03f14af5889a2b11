"""The frozen network of the grid, fast: the integers of `Group`, by matrix products over strips of rows into buffers made once.

    neighbours --strip--> features --mm--> h --depthwise, mm, mm--> h ... --mm--> heads --mm--> location, scale of the first channel
                                                                     \\--------- + what was seen --> of the next channels, one by one

Skipped work, nothing else: rectifying comes before the one floor (both are monotone, so they commute), all heads share a product, channels that
are empty leave the first layer, and a plane of features stays for the next block, so that no strip repeats another's rows. Strips write to places
of their own: any number of threads takes them in any order.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentpress.entropy.exact import IntegerConv2d
from latentpress.entropy.grid_network import (
    ACTIVATION,
    CHANNELS,
    DEVIATIONS,
    FEATURE,
    LOCATION,
    LOG_STEPS,
    OFFSET,
    OUTPUT,
    REACH,
    Group,
    level_of,
    log_steps,
    miss_of,
)

LEAST = 2048  # positions that are worth a second thread
Work = Callable[[int, int], None]


class Strips:
    """Calls work(first row, row after the last) for strips of at most about `positions` positions, on as many threads as there are."""

    def __init__(self, positions: int, pool: ThreadPoolExecutor | None = None, threads: int = 1) -> None:
        self.positions, self.pool, self.threads = positions, pool, threads

    def run(self, work: Work, rows: tuple[int, int], columns: int, *, alone: bool = False) -> None:
        """alone: on the thread that calls."""
        share = 1 if alone or self.pool is None or (rows[1] - rows[0]) * columns < LEAST else self.threads
        strips = even(rows, -(-(rows[1] - rows[0]) * columns // self.positions), share)
        for _ in map(work, *zip(*strips, strict=True)) if share == 1 or self.pool is None else self.pool.map(work, *zip(*strips, strict=True)):
            pass

    def beside(self, work: Callable[[int], None], items: Iterable[int]) -> None:
        """work(item) for each, on as many threads as there are."""
        for _ in map(work, items) if self.pool is None else self.pool.map(work, items):
            pass


def even(rows: tuple[int, int], count: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Rows in `count` strips, or a few more so that threads share them evenly, each of about as many rows; none is empty."""
    first, last = rows
    count = min(max(1, -(-count // multiple) * multiple), last - first)
    edges = [first + (last - first) * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


@contextmanager
def strips(positions: int, total: int) -> Iterator[Strips]:
    """Threads for grids of `total` positions: torch's number of them, each with kernels of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads == 1 or total <= positions:
            yield Strips(positions)
        else:
            with ThreadPoolExecutor(threads) as pool:
                yield Strips(positions, pool, threads)
    finally:
        torch.set_num_threads(threads)


class Buffers(threading.local):
    """Memory that is asked for again and again: of each thread its own."""

    def __init__(self) -> None:
        self.flat: dict[tuple[str, torch.dtype], Tensor] = {}

    def get(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uninitialised; what the last of this name held is gone."""
        need = int(torch.Size(shape).numel())
        flat = self.flat.get((name, dtype))
        if flat is None or len(flat) < need:
            flat = self.flat[name, dtype] = torch.empty(need, dtype=dtype)
        return flat[:need].view(shape)


@dataclass(frozen=True)
class Product:
    """A 1x1 layer: weight [outputs, inputs], bias [outputs, 1]; what comes out still needs its clamp and floor."""

    weight: Tensor
    bias: Tensor
    limit: int

    @classmethod
    def of(cls, layer: IntegerConv2d) -> Product:
        return cls(layer.weight[:, :, 0, 0].contiguous(), layer.bias[:, None].contiguous(), layer.target.limit)

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.weight, x, out=out)


def _rectified(z: Tensor) -> Tensor:
    """leaky(clamp(floor(z))) in place."""
    return F.leaky_relu_(z.clamp_(-ACTIVATION.limit, ACTIVATION.limit), 0.125).floor_()


class FrozenGroup:
    """Weights of a frozen `Group` for planes of which the first `channels` hold something."""

    def __init__(self, group: Group, channels: int) -> None:
        self.group, self.channels, self.places = group, channels, group.places
        layers: Any = group
        count, c = CHANNELS * len(group.places), channels
        enter = Product.of(layers.enter)
        kept = [i for i in range(count + CHANNELS) if i % CHANNELS < c] + list(range(count + CHANNELS, count + 2 * CHANNELS))
        self.empty_log = float(log_steps(torch.tensor([float(OFFSET)])))
        empty = enter.weight[:, count + c : count + CHANNELS].double().sum(1, keepdim=True) * float(level_of(torch.tensor(self.empty_log)))
        self.enter = Product(enter.weight[:, kept].contiguous(), (enter.bias.double() + empty).float(), enter.limit)
        self.blocks = [(block[0], Product.of(block[1]), Product.of(block[2])) for block in layers.blocks]
        self._take_heads(layers)
        self._take_linear(layers, count)

    def _take_heads(self, layers: Any) -> None:
        width = self.enter.weight.shape[0]
        heads = [Product.of(head[0]) for head in layers.head][: self.channels]
        self.head = [Product(h.weight[:, :width].contiguous(), h.bias, h.limit) for h in heads]
        self.seen = [h.weight[:, width:].contiguous() for h in heads]
        self.leave = [Product.of(head[1]) for head in layers.head][: self.channels]
        self.rest = None
        if self.channels > 1:
            self.rest = Product(torch.cat([h.weight for h in self.head[1:]]), torch.cat([h.bias for h in self.head[1:]]), ACTIVATION.limit)

    def _take_linear(self, layers: Any, count: int) -> None:
        """One product for all channels' linear predictors, float64 if one of them is."""
        linear = [Product.of(layer) for layer in layers.linear][: self.channels]
        self.sum_type = torch.float64 if any(p.weight.dtype == torch.float64 for p in linear) else torch.float32
        weight = torch.zeros(self.channels, count, dtype=self.sum_type)
        for k, p in enumerate(linear):
            weight[k, slice(None) if layers.cross else slice(k, None, CHANNELS)] = p.weight[0, :count].to(self.sum_type)
        kept = [i for i in range(count) if i % CHANNELS < self.channels]
        self.linear = Product(weight[:, kept].contiguous(), torch.cat([p.bias for p in linear]).to(self.sum_type), linear[0].limit)
        self.residual = [p.weight[0, count:].to(self.sum_type) for p in linear]


class GroupPass:
    """One group of one octave: location and scale of all its points, channel by channel.

    quarters: groups before, 4 x, [c, H + 2 REACH, W + 2 REACH] in the carrier;  missed: the same of |errors| in 1/16, all three channels
    location int32 [c, H, W] in 1/16;  scale int32 [c, H, W], log2 in 1/8: both filled as `first` and then `next` are called
    """

    def __init__(
        self, frozen: FrozenGroup, quarters: Mapping[str, Tensor], missed: Mapping[str, Tensor], octave: int, buffers: Buffers, runner: Strips,
        closed: bool = False,
    ) -> None:  # fmt: skip
        self.frozen, self.group, self.quarters, self.missed, self.buffers, self.runner = frozen, frozen.group, quarters, missed, buffers, runner
        c, ee = frozen.channels, quarters["ee"]
        self.carrier = ee.dtype
        self.height, self.width = ee.shape[1] - 2 * REACH, ee.shape[2] - 2 * REACH
        self.octave = frozen.group.octave_bias(octave, int(closed))[:, 0]
        size, width = (self.height, self.width), frozen.enter.weight.shape[0]
        plane = buffers.get  # of the main thread: strips get buffers of their own threads under other names
        self.total = plane("plane total", c, *size, dtype=self.carrier)
        self.log = plane("plane log", c, *size, dtype=torch.int32)
        self.near = plane("plane near", c, size[0] * size[1], dtype=frozen.sum_type)
        self.location, self.scale = (plane(f"plane {name}", c, *size, dtype=torch.int32) for name in ("location", "scale"))
        self.h = [plane(f"plane h{i}", width, size[0] + 2, size[1]) for i in range(min(2, len(frozen.blocks)))]
        for h in self.h:
            h[:, 0] = h[:, -1] = 0
        if frozen.rest is not None:
            self.x = plane("plane x", *size, dtype=self.carrier).zero_()
            self.heads = plane("plane heads", len(frozen.rest.bias), size[0] * size[1])
            self.seen = plane("plane seen", 2 * (c - 1), size[0] * size[1])
            self.residual = plane("plane residual", c - 1, size[0] * size[1], dtype=frozen.sum_type)

    def first(self) -> None:
        """Features, blocks, and location and scale of channel 0."""
        self._run(self._enter)
        for b in range(len(self.frozen.blocks)):
            self._run(lambda y0, y1, b=b: self._block(b, y0, y1))  # type: ignore[misc]

    def next(self, channel: int, x: Tensor, rows: tuple[int, int] | None = None) -> None:
        """Location and scale of `channel`, given the samples x (carrier, up to [H, W]) of the one before. rows: those that x holds and that are
        wanted, on the thread that calls; None: all, on all threads."""
        first, last = rows or (0, len(x))
        self.x[first:last, : x.shape[1]] = x
        self._run(lambda y0, y1: self._later(channel, y0, y1), rows)

    def _run(self, work: Work, rows: tuple[int, int] | None = None) -> None:
        def quiet(y0: int, y1: int) -> None:
            with torch.no_grad():  # of the thread
                work(y0, y1)

        self.runner.run(quiet, rows or (0, self.height), self.width, alone=rows is not None)

    # ---- first layer

    def _enter(self, y0: int, y1: int) -> None:
        frozen, c, n, at = self.frozen, self.frozen.channels, (y1 - y0) * self.width, slice(y0 * self.width, y1 * self.width)
        difference = self._difference(y0, y1)
        torch.addmm(frozen.linear.bias, frozen.linear.weight, difference.to(frozen.sum_type), out=self.near[:, at])
        absolute = self.buffers.get("absolute", DEVIATIONS * c, n, dtype=self.carrier)
        torch.abs(difference[: DEVIATIONS * c], out=absolute)
        log = log_steps(absolute.view(DEVIATIONS, c, n).sum(0).add_(OFFSET))
        index = log.to(torch.int32)
        self.log.view(c, -1)[:, at] = index
        count = len(difference)
        x = self.buffers.get("features", count + c + CHANNELS, n)
        divided = x[:count].view(-1, c, n) if self.carrier == torch.float32 else absolute.new_empty(count // c, c, n)
        torch.mul(difference.view(-1, c, n), _looked_up(self.group.reciprocal, index), out=divided)
        divided.add_(0.5).clamp_(-FEATURE.limit, FEATURE.limit).floor_()
        if divided.dtype != x.dtype:
            x[:count] = divided.view(count, n)
        x[count : count + c] = level_of(log)
        x[count + c :] = self._misses(log, y0, y1)
        if self.h:
            h = self.h[0].view(len(self.h[0]), -1)[:, (y0 + 1) * self.width : (y1 + 1) * self.width]
        else:
            h = self.buffers.get("strip", len(frozen.enter.bias), n)
        frozen.enter(x, h).clamp_(-ACTIVATION.limit, ACTIVATION.limit).floor_().add_(self.octave).clamp_(-ACTIVATION.limit, ACTIVATION.limit)
        if not self.h:
            self._first_head(h, y0, y1)

    def _difference(self, y0: int, y1: int) -> Tensor:
        """[places c, n]: neighbours minus the mean of the nearest four, in quarters; also fills `total`."""
        views = [
            self.quarters[source][:, REACH + dy + y0 : REACH + dy + y1, REACH + dx : REACH + dx + self.width]
            for source, dy, dx in self.frozen.places
        ]
        total = self.total[:, y0:y1]
        torch.add(views[0], views[1], out=total)
        total.add_(views[2]).add_(views[3]).mul_(0.25)
        out = self.buffers.get("difference", len(views), *total.shape, dtype=self.carrier)
        for view, row in zip(views, out, strict=True):
            torch.sub(view, total, out=row)
        return out.view(len(views) * len(total), -1)

    def _misses(self, log: Tensor, y0: int, y1: int) -> Tensor:
        views = [
            self.missed[source][:, REACH + dy + y0 : REACH + dy + y1, REACH + dx : REACH + dx + self.width]
            for source, dy, dx in self.frozen.places[:4]
        ]
        near = (views[0] + views[1] + views[2] + views[3]).view(CHANNELS, -1)
        logs = log.new_full(near.shape, self.frozen.empty_log)
        logs[: len(log)] = log
        return miss_of(near, logs)

    # ---- blocks

    def _block(self, b: int, y0: int, y1: int) -> None:
        depthwise, wide, narrow = self.frozen.blocks[b]
        source = self.h[b % 2]
        c, n = len(source), (y1 - y0) * self.width
        window = source[None, :, y0 : y1 + 2]
        z = F.conv2d(window, depthwise.weight, depthwise.bias, padding=(0, 1), groups=depthwise.groups).view(c, n)
        z = _rectified(wide(_rectified(z), self.buffers.get("wide", len(wide.bias), n)))
        z = narrow(z, self.buffers.get("narrow", c, n)).clamp_(-narrow.limit, narrow.limit).floor_()
        inside = slice((y0 + 1) * self.width, (y1 + 1) * self.width)
        last = b + 1 == len(self.frozen.blocks)
        out = z if last else self.h[(b + 1) % 2].view(c, -1)[:, inside]
        torch.add(source.view(c, -1)[:, inside], z, out=out)
        out.clamp_(-ACTIVATION.limit, ACTIVATION.limit)
        if last:
            self._first_head(out, y0, y1)

    # ---- heads

    def _first_head(self, h: Tensor, y0: int, y1: int) -> None:
        h = F.leaky_relu_(h, 0.125).floor_()
        if self.frozen.rest is not None:
            self.frozen.rest(h, self.heads[:, y0 * self.width : y1 * self.width])
        head = self.frozen.head[0]
        self._head(0, head(h, self.buffers.get("head", len(head.bias), h.shape[1])), y0, y1)

    def _later(self, k: int, y0: int, y1: int) -> None:
        at = slice(y0 * self.width, y1 * self.width)
        self._observe(k - 1, self.x[y0:y1].reshape(-1), at)
        rows = len(self.frozen.head[k].bias)
        head = self.heads[(k - 1) * rows : k * rows, at]
        head.addmm_(self.frozen.seen[k], self.seen[: 2 * k, at])
        self._head(k, head, y0, y1)

    def _observe(self, k: int, x: Tensor, at: slice) -> None:
        """What a decoded channel gives to the next ones (Group.observe)."""
        log, scale, location = (t.view(len(t), -1)[k, at] for t in (self.log, self.scale, self.location))
        residual = 4 * x - self.total.view(len(self.total), -1)[k, at]
        self.residual[k, at] = residual
        error = LOCATION * x - location.to(x.dtype)
        for row, values, table, index in ((0, residual, self.group.reciprocal, log), (1, error, self.group.scale_reciprocal, scale)):
            near = (values * _looked_up(table, index)).add_(0.5).floor_().clamp_(-FEATURE.limit, FEATURE.limit)
            self.seen[2 * k + row, at] = near * 2.0 ** (ACTIVATION.frac - FEATURE.frac)

    def _head(self, k: int, z: Tensor, y0: int, y1: int) -> None:
        frozen, at = self.frozen, slice(y0 * self.width, y1 * self.width)
        leave = frozen.leave[k]
        out = leave(_rectified(z), self.buffers.get("out", 2, z.shape[1])).clamp_(-OUTPUT.limit, OUTPUT.limit).floor_()
        base = self.near[k, at]
        for j in range(k if self.group.cross else 0):
            base.add_(self.residual[j, at] * frozen.residual[k][j])
        base = base.floor_().clamp_(-frozen.linear.limit, frozen.linear.limit).to(self.carrier)
        index = self.log.view(len(self.log), -1)[k, at]
        moved = torch.floor(out[0] * _looked_up(self.group.deviation, index) / 2.0**OUTPUT.frac)
        location = 4 * self.total.view(len(self.total), -1)[k, at] + base + moved
        if self.group.wide:
            location.clamp_(-LOCATION * self.group.peak, LOCATION * self.group.peak)
        self.location.view(len(self.location), -1)[k, at] = location.to(torch.int32)
        scale = index.to(torch.float32).add_(out[1] / LOG_STEPS).add_(0.5).floor_().clamp_(0, len(self.group.scale_reciprocal) - 1)
        self.scale.view(len(self.scale), -1)[k, at] = scale.to(torch.int32)


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.reshape(-1)).view(index.shape)
