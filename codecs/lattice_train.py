"""The lattice codec in training: triples of fields -> integers at a random step -> bits of the grid network -> preset."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.grid_train import OCTAVES, SEED, GridModel, freeze_network
from latentpress.codecs.trainable import Losses
from latentpress.entropy.grid_network import COARSE, GridConfig

COARSEST, FINEST = 0.3, 4e-5  # steps of the lattice in deviations of the plane, for nearest integers
CLOSED_COARSEST, CLOSED_FINEST = 1.0, 2e-5  # the same where steps are counted from predictions, and
CLOSED_BELOW = 8.0  # so many times finer than points differ from their neighbours, at most: beyond, both ways of coding are the same
CLOSED_SHARE = 0.6  # of the batches
CLOSED_DRAWS = 2  # steps at which each sample is counted
SMOOTH_SHARE, SMOOTHEST = 0.35, 4.0  # of those batches are blurred, by a Gaussian of up to so many points: fields of spectral models are that smooth
LOSS_FLOOR = 0.01  # bits a sample beside which a plane's own bits count in full; above, their ratio counts


@dataclass(frozen=True, kw_only=True)
class LatticeConfig(GridConfig):
    """What fields ask for: steps counted from predictions, and no linear predictor across planes, which seldom share a unit."""

    modes: int = 2
    cross: bool = False


class LatticeModel(GridModel):
    """The grid network with a loss that weighs ratios: a tenth saved at two bits a point is worth a tenth saved at twelve."""

    id: ClassVar[str] = "lattice"
    domain: ClassVar[str] = "field"
    options: ClassVar[type[Any]] = LatticeConfig
    defaults: ClassVar[Mapping[str, Any]] = {**GridModel.defaults, "crop": 128, "shrink": 1.0}
    targets: ClassVar[tuple[float, ...]] = (0, 33, 67, 100)

    def forward(self, batch: Tensor) -> Losses:
        """batch [b, 3, n, n] of planes with mean 0 and deviation 1, n a multiple of 16; empty planes are 0."""
        present = (batch.abs().amax((2, 3)) > 0).float()
        closed = self.network.config.modes > 1 and float(torch.rand(())) < CLOSED_SHARE
        coarse = COARSE if closed else 0
        planes = closed_targets(batch) if closed else torch.floor(on_lattice(batch, COARSEST, FINEST))
        bits = torch.stack(self.network(planes, octaves=OCTAVES, present=present, coarse=coarse)).sum(0)
        rate = bits / (present.sum(1).clamp_min(1) * batch.shape[2] * batch.shape[3])
        loss = (rate / (rate.detach() + LOSS_FLOOR)).mean()
        cost = loss if loss.requires_grad else torch.log2(rate + LOSS_FLOOR).mean()  # the ratio itself is constant
        return Losses(main=cost, scalars={"bpp": rate.detach().mean()})

    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        """Tables are counted on the samples at steps that are the same every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            planes: list[NDArray[np.int32]] = []
            targets: list[NDArray[np.float64]] = []
            for sample in samples:
                count = int((sample.abs().amax((1, 2)) > 0).sum())
                there = sample[None, :count].float()
                planes.append(torch.floor(on_lattice(there, COARSEST, FINEST))[0].numpy().astype(np.int32))
                if self.network.config.modes > 1:
                    targets.extend(closed_targets(there)[0].numpy().astype(np.float64) for _ in range(CLOSED_DRAWS))
        freeze_network(copy.deepcopy(self.network).cpu(), directory, planes, targets, provenance, codec=self.id)


def on_lattice(batch: Tensor, coarsest: float, finest: float | Tensor) -> Tensor:
    """Real numbers [b, 3, h, w] in units of a step that is drawn evenly in its logarithm, the same for the planes of a triple."""
    drawn = torch.rand(len(batch), 1, 1, 1, device=batch.device)
    step = coarsest * (finest / coarsest) ** drawn
    offset = torch.rand(len(batch), 1, 1, 1, device=batch.device)
    return batch / step + offset


def closed_targets(batch: Tensor) -> Tensor:
    """Real numbers [b, 3, h, w] in units of 2**-COARSE of a step that suits the smoothness of each triple."""
    if float(torch.rand(())) < SMOOTH_SHARE:
        batch = blurred(batch, math.exp(float(torch.rand(())) * math.log(2 * SMOOTHEST)) / 2)
    near = (batch[..., :-2, :-2] + batch[..., 2:, 2:] + batch[..., :-2, 2:] + batch[..., 2:, :-2]) / 4
    rough = (batch[..., 1:-1, 1:-1] - near).square().mean((1, 2, 3), keepdim=True).sqrt()
    finest = (rough / CLOSED_BELOW).clamp(CLOSED_FINEST, CLOSED_COARSEST / 2)
    return on_lattice(batch, CLOSED_COARSEST, finest) * 2.0**COARSE


def blurred(batch: Tensor, deviation: float) -> Tensor:
    """Planes [b, 3, h, w] after a Gaussian, again with mean 0 and deviation 1; empty ones stay 0."""
    reach = math.ceil(3 * deviation)
    kernel = torch.exp(-((torch.arange(-reach, reach + 1, device=batch.device) / deviation) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(batch.shape[1], 1, -1)
    x = F.pad(batch, (reach,) * 4, mode="reflect")
    x = F.conv2d(F.conv2d(x, kernel[..., None], groups=batch.shape[1]), kernel[..., None, :], groups=batch.shape[1])
    x = x - x.mean((2, 3), keepdim=True)
    return x / x.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-6)
