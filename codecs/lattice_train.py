"""The lattice codec in training: triples of fields -> integers at a random step -> bits of the grid network -> preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.grid_train import OCTAVES, SEED, GridModel, freeze_network
from latentpress.codecs.trainable import Losses

COARSEST, FINEST = 0.6, 4e-5  # steps of the lattice, in deviations of the plane
LOSS_FLOOR = 0.05  # bits a sample beside which a plane's own bits count in full; above, their ratio counts


class LatticeModel(GridModel):
    """The grid network with a loss that weighs ratios: a tenth saved at two bits a point is worth a tenth saved at twelve."""

    id: ClassVar[str] = "lattice"
    domain: ClassVar[str] = "field"
    defaults: ClassVar[Mapping[str, Any]] = {"optimiser": "soap", "rate": 1.5e-3, "batch": 12, "crop": 128, "shrink": 1.0, "warmup": 100}
    targets: ClassVar[tuple[float, ...]] = (0, 33, 67, 100)

    def forward(self, batch: Tensor) -> Losses:
        """batch [b, 3, n, n] of planes with mean 0 and deviation 1, n a multiple of 16; empty planes are 0."""
        present = (batch.abs().amax((2, 3)) > 0).float()
        planes, _ = on_lattice(batch)
        bits = torch.stack(self.network(planes, octaves=OCTAVES, present=present)).sum(0)
        rate = bits / (present.sum(1).clamp_min(1) * batch.shape[2] * batch.shape[3])
        loss = (rate / (rate.detach() + LOSS_FLOOR)).mean()
        cost = loss if loss.requires_grad else torch.log2(rate + LOSS_FLOOR).mean()  # the ratio itself is constant
        return Losses(main=cost, scalars={"bpp": rate.detach().mean()})

    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        """Tables are counted on the samples at steps that are the same every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            planes: list[NDArray[np.int32]] = []
            for sample in samples:
                count = int((sample.abs().amax((1, 2)) > 0).sum())
                planes.append(on_lattice(sample[None].float())[0][0, :count].numpy().astype(np.int32))
        freeze_network(self.network.cpu(), directory, planes, provenance, codec=self.id)


def on_lattice(batch: Tensor) -> tuple[Tensor, Tensor]:
    """(integers [b, 3, h, w], step [b, 1, 1, 1]): rounded at a step drawn evenly in its logarithm, the same for the planes of a triple."""
    drawn = torch.rand(len(batch), 1, 1, 1, device=batch.device)
    step = COARSEST * (FINEST / COARSEST) ** drawn
    offset = torch.rand(len(batch), 1, 1, 1, device=batch.device)
    return torch.floor(batch / step + offset), step
