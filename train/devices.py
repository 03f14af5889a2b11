"""Where a run runs: Lightning Fabric on a CPU, one GPU, several, or several machines started by torchrun or Slurm."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from latentpress.codecs.trainable import Losses, Trainable
from latentpress.errors import MissingExtraError
from latentpress.train.config import TrainConfig

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}


def make_fabric(config: TrainConfig) -> Any:
    """devices and nodes of the configuration, or those that torchrun started."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise MissingExtraError("lightning-fabric", "train") from error
    torch.backends.cudnn.allow_tf32 = False  # integers of exact networks need all of float32
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", config.devices))
    nodes = int(os.environ["WORLD_SIZE"]) // devices if {"LOCAL_WORLD_SIZE", "WORLD_SIZE"} <= os.environ.keys() else config.nodes
    strategy = DDPStrategy(find_unused_parameters=True) if devices * nodes > 1 else "auto"
    return Fabric(
        accelerator=config.accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=_PRECISION[config.precision]  # type: ignore[arg-type]
    )  # fmt: skip


def first_process() -> bool:
    """Whether this process will be the first of all; known before they meet."""
    return not any(int(os.environ.get(name, 0)) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))


class Held:
    """Keeps the losses out of sight of the data-parallel wrapper, which would wait for gradients of everything that it sees."""

    def __init__(self, losses: Losses) -> None:
        self.losses = losses


class Objective(nn.Module):
    """What is wrapped for several processes: one forward gives the main loss, and beside it all the others.

    The wrapper synchronises gradients of the main loss alone; it does not see the auxiliary parameters, which few numbers are synchronised of.
    """

    def __init__(self, model: Trainable) -> None:
        super().__init__()
        self.model = model
        auxiliary = {id(p) for p in model.auxiliary_parameters()}
        self._ddp_params_and_buffers_to_ignore = [n for n, p in self.named_parameters() if id(p) in auxiliary]

    def forward(self, batch: Tensor) -> tuple[Tensor, Held]:
        losses = self.model(batch)
        return losses.main.float(), Held(losses)


def add_gradients(total: list[Tensor], loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """Add the gradients of an auxiliary loss with respect to its own parameters; no other parameter gets any."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for gradient, new in zip(total, found, strict=True):
        if new is not None:
            gradient += new
