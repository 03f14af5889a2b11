"""vaeformer-field in training: groups of planes -> latents -> four-step prior in its own integers -> planes -> preset.

Distortion is the squared error in units of each field's variance, rate is bits a value; the quality level, and so the weight between the two,
is drawn anew for every item. What is trained on are crops; a field of any size is coded by the same weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.codecs.fit_tables import SKIP, fit_tables
from latentpress.codecs.image_walloc import sample_levels
from latentpress.codecs.presets import Preset, write_preset
from latentpress.codecs.trainable import Losses, Trainable
from latentpress.codecs.vaeformer_net import ALIGN, PLANES, QUIET, Analysis, FieldConfig, Synthesis, start_as_klt
from latentpress.entropy.frozen import integer_state
from latentpress.entropy.hyperprior import Hyperprior, interpolate
from latentpress.entropy.tables import Tables
from latentpress.errors import InputError

TYPICAL = 0.06  # cost of an ordinary field at lambda 1; costs grow with the root of lambda
START_PLANES = 64  # whose latents a start sees
LONE = 0.25  # share of groups cut to fewer planes than they have


class VAEformerModel(Trainable):
    """`code` gives planes and bits, `forward` the rate-distortion cost, `freeze` a preset."""

    id: ClassVar[str] = "vaeformer-field"
    domain: ClassVar[str] = "field"
    options: ClassVar[type[Any]] = FieldConfig
    defaults: ClassVar[Mapping[str, Any]] = {"optimiser": "soap", "rate": 6e-4, "batch": 8, "crop": 128, "warmup": 100}
    targets: ClassVar[tuple[float, ...]] = (10, 40, 70, 100)

    def __init__(self, config: FieldConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FieldConfig()
        self.analysis, self.synthesis, self.prior = Analysis(config), Synthesis(config), Hyperprior(config.prior())
        # the step at which a uniform quantiser of an orthonormal transform is worth its bits: sqrt(6 / (ln 2 lambda))
        steps = 0.5 * torch.log(config.lambda_at(torch.arange(config.levels)) * math.log(2) / 6)
        self.log_gain = nn.Parameter(steps[:, None].repeat(1, config.latents))
        self.log_inverse = nn.Parameter(torch.zeros(config.levels, config.latents))  # relative to 1 / gain

    @classmethod
    def from_options(cls, options: FieldConfig, variant: str = "") -> VAEformerModel:
        """Trains through the integers of the frozen prior. Raises InputError for variants."""
        if variant:
            raise InputError(f"{cls.id} has no variant {variant!r}; its sizes are settings: --set model.width=160")
        model = cls(options)
        model.prior.network.set_through(True)
        return model

    def forward(self, batch: Tensor) -> Losses:
        """batch [b, 3, h, w] of planes with mean 0 and deviation 1, sides multiples of 64; empty planes are 0."""
        present = batch.abs().amax((2, 3)) > 0
        if torch.is_grad_enabled():
            alone = (torch.rand(len(batch), 1, device=batch.device) < LONE) & (torch.arange(PLANES, device=batch.device) > 0)
            present = present & ~(alone & (torch.rand(len(batch), PLANES, device=batch.device) < 0.7))
        level = sample_levels(len(batch), self.config.levels).to(batch.device)
        decoded, bits = self.code(batch, present, level)
        count = present.sum(1).clamp_min(1)
        rate = bits / (count * batch.shape[2] * batch.shape[3])
        error = ((decoded - batch) ** 2).mean((2, 3)).mul(present).sum(1) / count
        weight = self.config.lambda_at(level)
        cost = weight * error + rate
        # relative savings count the same in smooth fields and rough ones, and at all levels
        relative = cost / (cost.detach() + TYPICAL / 4 * weight.sqrt())
        shown = torch.log2(cost.detach() / weight.sqrt() / TYPICAL).mean()
        main = relative.mean() if relative.requires_grad else shown
        return Losses(main=main, scalars={
            "bpp": rate.detach().mean(), "psnr": -10 * torch.log10(error.detach().clamp_min(1e-7)).mean(), "log_cost": shown,
        })  # fmt: skip

    def code(self, batch: Tensor, present: Tensor, level: Tensor, *, rounded: bool = False) -> tuple[Tensor, Tensor]:
        """batch [b, 3, h, w] with sides multiples of 64, present bool [b, 3], level [b] in 0..levels-1 -> (decoded, 0 where absent; bits [b])."""
        group, plane = present.nonzero(as_tuple=True)
        gains = interpolate(self.log_gain, level)[group]
        latents = self.analysis(batch[group, plane]) * torch.exp(gains)
        y = latents.new_zeros(len(batch), PLANES, *latents.shape[1:])
        y = y.index_put((group, plane), latents).flatten(1, 2)
        with torch.autocast(y.device.type, enabled=False):  # integers of the prior in float32 are exact, in bfloat16 they are not
            channels = present.float().repeat_interleave(self.config.latents, 1)
            known, bits_y, bits_z = self.prior(y.float().contiguous(memory_format=torch.channels_last), level, rounded=rounded, channels=channels)
        known = known.unflatten(1, (PLANES, -1))[group, plane] * torch.exp(interpolate(self.log_inverse, level)[group] - gains)
        planes = self.synthesis(known)
        return torch.zeros_like(batch).index_put((group, plane), planes.to(batch.dtype)), bits_y + bits_z

    @torch.no_grad()
    def reconstruct(self, batch: Tensor) -> Tensor:
        level = torch.full((len(batch),), (self.config.levels - 1) / 2, device=batch.device)
        return self.code(batch, batch.abs().amax((2, 3)) > 0, level, rounded=True)[0]

    @torch.no_grad()
    def start(self, samples: Sequence[Tensor]) -> None:
        """A KLT of the planes. Nothing without any, or with more latents than 16x16 blocks have numbers."""
        planes = [p for s in samples for p in s if bool(p.any())]
        if planes and self.config.latents <= 4 * min(64, self.config.width):
            start_as_klt(self.analysis, self.synthesis, planes)
            start_as_channels(self, planes[:START_PLANES])

    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        from latentpress.codecs.vaeformer_core import Core

        model = copy.deepcopy(self).cpu().eval().requires_grad_(False)

        def build(z_tables: Tables, y_tables: Tables) -> Core:
            weights = frozen_weights(model, z_tables, y_tables)
            return Core(model.config, Preset(name="", description={"skip": SKIP}, weights=weights, digest=b""))

        z_tables, y_tables = fit_tables(model, samples, build=build)
        description = {
            "codec": self.id, "config": asdict(self.config), "skip": SKIP, "provenance": dict(provenance),
            "about": {"licence": provenance.get("licence", "not stated"), "paper": "VAEformer (Han et al. 2024, arXiv 2405.03376), reworked"},
        }  # fmt: skip
        write_preset(directory, description, frozen_weights(model, z_tables, y_tables))


@torch.no_grad()
def start_as_channels(model: VAEformerModel, planes: Sequence[Tensor]) -> None:
    """The prior of independent channels: each has the scale of its latents over `planes`, and every scale follows the gain of the level.

    One channel of the context carries the level through all layers untouched; it and a bias make the log scales, and no other weight speaks
    up at first. Several hundred steps would go into learning as much.
    """
    network, config = model.prior.network, model.config
    squares = [model.analysis(crop[None]).square().mean((0, 2, 3)) for crop in (_middle(p) for p in planes) if min(crop.shape) >= ALIGN]
    if not squares:
        return
    log_scale = torch.stack(squares).mean(0).clamp_min(1e-12).log() / 2
    gain = model.log_gain.mean(1)
    for layer in (network.up[3], *network.mix, network.block[2]):
        layer.weight[0].zero_()  # type: ignore[index, operator]
        layer.bias[0].zero_()  # type: ignore[index, operator]
    network.level_bias[:, 0] = gain - gain[0]
    quarter = PLANES * config.latents // 4
    channels = log_scale.repeat(PLANES).view(4, quarter)
    for step in range(4):
        for group in range(4):
            layer = network.out[4 * step + group]
            layer.weight.mul_(QUIET)  # type: ignore[union-attr, operator]
            layer.bias.zero_()  # type: ignore[union-attr, operator]
            layer.weight[:, 0] = 0  # type: ignore[index, operator]
            layer.weight[quarter:, 0] = 1  # type: ignore[index, operator]
            layer.bias[quarter:] = (channels[group] + gain[0]).clamp_min(-6)  # type: ignore[index, operator]
    for layer in (model.prior.analysis[-1], network.up[3]):
        layer.weight.mul_(QUIET)  # type: ignore[union-attr, operator]
    for i in range(model.prior.factorized.depth):  # a narrow density, as hyper-latents say nothing yet
        getattr(model.prior.factorized, f"matrix{i}").fill_(1.0)


def _middle(plane: Tensor, most: int = 256) -> Tensor:
    h, w = (min(most, n // ALIGN * ALIGN) for n in plane.shape)
    top, left = (plane.shape[0] - h) // 2, (plane.shape[1] - w) // 2
    return plane[top : top + h, left : left + w].float()


def frozen_weights(model: VAEformerModel, z_tables: Tables, y_tables: Tables) -> dict[str, NDArray[Any]]:
    """All that a preset stores: transforms in float16, the prior as integers, tables as they are coded with."""
    weights: dict[str, NDArray[Any]] = {}
    for prefix, module in (("analysis", model.analysis), ("synthesis", model.synthesis), ("hyper_analysis", model.prior.analysis)):
        weights |= {f"{prefix}.{k}": v.detach().numpy().astype(np.float16) for k, v in module.state_dict().items()}
    network = model.prior.network.freeze()
    weights |= integer_state(network, "network")
    weights["network.level_bias"] = network.level_bias.detach().numpy().astype(np.int32)
    weights |= {k: getattr(model, k).detach().numpy().astype(np.float32) for k in ("log_gain", "log_inverse")}
    return weights | z_tables.state("z_tables") | y_tables.state("y_tables")
