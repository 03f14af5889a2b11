"""Scale-and-mean hyperprior with a four-step context, trainable and frozen to integers.

    y --hyper analysis--> z --round--> z^ --hyper synthesis--> base + bias(level)
                                                                  |
    step k = 0..3:   known y^ --5x5 depthwise, 1x1--> (+) --> 1x1, 3x3 depthwise, 1x1 --> mean, log scale of a quarter of the elements
                        ^----------------- mean + round(y - mean) <----------------------'

In step k each 2x2 patch gives one position to each of four channel groups (a Latin square), so that every step sees neighbours in space
and in channels, in four vectorised evaluations. Hyperprior: Balle et al. 2018, Minnen et al. 2018 (mean and scale); four steps: our own,
in the line of the checkerboard of He et al. 2021 and of channel slices (Minnen and Singh 2020).

Everything behind z^ is exact (exact.py): fixed point with the formats below. Quality enters as an integer level with its own integer biases.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.entropy.exact import Fixed, FixedConv2d, leaky, round_through, to_fixed
from latentpress.entropy.frozen import freeze_layers
from latentpress.entropy.priors import FactorizedPrior, GaussianConditional
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError

HYPER = Fixed(frac=0, limit=127)
ACTIVATION = Fixed(frac=6, limit=2048)
HIDDEN = Fixed(frac=6, limit=1024)  # inside the hyper synthesis, whose last layer has the largest norm: a tighter range buys it weight bits
LATENT = Fixed(frac=4, limit=8192)  # what the context sees of y^; y^ itself is not clamped
OUTPUT = Fixed(frac=4, limit=16384)  # means, and log scales before they become rows
LEVEL_STEPS = 128  # integer levels between two rows of the learned tables
STEPS = 4
Rows = NDArray[np.int16] | NDArray[np.uint8]
POSITIONS = ((0, 0), (1, 1), (0, 1), (1, 0))
MAX_RESIDUAL = 1 << 18  # keeps y^ in sixteenths exact in float32



@dataclass(frozen=True, kw_only=True)
class HyperpriorConfig:
    latents: int = 320
    hyper: int = 64
    hidden: int = 96
    context: int = 192
    levels: int = 8

    def __post_init__(self) -> None:
        if self.latents % 4 or self.hidden % 8 or self.levels < 2:
            raise ValueError(f"latents={self.latents} must divide by 4, hidden={self.hidden} by 8, levels={self.levels} be at least 2")


def gather(y: Tensor, step: int) -> Tensor:
    """[b, m, h, w] -> the elements of this step [b, m, h/2, w/2]."""
    q = y.shape[1] // 4
    parts = []
    for g in range(4):
        i, j = POSITIONS[(step + g) % 4]
        parts.append(y[:, g * q : (g + 1) * q, i::2, j::2])
    return torch.cat(parts, 1)


def scatter(target: Tensor, values: Tensor, step: int) -> Tensor:
    """Write the elements of this step into target [b, m, h, w], in place."""
    q = target.shape[1] // 4
    for g in range(4):
        i, j = POSITIONS[(step + g) % 4]
        target[:, g * q : (g + 1) * q, i::2, j::2] = values[:, g * q : (g + 1) * q]
    return target


def interpolate(table: Tensor, level: Tensor) -> Tensor:
    """Rows of table [levels, c] at real levels [b] in [0, levels - 1]: [b, c, 1, 1]."""
    below = level.floor().long().clamp(0, len(table) - 2)
    weight = (level - below)[:, None]
    return (table[below] * (1 - weight) + table[below + 1] * weight)[:, :, None, None]


class PriorNetwork(nn.Module):
    """The exact half: z^ and the known part of y^ to means and log scales. One wiring for float, straight-through and integer layers.

    Units: real in training; units of the last place of the formats above when frozen (`integer`).
    """

    def __init__(self, config: HyperpriorConfig) -> None:
        super().__init__()
        m, h, c, n = config.latents, config.hyper, config.context, config.hidden
        a, s = ACTIVATION, HIDDEN
        self.up = nn.ModuleList([
            FixedConv2d(h, 4 * n, 1, source=HYPER, target=s),
            FixedConv2d(n, n, 3, source=s, target=s, groups=8),
            FixedConv2d(n, 4 * n, 1, source=s, target=s),
            FixedConv2d(n, c, 3, source=s, target=a),
        ])  # fmt: skip
        self.near = nn.ModuleList(FixedConv2d(m, m, 5, source=LATENT, target=a, groups=m) for _ in range(STEPS - 1))
        self.mix = nn.ModuleList(FixedConv2d(m, c, 1, source=a, target=a) for _ in range(STEPS - 1))
        self.block = nn.ModuleList([
            FixedConv2d(c, c, 1, source=a, target=a),
            FixedConv2d(c, c, 3, source=a, target=a, groups=c),
            FixedConv2d(c, c, 1, source=a, target=a),
        ])  # fmt: skip
        self.out = nn.ModuleList(FixedConv2d(c, m // 2, 1, source=a, target=OUTPUT) for _ in range(4 * STEPS))
        self.level_bias = nn.Parameter(torch.zeros(config.levels, c))
        self.latents, self.hyper = m, h
        self.integer = False

    @property
    def through(self) -> bool:
        return self.integer or bool(self.up[0].through)

    def set_through(self, on: bool) -> None:
        """Compute with the integers of the frozen network (True) or in plain float (False) while training."""
        for layer in self.modules():
            if isinstance(layer, FixedConv2d):
                layer.through = on

    def activation(self, x: Tensor) -> Tensor:
        return leaky(x, (0 if self.integer else ACTIVATION.frac) if self.through else None)

    def clip(self, x: Tensor) -> Tensor:
        if not self.through:
            return x
        limit = ACTIVATION.limit if self.integer else ACTIVATION.limit / 2**ACTIVATION.frac
        return x.clamp(-limit, limit)

    def base(self, z: Tensor, bias: Tensor) -> Tensor:
        """z^ [b, hyper, h/4, w/4], bias [b, context, 1, 1] -> [b, context, h, w]."""
        x = self.activation(F.pixel_shuffle(self.up[0](z), 2))
        x = self.activation(F.pixel_shuffle(self.up[2](self.up[1](x)), 2))
        return self.clip(self.up[3](x) + bias)

    def parameters_of(self, step: int, base: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log scales [b, m, h/2, w/2] of the elements of this step, given y^ of the steps before (zeros elsewhere)."""
        features = base
        if step:
            limit = LATENT.limit if self.integer else LATENT.limit / 2**LATENT.frac
            features = self.clip(base + self.mix[step - 1](self.near[step - 1](known.clamp(-limit, limit))))
        features = self.activation(features)
        inner = self.activation(self.block[1](self.activation(self.block[0](features))))
        features = self.activation(self.clip(features + self.block[2](inner)))
        means, scales = [], []
        for g in range(4):
            i, j = POSITIONS[(step + g) % 4]
            mean, scale = self.out[4 * step + g](features[:, :, i::2, j::2]).chunk(2, 1)
            means.append(mean)
            scales.append(scale)
        return torch.cat(means, 1), torch.cat(scales, 1)

    def freeze(self) -> PriorNetwork:
        """The same wiring over IntegerConv2d layers; level_bias becomes integers."""
        frozen = copy.deepcopy(self)
        freeze_layers(frozen)
        frozen.level_bias = nn.Parameter(torch.round(self.level_bias.detach() * 2**ACTIVATION.frac), requires_grad=False)
        frozen.integer = True
        return frozen.eval().requires_grad_(False)


class Hyperprior(nn.Module):
    """Trainable. Latents are in units of the quantisation step (gains already applied)."""

    def __init__(self, config: HyperpriorConfig) -> None:
        super().__init__()
        self.config = config
        m, h, n = config.latents, config.hyper, config.hidden
        self.analysis = hyper_analysis(m, n, h)
        self.network = PriorNetwork(config)
        self.factorized = FactorizedPrior(h)

    def forward(self, y: Tensor, level: Tensor, *, rounded: bool = False, channels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """y [b, m, h, w], level [b] -> (y^ with gradients straight through, bits of y [b], bits of z [b]).

        Training counts bits with uniform noise; `rounded` counts those of the symbols that are coded. channels: [b, m], 1 for those that are
        coded, 0 for those that both sides know to be 0.
        """
        z = self.analysis(y)
        bits_z = self.factorized(torch.round(z) if rounded else z + torch.rand_like(z) - 0.5)
        bias = interpolate(self.network.level_bias, level)
        if self.network.through:
            bias = to_fixed(bias, ACTIVATION)
        base = self.network.base(round_through(z).clamp(-HYPER.limit, HYPER.limit), bias)
        known, bits = torch.zeros_like(y), torch.zeros(len(y), device=y.device)
        for step in range(STEPS):
            mean, log_scale = self.network.parameters_of(step, base, known)
            if self.network.through:
                log_scale = to_fixed(log_scale, Fixed(frac=3, limit=1 << 10))
            residual = gather(y, step) - mean
            coded = round_through(residual)
            counted = coded if rounded else residual + torch.rand_like(residual) - 0.5
            spent, value = GaussianConditional.bits(counted, log_scale), mean + coded
            if channels is not None:
                spent, value = spent * channels[:, :, None, None], value * channels[:, :, None, None]
            bits = bits + spent.sum((1, 2, 3))
            known = scatter(known.clone(), value, step)
        return known, bits, bits_z


def hyper_analysis(latents: int, hidden: int, hyper: int) -> nn.Sequential:
    """y [b, latents, h, w] -> z [b, hyper, h/4, w/4]; float: only its rounded output counts."""
    return nn.Sequential(
        nn.Conv2d(latents, hidden, 1), nn.LeakyReLU(0.125), nn.Conv2d(hidden, hidden, 4, 2, 1, groups=8),
        nn.Conv2d(hidden, hidden, 1), nn.LeakyReLU(0.125), nn.Conv2d(hidden, hyper, 4, 2, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What one step offers: means and log scales [1, m, h/2, w/2] in sixteenths, which are coded (flat bool) and the rows of those (flat)."""

    index: int
    mean: Tensor
    log_scale: Tensor
    coded: NDArray[np.bool_]
    rows: NDArray[np.uint8]


class FrozenHyperprior(nn.Module):
    """Codes latents to bytes and back, exactly. Latents [1, m, h, w] with h, w multiples of 4; levels are integers (LEVEL_STEPS a row).

    Symbols: z^ in the order (y, x, channel), then for each step the coded residuals in that order. Residuals whose row is below `skip` are
    zero by definition and not coded. `channels` (bool [m], None: all), where it is taken, says which channels are coded; the others are 0.
    """

    def __init__(self, *, analysis: nn.Module, network: PriorNetwork, z_tables: Tables, y_tables: Tables, skip: int) -> None:
        super().__init__()
        self.analysis, self.network = analysis, network
        self.z_tables, self.y_tables, self.skip = z_tables, y_tables, skip

    @property
    def max_level(self) -> int:
        return (len(self.network.level_bias) - 1) * LEVEL_STEPS

    def bias(self, level: int) -> Tensor:
        """Integer interpolation of the level biases: [1, context, 1, 1]."""
        if not 0 <= level <= self.max_level:
            raise FormatError(f"level {level} is outside 0 to {self.max_level}")
        table = self.network.level_bias.detach().cpu().numpy().astype(np.int64)
        below = min(level // LEVEL_STEPS, len(table) - 2)
        weight = level - below * LEVEL_STEPS
        row = (table[below] * (LEVEL_STEPS - weight) + table[below + 1] * weight + LEVEL_STEPS // 2) // LEVEL_STEPS
        return torch.from_numpy(row).to(self.network.level_bias.dtype)[None, :, None, None]

    @torch.no_grad()
    def hyper(self, y: Tensor) -> Tensor:
        """z^ of y, integers in a float tensor."""
        return torch.round(self.analysis(y)).clamp(-HYPER.limit, HYPER.limit)

    @torch.no_grad()
    def walk(
        self, z: Tensor, level: int, choose: Callable[[Step], NDArray[np.int32]], channels: NDArray[np.bool_] | None = None
    ) -> Tensor:  # fmt: skip
        """Run the steps; `choose` gives the symbols of each step's coded elements. Returns y^ in sixteenths, [1, m, h, w]."""
        base = self.network.base(z.to(self.network.level_bias.dtype), self.bias(level))
        known = torch.zeros(1, self.network.latents, *base.shape[2:], dtype=base.dtype).to(memory_format=torch.channels_last)
        for index in range(STEPS):
            mean, log_scale = self.network.parameters_of(index, base, known)
            index_of_scale = _flat((log_scale * 0.5 + 0.5).floor_() - GaussianConditional.first)
            row: NDArray[np.uint8] = index_of_scale.clamp_(0, GaussianConditional.rows - 1).to(torch.uint8).numpy()
            coded = row >= self.skip
            if channels is not None:
                coded &= np.tile(channels, len(coded) // len(channels))
                mean = mean * torch.from_numpy(channels)[:, None, None]
            residual = np.zeros(row.shape, np.int32)
            residual[coded] = choose(Step(index, mean, log_scale, coded, row[coded]))
            scatter(known, mean.add_(_unflat(residual, mean), alpha=16), index)
        return known

    def symbols(
        self, y: Tensor, level: int, *, z: Tensor | None = None, watch: Callable[[Step], None] = lambda step: None,
        channels: NDArray[np.bool_] | None = None,
    ) -> tuple[list[NDArray[np.int32]], list[Rows], Tensor]:
        """For y in units of the quantisation step: z^ and each step's symbols, the table rows of all, and y^ in sixteenths.

        z: hyper-latents to use instead of those that the hyper analysis gives; watch: sees each step.
        """
        z = self.hyper(y) if z is None else z
        rows: list[Rows]
        symbols, rows = [_flat(z).to(torch.int32).numpy()], [self._z_rows(z.shape[2] * z.shape[3], level)]

        def choose(step: Step) -> NDArray[np.int32]:
            wish = _flat(torch.round(gather(y, step.index) - step.mean / 16).clamp_(1 - MAX_RESIDUAL, MAX_RESIDUAL - 1))
            symbols.append(wish.to(torch.int32).numpy()[step.coded])
            rows.append(step.rows)
            watch(step)
            return symbols[-1]

        known = self.walk(z, level, choose, channels)
        return symbols, rows, known

    def bits(self, symbols: list[NDArray[np.int32]], rows: list[Rows]) -> float:
        """Ideal code length of what `symbols` returned."""
        return sum(t.bits(s, r) for s, r, t in zip(symbols, rows, self._tables(), strict=True))

    def pack(self, symbols: list[NDArray[np.int32]], rows: list[Rows]) -> bytes:
        from latentpress.entropy.coder import Encoder  # here, so that training needs no constriction

        encoder = Encoder()
        for s, r, tables in zip(symbols, rows, self._tables(), strict=True):
            encoder.push(s, r, tables)
        return encoder.finish()

    def unpack(
        self, blob: bytes, size: tuple[int, int], level: int, channels: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], Tensor]:  # fmt: skip
        """Bytes and the size (h, w) of the latents -> all symbols, flat, and y^ in sixteenths. Raises FormatError on damaged bytes."""
        from latentpress.entropy.coder import Decoder

        decoder = Decoder(blob)
        symbols: list[NDArray[np.int32]] = [decoder.pull(self._z_rows(size[0] // 4 * (size[1] // 4), level), self.z_tables)]
        if np.abs(symbols[0]).max(initial=0) > HYPER.limit:
            raise FormatError("damaged stream: a hyper-latent is out of range")

        def choose(step: Step) -> NDArray[np.int32]:
            symbols.append(decoder.pull(step.rows, self.y_tables))
            if np.abs(symbols[-1]).max(initial=0) >= MAX_RESIDUAL:
                raise FormatError("damaged stream: a residual is out of range")
            return symbols[-1]

        known = self.walk(self._z_image(symbols[0], size), level, choose, channels)
        decoder.close()
        return np.concatenate(symbols), known

    def repack(
        self, flat: NDArray[np.int32], size: tuple[int, int], level: int, channels: NDArray[np.bool_] | None = None
    ) -> bytes:  # fmt: skip
        """Code the symbols that `unpack` returned again. Raises ValueError if their number does not fit."""
        z_rows = self._z_rows(size[0] // 4 * (size[1] // 4), level)
        symbols, at = [flat[: len(z_rows)]], len(z_rows)
        rows: list[Rows] = [z_rows]

        def choose(step: Step) -> NDArray[np.int32]:
            nonlocal at
            symbols.append(flat[at : at + len(step.rows)])
            rows.append(step.rows)
            at += len(step.rows)
            return symbols[-1]

        self.walk(self._z_image(symbols[0], size), level, choose, channels)
        if at != len(flat):
            raise ValueError(f"{len(flat)} symbols given, {at} expected")
        return self.pack(symbols, rows)

    def _tables(self) -> list[Tables]:
        return [self.z_tables] + [self.y_tables] * STEPS

    def _z_rows(self, positions: int, level: int) -> NDArray[np.int16]:
        """Hyper-latents spread with the level, so their tables come in groups of levels: row = group * channels + channel."""
        groups = self.z_tables.rows // self.network.hyper
        first = min(level, self.max_level) * groups // (self.max_level + 1) * self.network.hyper
        return np.tile(np.arange(first, first + self.network.hyper, dtype=np.int16), positions)

    def _z_image(self, symbols: NDArray[np.int32], size: tuple[int, int]) -> Tensor:
        z = torch.from_numpy(symbols.astype(np.float32)).view(1, size[0] // 4, size[1] // 4, self.network.hyper)
        return z.permute(0, 3, 1, 2)


def _flat(x: Tensor) -> Tensor:
    """[1, c, h, w] in the order (y, x, channel)."""
    return x.permute(0, 2, 3, 1).reshape(-1)


def _unflat(values: NDArray[np.int32], like: Tensor) -> Tensor:
    _, c, h, w = like.shape
    return torch.from_numpy(values).view(1, h, w, c).permute(0, 3, 1, 2).to(like.dtype)
