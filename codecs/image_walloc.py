"""walloc-rgb: the default image codec. WaLLoC's idea (a cheap linear-like encoder on wavelet-packet-like blocks) at better rate-distortion.

    x --unshuffle 8--> 1x1 (KLT of 8x8 blocks) --2 blocks--> 2x2/2 --> 320 latents at 1/16 --gain(level)--> y --hyperprior--> bytes
    y^ --gain^-1(level)--> 1x1, shuffle 2 --4 blocks--> 1x1 --shuffle 8--> x^

About 8 kMAC a pixel each way. `WallocRGBModel` trains; `WallocRGB` codes with frozen weights and exact integer tables.
Quality is continuous from one set of weights: per-channel gains, interpolated geometrically between `levels` learned rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.codecs.blocks import SeparableBlock
from latentpress.codecs.fit_tables import SKIP, fit_tables
from latentpress.codecs.presets import Preset, built, write_preset
from latentpress.codecs.tiled import TileCore, Tiled
from latentpress.codecs.trainable import Losses, Trainable
from latentpress.entropy.frozen import integer_layers, integer_state, load_integers
from latentpress.entropy.hyperprior import (
    LEVEL_STEPS,
    FrozenHyperprior,
    Hyperprior,
    HyperpriorConfig,
    PriorNetwork,
    Rows,
    hyper_analysis,
    interpolate,
)
from latentpress.entropy.tables import Tables
from latentpress.errors import InputError, UnsupportedError

PATCH = 8  # samples an input position of the block transform
QUIET = 0.1  # of the usual size, of what residual blocks add when a model starts as a KLT


@dataclass(frozen=True, kw_only=True)
class WallocRGBConfig:
    width: int = 128
    latents: int = 320
    analysis_blocks: int = 2
    synthesis_blocks: int = 4
    hyper: int = 64
    context: int = 192
    levels: int = 8
    lambda_low: float = 0.0014 * (0.075 / 0.0014) ** -0.2
    lambda_high: float = 0.075 * (0.075 / 0.0014) ** 0.2

    def prior(self) -> HyperpriorConfig:
        return HyperpriorConfig(latents=self.latents, hyper=self.hyper, context=self.context, levels=self.levels)

    def lambda_at(self, level: Tensor) -> Tensor:
        """Weight of the squared error (0-255 scale) against bits a pixel, geometric in the level."""
        return self.lambda_low * torch.exp(level / (self.levels - 1) * math.log(self.lambda_high / self.lambda_low))


def full_precision(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer in float32 under autocast too: those next to samples and latents, whose rounding the blocks cannot mend."""
    with torch.autocast(x.device.type, enabled=False):
        return cast(Tensor, layer(x.float()))


class Analysis(nn.Module):
    """[b, 3, h, w] in 0..1, sides multiples of 16 -> [b, latents, h/16, w/16]."""

    def __init__(self, config: WallocRGBConfig) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3 * PATCH**2, config.width, 1)
        self.blocks = nn.Sequential(*[SeparableBlock(config.width) for _ in range(config.analysis_blocks)])
        self.leave = nn.Conv2d(config.width, config.latents, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return full_precision(self.leave, self.blocks(full_precision(self.enter, F.pixel_unshuffle(x - 0.5, PATCH))))


class Synthesis(nn.Module):
    """Inverse shapes of Analysis."""

    def __init__(self, config: WallocRGBConfig) -> None:
        super().__init__()
        self.enter = nn.Conv2d(config.latents, 4 * config.width, 1)
        self.blocks = nn.Sequential(*[SeparableBlock(config.width) for _ in range(config.synthesis_blocks)])
        self.leave = nn.Conv2d(config.width, 3 * PATCH**2, 1)

    def forward(self, y: Tensor) -> Tensor:
        x = self.blocks(F.pixel_shuffle(full_precision(self.enter, y), 2))
        return F.pixel_shuffle(full_precision(self.leave, x), PATCH) + 0.5


class WallocRGBModel(Trainable):
    """Trainable model: `code` gives reconstruction and bits, `forward` the rate-distortion cost, `freeze` a preset."""

    id: ClassVar[str] = "walloc-rgb"
    domain: ClassVar[str] = "image"
    options: ClassVar[type[Any]] = WallocRGBConfig
    defaults: ClassVar[Mapping[str, Any]] = {"optimiser": "soap", "rate": 6e-4, "warmup": 200}
    targets: ClassVar[tuple[float, ...]] = (14, 42, 70, 100)

    def __init__(self, config: WallocRGBConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WallocRGBConfig()
        self.analysis, self.synthesis, self.prior = Analysis(config), Synthesis(config), Hyperprior(config.prior())
        steps = torch.linspace(math.log(0.2), math.log(4.8), config.levels)
        self.log_gain = nn.Parameter(steps[:, None].repeat(1, config.latents))
        self.log_inverse = nn.Parameter(torch.zeros(config.levels, config.latents))  # relative to 1 / gain

    @classmethod
    def from_options(cls, options: WallocRGBConfig, variant: str = "") -> WallocRGBModel:
        """Trains through the integers of the frozen prior: this removes the 1 to 6 % that freezing a float prior costs."""
        if variant:
            raise InputError(f"{cls.id} has no variant {variant!r}; its sizes are settings: --set model.width=96")
        model = cls(options)
        model.prior.network.set_through(True)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def forward(self, batch: Tensor) -> Losses:
        """batch [b, 3, h, w] in 0..1, sides multiples of 64; each item at a level of its own."""
        cost, bpp, error = self.loss(batch, sample_levels(len(batch), self.config.levels).to(batch.device))
        psnr = 10 * torch.log10(255**2 / error.detach().clamp_min(1e-6))
        return Losses(main=cost, scalars={"bpp": bpp.detach().mean(), "psnr": psnr.mean()})

    def code(self, x: Tensor, level: Tensor, *, rounded: bool = False) -> tuple[Tensor, Tensor]:
        """x [b, 3, h, w] in 0..1 with sides multiples of 64, level [b] in 0..levels-1 -> (x^, bits [b])."""
        y = self.analysis(x) * torch.exp(interpolate(self.log_gain, level))
        with torch.autocast(x.device.type, enabled=False):  # integers of the prior in float32 are exact, in bfloat16 they are not
            decoded, bits_y, bits_z = self.prior(y, level, rounded=rounded)
        return self.synthesis(decoded * torch.exp(interpolate(self.log_inverse - self.log_gain, level))), bits_y + bits_z

    def loss(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(cost, bits a pixel [b], mean squared error on the 0-255 scale [b]). Levels are weighted so that high rates do not drown low ones."""
        decoded, bits = self.code(x, level)
        bpp = bits / (x.shape[2] * x.shape[3])
        error = ((decoded - x) ** 2).mean((1, 2, 3)) * 255**2
        weight = self.config.lambda_at(level)
        return ((weight * error + bpp) * (0.01 / weight) ** 0.4).mean(), bpp, error

    @torch.no_grad()
    def reconstruct(self, batch: Tensor) -> Tensor:
        level = torch.full((len(batch),), (self.config.levels - 1) / 2, device=batch.device)
        return self.code(batch, level, rounded=True)[0].clamp(0, 1)

    @torch.no_grad()
    def start(self, samples: Sequence[Tensor]) -> None:
        """The KLT of 16x16 blocks in two orthonormal steps, 8x8 blocks first: a linear transform codec before the first step.

        The residual blocks between are made quiet, as six of them cost that codec 10 dB: the cost after 45 steps is 3.3, else 5.1, and 57 without
        a KLT.
        """
        if self.config.width > 3 * PATCH**2 or self.config.latents > 4 * self.config.width or not samples:
            return  # more channels than components
        crops = torch.cat([_blocks(s) for s in samples])
        scale = 4.0  # latents at gain 1, so that the rows of gains span the steps that the lambdas ask for
        mean, basis = klt(crops, self.config.width)
        _set(self.analysis.enter, basis.T * scale, -(basis.T @ mean) * scale)
        _set(self.synthesis.leave, basis / scale, mean)
        coarse = F.pixel_unshuffle(self.analysis.enter(crops), 2)
        mean, basis = klt(coarse, self.config.latents)
        _set(self.analysis.leave, basis.T, -(basis.T @ mean))
        _set(self.synthesis.enter, basis, mean)
        for block in (*self.analysis.blocks, *self.synthesis.blocks):
            for layer in (block.leave, block.narrow):
                cast(nn.Conv2d, layer).weight.mul_(QUIET)

    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        model = copy.deepcopy(self).cpu().eval().requires_grad_(False)
        z_tables, y_tables = fit_tables(model, samples)
        description = {
            "codec": self.id, "config": asdict(self.config), "skip": SKIP, "provenance": dict(provenance),
            "about": {"licence": provenance.get("licence", "not stated"), "paper": "WaLLoC (Jacobellis and Yadwadkar 2024), reworked"},
        }  # fmt: skip
        write_preset(directory, description, frozen_weights(model, z_tables, y_tables))


def sample_levels(batch: int, levels: int) -> Tensor:
    """Evenly over all levels, the two ends as often as what lies between (they would see half as much); [batch] in 0..levels-1."""
    return (torch.rand(batch) * (levels - 0.4) - 0.3).clamp(0, levels - 1)


def klt(maps: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """[b, c, h, w] -> (mean [c], principal axes [c, keep], largest variance first) over channels."""
    vectors = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).double()
    mean = vectors.mean(0)
    _, axes = torch.linalg.eigh((vectors - mean).T @ (vectors - mean) / len(vectors))
    return mean.float(), axes.flip(1)[:, :keep].float()


def _blocks(image: Tensor, most: int = 256) -> Tensor:
    """The middle of a photograph uint8 [3, h, w], at most `most` a side, around 0: [n, 192, 2, 2], 16x16 samples as four 8x8 blocks."""
    h, w = (min(most, n // (2 * PATCH) * 2 * PATCH) for n in image.shape[1:])
    top, left = ((n - m) // 2 for n, m in zip(image.shape[1:], (h, w), strict=True))
    blocks = F.pixel_unshuffle(image[:, top : top + h, left : left + w].cpu().float() / 255 - 0.5, PATCH)
    return blocks.unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).reshape(-1, 3 * PATCH**2, 2, 2)


def _set(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Put a matrix [out, in] into a convolution; in its rows the inputs lie as in `pixel_unshuffle`."""
    conv = cast(nn.Conv2d, layer)
    conv.weight.copy_(weight.reshape(conv.weight.shape))
    assert conv.bias is not None
    conv.bias.copy_(bias)


@dataclass
class Quantised:
    """One tile: symbols and rows as the prior codes them, y^ in sixteenths."""

    symbols: list[NDArray[np.int32]]
    rows: list[Rows]
    known: Tensor


class WallocRGB(TileCore):
    """Frozen walloc-rgb."""

    id: ClassVar[str] = "walloc-rgb"
    stride: ClassVar[int] = 16
    align: ClassVar[int] = 64

    def __init__(self, config: WallocRGBConfig, preset: Preset) -> None:
        self.config, self.preset = config, preset
        self.latent_channels, self.max_level = config.latents, (config.levels - 1) * LEVEL_STEPS
        # a block reaches one position of 1/8 resolution on each side; latents lie at 1/16
        self.analysis_reach = -(-config.analysis_blocks // 2)  # type: ignore[misc]
        self.synthesis_reach = -(-config.synthesis_blocks // 2)  # type: ignore[misc]
        weights = preset.weights
        self.analysis, self.synthesis = Analysis(config), Synthesis(config)
        hyper = config.prior()
        hyper_transform = hyper_analysis(hyper.latents, hyper.hidden, hyper.hyper)
        for prefix, module in (("analysis", self.analysis), ("synthesis", self.synthesis), ("hyper_analysis", hyper_transform)):
            _load(module, weights, prefix)
        self.log_gain, self.log_inverse = (torch.from_numpy(np.array(weights[k], np.float32)) for k in ("log_gain", "log_inverse"))
        self.prior = FrozenHyperprior(
            analysis=hyper_transform, network=load_network(hyper, weights), z_tables=Tables.from_state(dict(weights), "z_tables"),
            y_tables=Tables.from_state(dict(weights), "y_tables"), skip=int(preset.description["skip"]),
        )  # fmt: skip

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> Tiled:
        """Raises FormatError for a damaged preset."""
        core, digest = built(directory, name, lambda preset: (cls(WallocRGBConfig(**preset.description["config"]), preset), preset.digest))
        return Tiled(core, name=name, digest=digest)

    def to_samples(self, data: NDArray[Any]) -> Tensor:
        if data.dtype not in (np.uint8, np.uint16) or data.shape[2] not in (1, 3):
            raise UnsupportedError(f"walloc-rgb codes 8- or 16-bit gray or RGB, not {data.dtype} with {data.shape[2]} bands")
        x = torch.from_numpy(np.ascontiguousarray(data.astype(np.float32) / np.iinfo(data.dtype).max)).permute(2, 0, 1)[None]
        return x.expand(1, 3, -1, -1)

    def to_data(self, samples: Tensor, dtype: np.dtype[Any], bands: int) -> NDArray[Any]:
        peak = int(np.iinfo(dtype).max)
        if bands == 1:
            samples = samples.mean(1, keepdim=True)
        scaled = samples.mul(peak).add_(0.5).clamp_(0, peak)[0].permute(1, 2, 0)
        return (scaled.to(torch.uint8) if peak == 255 else scaled.to(torch.int32)).numpy().astype(dtype, copy=False)

    def analyse(self, samples: Tensor) -> Tensor:
        return self.analysis(samples.contiguous(memory_format=torch.channels_last))

    def _row(self, table: Tensor, level: int) -> Tensor:
        return interpolate(table, torch.tensor([level / LEVEL_STEPS]))

    def gain_row(self, level: int) -> Tensor:
        """Natural logarithm of the gains, [1, latents, 1, 1]."""
        return self._row(self.log_gain, level)

    def scaled(self, latents: Tensor, level: int) -> Tensor:
        return latents * torch.exp(self.gain_row(level))

    def quantise(self, latents: Tensor, level: int) -> Quantised:
        return Quantised(*self.prior.symbols(self.scaled(latents, level), level))

    def refine(self, latents: Tensor, samples: Tensor, level: int, effort: int, margins: tuple[int, int, int, int]) -> Quantised:
        from latentpress.codecs.refine import EFFORTS, corrected, refined

        latents = corrected(self, latents, level, margins)
        if effort not in EFFORTS:
            return self.quantise(latents, level)
        return refined(self, latents, samples, level, EFFORTS[effort])

    def bits(self, quantised: Quantised) -> float:
        return self.prior.bits(quantised.symbols, quantised.rows)

    def reconstructed(self, quantised: Quantised) -> Tensor:
        return quantised.known / 16

    def pack(self, quantised: Quantised) -> bytes:
        return self.prior.pack(quantised.symbols, quantised.rows)

    def unpack(self, payload: bytes, size: tuple[int, int], level: int) -> tuple[NDArray[np.int32], Tensor]:
        symbols, known = self.prior.unpack(payload, size, level)
        return symbols, known.div_(16)

    def repack(self, symbols: NDArray[np.int32], size: tuple[int, int], level: int) -> bytes:
        return self.prior.repack(symbols, size, level)

    def synthesise(self, latents: Tensor, level: int) -> Tensor:
        scaled = latents * torch.exp(self._row(self.log_inverse - self.log_gain, level))
        return self.synthesis(scaled.contiguous(memory_format=torch.channels_last))

    def describe(self) -> Mapping[str, Any]:
        parts = {"analysis": self.analysis, "synthesis": self.synthesis, "hyper_analysis": self.prior.analysis}
        parameters = sum(p.numel() for part in parts.values() for p in part.parameters())
        parameters += sum(sum(t.numel() for t in layer.integers[:2]) for layer in integer_layers(self.prior.network).values())
        return {"parameters": parameters, "weight_bytes": sum(w.nbytes for w in self.preset.weights.values()),
                "macs_per_pixel": macs_per_pixel(self.config), **self.preset.description.get("about", {})}  # fmt: skip


def macs_per_pixel(config: WallocRGBConfig) -> dict[str, int]:
    """Multiplications a pixel of encoding and decoding, from the layer shapes."""
    c, m, n, h, ctx = config.width, config.latents, config.prior().hidden, config.hyper, config.context
    block = (6 * c * c + 9 * c) / 64
    analysis = 192 * c / 64 + config.analysis_blocks * block + 4 * c * m / 256
    synthesis = 4 * c * m / 256 + config.synthesis_blocks * block + 192 * c / 64
    hyper_down = m * n / 256 + (16 * n * n / 8 + n * n) / 1024 + 16 * n * h / 4096
    hyper_up = (h * 4 * n) / 4096 + (9 * n * n / 8 + 4 * n * n) / 1024 + 9 * n * ctx / 256
    context = (3 * (25 * m + m * ctx) + 4 * (2 * ctx * ctx + 9 * ctx + ctx * 2 * m / 4)) / 256
    return {"encode": round(analysis + hyper_down + hyper_up + context), "decode": round(synthesis + hyper_up + context)}


def frozen_weights(model: WallocRGBModel, z_tables: Tables, y_tables: Tables) -> dict[str, NDArray[Any]]:
    """All that a preset stores: transforms in float16, the prior as integers, tables as they are coded with."""
    weights: dict[str, NDArray[Any]] = {}
    for prefix, module in (("analysis", model.analysis), ("synthesis", model.synthesis), ("hyper_analysis", model.prior.analysis)):
        weights |= {f"{prefix}.{k}": v.detach().numpy().astype(np.float16) for k, v in module.state_dict().items()}
    network = model.prior.network.freeze()
    weights |= integer_state(network, "network")
    weights["network.level_bias"] = network.level_bias.detach().numpy().astype(np.int32)
    weights |= {k: getattr(model, k).detach().numpy().astype(np.float32) for k in ("log_gain", "log_inverse")}
    return weights | z_tables.state("z_tables") | y_tables.state("y_tables")


def load_network(config: HyperpriorConfig, weights: Mapping[str, NDArray[Any]]) -> PriorNetwork:
    """The integer network of a preset; every layer proves its bound again."""
    network = PriorNetwork(config)
    load_integers(network, weights, "network")
    network.level_bias = nn.Parameter(torch.from_numpy(np.array(weights["network.level_bias"], np.float32)), requires_grad=False)
    network.integer = True
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _load(module: nn.Module, weights: Mapping[str, NDArray[Any]], prefix: str) -> None:
    state = {k: torch.from_numpy(np.array(weights[f"{prefix}.{k}"], np.float32)) for k in module.state_dict()}
    module.load_state_dict(state)
    module.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
