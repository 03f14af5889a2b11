"""Frozen vaeformer-field on groups of planes that are already around 0 and filled up: latents, symbols, bytes and back, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.codecs.image_walloc import load_network
from latentpress.codecs.presets import Preset
from latentpress.codecs.tiled import Span
from latentpress.codecs.vaeformer_net import ALIGN, PATCH, PLANES, STRIDE, WINDOW, Analysis, FieldConfig, Synthesis
from latentpress.entropy.frozen import integer_layers
from latentpress.entropy.hyperprior import LEVEL_STEPS, FrozenHyperprior, Rows, hyper_analysis, interpolate
from latentpress.entropy.tables import Tables


@dataclass
class Quantised:
    """One tile of a group: symbols and rows as the prior codes them, y^ in sixteenths [1, 3 latents, h/16, w/16]."""

    symbols: list[NDArray[np.int32]]
    rows: list[Rows]
    known: Tensor


def tiles(height: int, width: int, side: int) -> Iterator[Span]:
    """Of a map of latents; side: of a tile, in latent positions."""
    for i, y in enumerate(range(0, height, side)):
        for j, x in enumerate(range(0, width, side)):
            yield Span((i, j), y, min(height, y + side), x, min(width, x + side))


def reach(blocks: int) -> int:
    """Latent positions on each side that so many blocks see, up to whole windows: a part with that much around it has the values of the whole."""
    tokens = 0
    for block in reversed(range(blocks)):
        shift = block % 2 * WINDOW // 2
        tokens = tokens + (shift - tokens) % WINDOW + 1  # up to the window's edge, and one for the 3x3 before it
    return -(-tokens // WINDOW) * WINDOW * PATCH // STRIDE


class Core:
    """What `field_vaeformer` and the fit of tables need. Levels are integers 0 to `max_level`; maps have sides that are multiples of `align`."""

    align = ALIGN

    def __init__(self, config: FieldConfig, preset: Preset) -> None:
        self.config, self.preset = config, preset
        self.max_level = (config.levels - 1) * LEVEL_STEPS
        weights, hyper = preset.weights, config.prior()
        self.analysis, self.synthesis = Analysis(config), Synthesis(config)
        hyper_transform = hyper_analysis(hyper.latents, hyper.hidden, hyper.hyper)
        for prefix, module in (("analysis", self.analysis), ("synthesis", self.synthesis), ("hyper_analysis", hyper_transform)):
            _load(module, weights, prefix)
        self.log_gain, self.log_inverse = (torch.from_numpy(np.array(weights[k], np.float32)) for k in ("log_gain", "log_inverse"))
        self.prior = FrozenHyperprior(
            analysis=hyper_transform, network=load_network(hyper, weights), z_tables=Tables.from_state(dict(weights), "z_tables"),
            y_tables=Tables.from_state(dict(weights), "y_tables"), skip=int(preset.description["skip"]),
        )  # fmt: skip

    # ---- transforms, in parts that fit the memory

    @torch.no_grad()
    def analyse(self, samples: Tensor, *, ring: bool = False, side: int = 1 << 30) -> Tensor:
        """samples [1, 3, h, w], absent planes 0 -> [1, 3 latents, h/16, w/16], 0 where absent. side: of a part, in latent positions."""
        _, _, h, w = samples.shape
        present = [i for i, plane in enumerate(samples[0]) if bool(plane.any())]
        out = torch.zeros(PLANES, self.config.latents, h // STRIDE, w // STRIDE)
        for tile in tiles(h // STRIDE, w // STRIDE, side):
            rows, columns, inner, whole = _grown(tile, reach(self.config.analysis_blocks), out.shape[2], out.shape[3], ring)
            part = samples[0, present][:, _samples(rows)][:, :, _samples(columns)]
            y = self.analysis(part, wrap=ring and whole)
            out[present, :, tile.y0 : tile.y1, tile.x0 : tile.x1] = y[:, :, inner[0], inner[1]]
        return out.flatten(0, 1)[None]

    @torch.no_grad()
    def synthesise(self, latents: Tensor, level: int, present: list[int], *, ring: bool = False, side: int = 1 << 30) -> Tensor:
        """[1, 3 latents, h/16, w/16] in units of the quantisation step -> planes [len(present), h, w]."""
        y = latents[0].unflatten(0, (PLANES, self.config.latents))[present]
        y = y * torch.exp(self._row(self.log_inverse - self.log_gain, level))
        h, w = y.shape[2:]
        out = torch.empty(len(present), h * STRIDE, w * STRIDE)
        for tile in tiles(h, w, side):
            rows, columns, inner, whole = _grown(tile, reach(self.config.synthesis_blocks), h, w, ring)
            x = self.synthesis(y[:, :, rows][:, :, :, columns], wrap=ring and whole)
            target = out[:, tile.y0 * STRIDE : tile.y1 * STRIDE, tile.x0 * STRIDE : tile.x1 * STRIDE]
            target.copy_(x[:, _scaled(inner[0])][:, :, _scaled(inner[1])])
        return out

    def _row(self, table: Tensor, level: int) -> Tensor:
        return interpolate(table, torch.tensor([level / LEVEL_STEPS]))

    # ---- one tile

    def quantise(self, latents: Tensor, level: int, present: Sequence[int] | None = None) -> Quantised:
        """latents [1, 3 latents, h, w] before gains. present: which of the three planes are there; None: those that are not 0."""
        if present is None:
            planes = latents[0].unflatten(0, (PLANES, -1))
            present = [i for i in range(PLANES) if bool(planes[i].any())]
        gains = torch.exp(self._row(self.log_gain, level)).repeat(1, PLANES, 1, 1)
        y = (latents * gains).contiguous(memory_format=torch.channels_last)
        return Quantised(*self.prior.symbols(y, level, channels=self._channels(present)))

    def _channels(self, present: Sequence[int]) -> NDArray[np.bool_]:
        return np.isin(np.arange(PLANES), present).repeat(self.config.latents)

    def bits(self, quantised: Quantised) -> float:
        return self.prior.bits(quantised.symbols, quantised.rows)

    def pack(self, quantised: Quantised) -> bytes:
        return self.prior.pack(quantised.symbols, quantised.rows)

    def unpack(self, payload: bytes, size: tuple[int, int], level: int, present: Sequence[int]) -> tuple[NDArray[np.int32], Tensor]:
        """(all symbols, latents in units of the quantisation step). Raises FormatError."""
        symbols, known = self.prior.unpack(payload, size, level, self._channels(present))
        return symbols, known.div_(16)

    def repack(self, symbols: NDArray[np.int32], size: tuple[int, int], level: int, present: Sequence[int]) -> bytes:
        return self.prior.repack(symbols, size, level, self._channels(present))

    def describe(self) -> Mapping[str, Any]:
        parts = (self.analysis, self.synthesis, self.prior.analysis)
        parameters = sum(p.numel() for part in parts for p in part.parameters()) + self.log_gain.numel() + self.log_inverse.numel()
        parameters += sum(sum(t.numel() for t in layer.integers[:2]) for layer in integer_layers(self.prior.network).values())
        return {"parameters": parameters, "weight_bytes": sum(w.nbytes for w in self.preset.weights.values()),
                "macs_per_value": macs_per_value(self.config), **self.preset.description.get("about", {})}  # fmt: skip


def macs_per_value(config: FieldConfig) -> dict[str, int]:
    """Multiplications a grid point and plane of encoding and decoding, in full groups."""
    c, m, hyper = config.width, config.latents, config.prior()
    block = ((4 + 2 * config.widening) * c * c + 2 * WINDOW**2 * c + 9 * c) / PATCH**2
    enter, leave = c, 4 * c * m / STRIDE**2
    total, n, ctx = hyper.latents, hyper.hidden, hyper.context
    area = STRIDE**2 * PLANES
    context = (3 * (25 * total + total * ctx) + 4 * (2 * ctx * ctx + 9 * ctx + ctx * total / 2)) / area
    up = (hyper.hyper * 4 * n / 16 + (9 * n * n / 8 + 4 * n * n) / 4 + 9 * n * ctx) / area
    down = (total * n + 3 * n * n / 4 + 16 * n * hyper.hyper / 16) / area
    transforms = {"encode": config.analysis_blocks, "decode": config.synthesis_blocks}
    return {k: round(enter + blocks * block + leave + context + up + (down if k == "encode" else 0)) for k, blocks in transforms.items()}


def _load(module: nn.Module, weights: Mapping[str, NDArray[Any]], prefix: str) -> None:
    module.load_state_dict({k: torch.from_numpy(np.array(weights[f"{prefix}.{k}"], np.float32)) for k in module.state_dict()})
    module.eval().requires_grad_(False)


def _grown(tile: Span, around: int, h: int, w: int, ring: bool) -> tuple[Tensor, Tensor, tuple[slice, slice], bool]:
    """Rows and columns of latents to work on, where the tile lies in them, and whether they are all columns of the map."""
    y0, y1 = max(0, tile.y0 - around), min(h, tile.y1 + around)
    x0, x1 = tile.x0 - around, tile.x1 + around
    if not ring:
        x0, x1 = max(0, x0), min(w, x1)
    whole = x1 - x0 >= w
    if whole:
        x0, x1 = 0, w
    inner = slice(tile.y0 - y0, tile.y1 - y0), slice(tile.x0 - x0, tile.x1 - x0)
    return torch.arange(y0, y1), torch.arange(x0, x1) % w, inner, whole


def _samples(positions: Tensor) -> Tensor:
    return (positions[:, None] * STRIDE + torch.arange(STRIDE)).flatten()


def _scaled(part: slice) -> slice:
    return slice(part.start * STRIDE, part.stop * STRIDE)
