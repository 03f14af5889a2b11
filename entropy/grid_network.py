"""The network of the hierarchical integer grid: what is decoded around a point -> where the next integer lies, and how far it may stray.

One octave splits a grid into four: "ee" (the coarser grid, coded before), then "oo", "eo", "oe", each seeing all groups before it from
every side; in each group the channels come one after the other, each seeing the residuals of those before.

    neighbours - mean of the nearest four, in quarters --/ mean absolute deviation--> features --blocks--> h --heads--> location, scale
    the same, undivided ---------------------------------- linear predictor ----------------------------------> (+) location

Nothing here knows units: features are divided by the neighbourhood's own deviation `act`, the location comes back in units of `act` and the
scale as a power of two beside it, so one network serves all octaves, bit depths and sources.

Exact (exact.py): every value is an integer carried in floats. The deviation is an integer sum; its logarithm is read off the float's bits
(three bits of mantissa, so 1/8 octave, piecewise linear), its reciprocal and itself are tables of twelve significant bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentpress.entropy.exact import Fixed, FixedConv2d, floor_through, leaky, to_fixed
from latentpress.entropy.frozen import freeze_layers

CHANNELS = 3
LOG_STEPS = 8  # of the logarithm, an octave
LOCATION = 16  # steps of a location, a unit of the samples
COARSE = 4  # log2 of the units that a step counted from the prediction has
DEVIATIONS = 12  # neighbours whose deviations are summed
OFFSET = 19  # added to their sum, in quarters: .4 of a unit for each
FEATURE = Fixed(frac=4, limit=96)
ACTIVATION = Fixed(frac=6, limit=2047)
OUTPUT = Fixed(frac=6, limit=1023)
UNITS = math.log2(4 * DEVIATIONS) * LOG_STEPS  # logarithm of a deviation of one unit
NARROW_PEAK = 65535  # 12 deviations of at most 8 peaks each, in quarters, stay below 2**24
MAX_PEAK = (1 << 25) - 1  # 12 deviations of 8 peaks stay below 2**32 (log_range), 16 peaks fit int32

# where the neighbours of a group lie, nearest four first: (group, rows down, columns right) in positions of the half-resolution grids
Place = tuple[str, int, int]
NEIGHBOURS: dict[str, tuple[Place, ...]] = {
    "oo": (
        ("ee", 0, 0), ("ee", 0, 1), ("ee", 1, 0), ("ee", 1, 1),
        *(("ee", y, x) for y in range(-1, 3) for x in range(-1, 3) if not (0 <= y <= 1 and 0 <= x <= 1)),
    ),
    "eo": (
        ("ee", 0, 0), ("ee", 0, 1), ("oo", -1, 0), ("oo", 0, 0),
        ("ee", -1, 0), ("ee", -1, 1), ("ee", 1, 0), ("ee", 1, 1), ("ee", 0, -1), ("ee", 0, 2), ("oo", -1, -1), ("oo", -1, 1),
        ("oo", 0, -1), ("oo", 0, 1), ("oo", -2, 0), ("oo", 1, 0),
    ),
    "oe": (
        ("ee", 0, 0), ("ee", 1, 0), ("oo", 0, -1), ("oo", 0, 0),
        ("eo", 0, -1), ("eo", 0, 0), ("eo", 1, -1), ("eo", 1, 0), ("ee", 0, -1), ("ee", 0, 1), ("ee", 1, -1), ("ee", 1, 1),
        ("ee", -1, 0), ("ee", 2, 0), ("oo", 0, -2), ("oo", 0, 1), ("eo", -1, 0), ("eo", 2, 0), ("eo", 0, -2), ("eo", 0, 1),
    ),
}  # fmt: skip
GROUPS = tuple(NEIGHBOURS)
MAX_LANES = 16
REACH = 3  # positions that a neighbour may lie away


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """width: features; blocks: residual blocks a group, expansion times as wide inside; head: hidden features of a channel's head;
    octaves: of the network's biases; cross: whether the linear predictor of a channel sees the other channels, as it should where they share
    a unit; modes: 2 where there are biases of their own for quantisation about the prediction; lanes: streams of large planes, which threads
    code side by side; fits: whether encoders may correct the predictions of an image (grid_fit.py)."""

    width: int = 48
    blocks: int = 2
    expansion: int = 2
    head: int = 32
    octaves: int = 5
    cross: bool = True
    modes: int = 1
    lanes: int = 1
    fits: bool = False
    peak: int = 255  # largest magnitude of a sample; see `wide`

    def __post_init__(self) -> None:
        if not 1 <= self.peak <= MAX_PEAK:
            raise ValueError(f"peak={self.peak}: 1 to {MAX_PEAK} expected")
        if self.modes not in (1, 2):
            raise ValueError(f"modes={self.modes}: 1 or 2 expected")
        if not 1 <= self.lanes <= MAX_LANES:
            raise ValueError(f"lanes={self.lanes}: 1 to {MAX_LANES} expected")

    @property
    def wide(self) -> bool:
        """Whether sums of samples exceed what float32 holds: neighbours, locations and errors are then carried in float64."""
        return self.peak > NARROW_PEAK

    @property
    def log_range(self) -> int:
        """Steps of the logarithm that scales and deviations can reach."""
        return LOG_STEPS * (32 if self.wide else 26)


def log_steps(x: Tensor) -> Tensor:
    """Integers >= 1 carried in floats -> float32, floor-like logarithm in 1/8 octaves, piecewise linear, exact: the top bits of the float itself."""
    if x.dtype == torch.float64:
        return ((x.contiguous().view(torch.int64) >> 49) - (1023 << 3)).to(torch.float32)
    return ((x.contiguous().view(torch.int32) >> 20) - (127 << 3)).to(torch.float32)


def level_of(log: Tensor) -> Tensor:
    """Feature of the deviation itself: its logarithm beside that of four units."""
    return (log - round(LOG_STEPS * (math.log2(4 * DEVIATIONS) + 2))).clamp(-FEATURE.limit, FEATURE.limit)


def miss_of(misses: Tensor, log: Tensor) -> Tensor:
    """Feature of how far the nearest four lay from their predictions (sum of |errors| in 1/16), beside the deviation."""
    return (2 * (log_steps(misses + 8) - log - round(LOG_STEPS * 6 - UNITS))).clamp(-FEATURE.limit, FEATURE.limit)


def _significant(values: Tensor, bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp(torch.round(mantissa * 2**bits), exponent - bits).float()


def _bucket_centres(count: int) -> Tensor:
    """Value of x in the middle of each step of log_steps."""
    step = torch.arange(count, dtype=torch.float64)
    return 2 ** (step // LOG_STEPS) * (1 + (step % LOG_STEPS + 0.5) / LOG_STEPS)


def _layers(module: nn.Module) -> list[Any]:
    """Children of a ModuleList, whose type is not known to say more."""
    return list(module.children())


class Group(nn.Module):
    """One pixel group of every octave. Interfaces in integers; the layers inside in real units while training."""

    deviation: Tensor
    reciprocal: Tensor
    scale_reciprocal: Tensor

    def __init__(self, config: GridConfig, name: str) -> None:
        super().__init__()
        self.places, c = NEIGHBOURS[name], config.width
        features = CHANNELS * len(self.places) + 2 * CHANNELS
        difference, correction = Fixed(frac=2, limit=8 * config.peak + 7), Fixed(frac=4, limit=max(1 << 20, LOCATION * config.peak))
        self.enter = FixedConv2d(features, c, 1, source=FEATURE, target=ACTIVATION)
        self.octave = nn.Parameter(torch.zeros(config.modes * config.octaves, c))
        self.modes = config.modes
        self.blocks = nn.ModuleList(
            nn.ModuleList([
                FixedConv2d(c, c, 3, source=ACTIVATION, target=ACTIVATION, groups=c),
                FixedConv2d(c, config.expansion * c, 1, source=ACTIVATION, target=ACTIVATION),
                FixedConv2d(config.expansion * c, c, 1, source=ACTIVATION, target=ACTIVATION),
            ]) for _ in range(config.blocks)
        )  # fmt: skip
        self.cross, self.wide, self.peak = config.cross, config.wide, config.peak
        inputs = [CHANNELS * len(self.places) + k if self.cross else len(self.places) for k in range(CHANNELS)]
        self.linear = nn.ModuleList(FixedConv2d(n, 1, 1, source=difference, target=correction) for n in inputs)
        self.head = nn.ModuleList(
            nn.ModuleList([
                FixedConv2d(c + 2 * k, config.head, 1, source=ACTIVATION, target=ACTIVATION),
                FixedConv2d(config.head, 2, 1, source=ACTIVATION, target=OUTPUT),
            ]) for k in range(CHANNELS)
        )  # fmt: skip
        self.mix = nn.Parameter(torch.tensor([[1.0, 0.3, -1.0]] * CHANNELS))
        self.relative = nn.Parameter(torch.tensor([[-0.5, 0.0, 1.0]] * CHANNELS))
        centres = _bucket_centres(config.log_range)
        self.register_buffer("deviation", _significant(LOCATION * centres / (4 * DEVIATIONS), 11), persistent=False)
        self.register_buffer("reciprocal", _significant(2.0**FEATURE.frac * DEVIATIONS / centres, 11), persistent=False)
        steps = torch.arange(config.log_range, dtype=torch.float64)
        self.register_buffer("scale_reciprocal", _significant(2 ** (-(steps - UNITS) / LOG_STEPS), 11), persistent=False)
        self.through, self.integer = True, False
        self._start()

    def _start(self) -> None:
        """Quiet outputs: the first prediction is the mean of the nearest four."""
        narrow, outer = [_layers(b)[2] for b in self.blocks], [_layers(h)[1] for h in self.head]
        for layers, spread in ((narrow, 0.02), (outer, 0.01), (_layers(self.linear), 0.0)):
            for layer in layers:
                nn.init.normal_(layer.weight, std=spread)
                nn.init.zeros_(layer.bias)

    def _inside(self, integers: Tensor, frac: int) -> Tensor:
        """Integers to what the layers take: real units while training, themselves when frozen."""
        return integers if self.integer else integers / 2.0**frac

    def _outside(self, values: Tensor, frac: int) -> Tensor:
        return values if self.integer else values * 2.0**frac

    def activation(self, x: Tensor) -> Tensor:
        return leaky(x, (0 if self.integer else ACTIVATION.frac) if self.through else None)

    def clip(self, x: Tensor) -> Tensor:
        limit = ACTIVATION.limit / (1 if self.integer else 2**ACTIVATION.frac)
        return x.clamp(-limit, limit) if x.requires_grad else x.clamp_(-limit, limit)

    def octave_bias(self, octave: int, mode: int = 0) -> Tensor:
        octaves = len(self.octave) // self.modes
        row = self.octave[min(mode, self.modes - 1) * octaves + min(octave, octaves - 1)][:, None, None]
        return row if self.integer or not self.through else to_fixed(row, ACTIVATION)

    def features(self, around: Tensor, misses: Tensor, octave: int, mode: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """around [b, 3 n, h, w] integers, place by place; misses [b, 3, h, w]: sum of the nearest four's |error| in 1/16.

        Gives (h [b, width, h, w], sum of the nearest four [b, 3, h, w], differences in quarters [b, 3 n, h, w], log deviation [b, 3, h, w]).
        """
        b, _, height, width = around.shape
        places = around.view(b, -1, CHANNELS, height, width)
        total = places[:, :4].sum(1)
        difference = 4 * places - total[:, None]
        log = log_steps(difference[:, :DEVIATIONS].abs().sum(1) + OFFSET)
        reciprocal = self.reciprocal[log.long()]
        divided = torch.floor(difference * reciprocal[:, None] + 0.5).clamp(-FEATURE.limit, FEATURE.limit)
        level, miss = level_of(log), miss_of(misses, log)
        x = torch.cat([divided.flatten(1, 2).float(), level, miss], 1)
        h = self.clip(self.enter(self._inside(x, FEATURE.frac)) + self.octave_bias(octave, mode))
        for block in self.blocks:
            depthwise, wide, narrow = _layers(block)
            h = self.clip(h + narrow(self.activation(wide(self.activation(depthwise(h))))))
        return self.activation(h), total, difference.flatten(1, 2), log

    def parameters_of(
        self, channel: int, h: Tensor, seen: list[Tensor], total: Tensor, difference: Tensor, residuals: list[Tensor], log: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(location in 1/16 [b, h, w], log2 of the scale in 1/8 [b, h, w]); seen, residuals: what `observe` gave for the channels before."""
        enter, leave = _layers(self.head[channel])
        out = self._outside(leave(self.activation(enter(torch.cat([h, *seen], 1)))), OUTPUT.frac)
        near = torch.cat([difference, *residuals], 1) if self.cross else difference[:, channel::CHANNELS]
        base = self._outside(self.linear[channel](self._inside(near, 2))[:, 0], 4)
        deviation = self.deviation[log[:, channel].long()]
        location = 4 * total[:, channel] + base + floor_through(out[:, 0] * deviation / 2.0**OUTPUT.frac)
        if self.wide:
            location = location.clamp(-LOCATION * self.peak, LOCATION * self.peak)  # so that it fits int32
        return location, log[:, channel] + out[:, 1] / LOG_STEPS

    def observe(self, channel: int, x: Tensor, location: Tensor, scale: Tensor, total: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
        """Features [b, 2, h, w] and residual in quarters [b, 1, h, w] that a decoded channel gives to the next ones."""
        residual = 4 * x - total[:, channel]
        near = torch.floor(residual * self.reciprocal[log[:, channel].long()] + 0.5)
        row = torch.floor(scale.detach() + 0.5).clamp(0, len(self.scale_reciprocal) - 1).long()
        error = torch.floor((LOCATION * x - location.detach()) * self.scale_reciprocal[row] + 0.5)
        seen = torch.stack([near, error], 1).clamp(-FEATURE.limit, FEATURE.limit).float()
        return self._inside(seen * 2.0 ** (ACTIVATION.frac - FEATURE.frac), ACTIVATION.frac), residual[:, None]

    def bits(self, channel: int, centre: Tensor, scale: Tensor) -> Tensor:
        """-log2 of the mixture's mass on [centre - 1/2, centre + 1/2], summed over each of the b: [b]."""
        s = torch.exp2((scale - UNITS) / LOG_STEPS)[:, None] * torch.exp(self.relative[channel])[:, None, None]
        s = s.clamp_min(0.04)
        high, low = (centre[:, None] + 0.5) / s, (centre[:, None] - 0.5) / s
        flip = torch.where(high + low > 0, -1.0, 1.0)
        mass = (torch.sigmoid(flip * high) - torch.sigmoid(flip * low)).abs()
        mass = (mass * torch.softmax(self.mix[channel], 0)[:, None, None]).sum(1)
        return -torch.log2(mass * 0.9999 + 1e-4 / 1024).sum((1, 2))

    def coded(self, channel: int, x: Tensor, location: Tensor, scale: Tensor, coarse: int) -> tuple[Tensor, Tensor]:
        """(bits [b], what is decoded [b, h, w]) of targets x. coarse 0: integers, which come back. Above: steps of 2**coarse are counted from the
        prediction, so that a smooth field costs nothing wherever the prediction is close enough."""
        if not coarse:
            return self.bits(channel, x - location / LOCATION, scale), x
        step, scale = float(1 << coarse), scale - LOG_STEPS * coarse
        base = torch.floor(location.detach() / LOCATION + 0.5)
        steps = torch.floor((x - base) / step + 0.5)
        # what the step count is does not depend on the location smoothly: its gradient is that of the distance that was rounded
        near = self.bits(channel, (x - location / LOCATION) / step, scale.detach())
        return self.bits(channel, steps, scale) + near - near.detach(), base + step * steps


def neighbours(parts: Mapping[str, Tensor], name: str) -> Tensor:
    """parts: groups decoded so far, [b, c, h, w] each, padded by REACH -> [b, n c, h, w], place by place."""
    found = []
    for source, dy, dx in NEIGHBOURS[name]:
        part = parts[source]
        h, w = part.shape[2] - 2 * REACH, part.shape[3] - 2 * REACH
        found.append(part[:, :, REACH + dy : REACH + dy + h, REACH + dx : REACH + dx + w])
    return torch.cat(found, 1)


def padded(x: Tensor) -> Tensor:
    return F.pad(x, (REACH,) * 4, mode="replicate")


class GridNetwork(nn.Module):
    """All groups. forward: integers [b, 3, h, w], sides multiples of 2**octaves -> bits [b] of each octave and group, coarse octaves first.

    With coarse > 0 the samples are real numbers and come back within 2**coarse / 2 of where they were (`Group.coded`).
    """

    def __init__(self, config: GridConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GridConfig()
        self.groups = nn.ModuleDict({name: Group(config, name) for name in GROUPS})

    def freeze(self) -> GridNetwork:
        """The same wiring over IntegerConv2d layers."""
        frozen = copy.deepcopy(self)
        freeze_layers(frozen)
        for module in frozen.modules():
            if isinstance(module, Group):
                module.octave = nn.Parameter(torch.floor(module.octave.detach() * 2**ACTIVATION.frac + 0.5), requires_grad=False)
                module.integer = module.through = True
        return frozen.eval().requires_grad_(False)

    def set_through(self, on: bool) -> None:
        for module in self.modules():
            if isinstance(module, FixedConv2d | Group):
                module.through = on

    def group_bits(
        self, name: str, parts: Mapping[str, Tensor], misses: Mapping[str, Tensor], x: Tensor, octave: int, present: Tensor, coarse: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(bits [b], what is decoded [b, 3, h, w], its |errors| in 1/16); present [b, 3]: 1 for channels that count."""
        group: Group = self.groups[name]  # type: ignore[assignment]
        around = neighbours(parts, name)
        near = neighbours(misses, name)[:, : 4 * CHANNELS].view(x.shape[0], 4, CHANNELS, *x.shape[2:]).sum(1)
        h, total, difference, log = group.features(around, near, octave, min(coarse, 1))
        bits = x.new_zeros(len(x))
        seen: list[Tensor] = []
        residuals: list[Tensor] = []
        decoded: list[Tensor] = []
        errors: list[Tensor] = []
        for k in range(CHANNELS):
            location, scale = group.parameters_of(k, h, seen, total, difference, residuals, log)
            cost, found = group.coded(k, x[:, k], location, scale, coarse)
            bits = bits + present[:, k] * cost
            features, residual = group.observe(k, found, location, scale, total, log)
            seen.append(features)
            residuals.append(residual)
            decoded.append(found)
            errors.append((LOCATION * found - location.detach()).abs())
        return bits, torch.stack(decoded, 1), torch.stack(errors, 1)

    def forward(self, x: Tensor, octaves: int = 5, present: Tensor | None = None, coarse: int = 0) -> list[Tensor]:
        present = x.new_ones(len(x), CHANNELS) if present is None else present
        grids = [x]
        for _ in range(octaves):
            grids.append(grids[-1][:, :, ::2, ::2])
        step = float(1 << coarse)
        decoded = torch.floor(grids[-1] / step + 0.5) * step
        misses = torch.full_like(decoded, 4.0 * LOCATION)
        bits = []
        for octave in reversed(range(octaves)):
            grid = grids[octave]
            parts, missed = {"ee": padded(decoded)}, {"ee": padded(misses)}
            full, errors = torch.empty_like(grid), torch.empty_like(grid)
            full[:, :, ::2, ::2], errors[:, :, ::2, ::2] = decoded, misses
            for name, (i, j) in {"oo": (1, 1), "eo": (0, 1), "oe": (1, 0)}.items():
                part = grid[:, :, i::2, j::2]
                cost, found, error = self.group_bits(name, parts, missed, part, octave, present, coarse)
                bits.append(cost)
                parts[name], missed[name] = padded(found), padded(error)
                full[:, :, i::2, j::2], errors[:, :, i::2, j::2] = found, error
            decoded, misses = full, errors
        return bits
