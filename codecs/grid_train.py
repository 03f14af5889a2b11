"""grid-rgb in training: photographs as a camera would have given them -> bits of the grid network -> preset."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.grid_preset import frozen_network
from latentpress.codecs.grid_rgb import GridRGB
from latentpress.codecs.presets import write_preset
from latentpress.codecs.trainable import Losses, Trainable
from latentpress.entropy.frozen import integer_state
from latentpress.entropy.grid import GridPrior, Push
from latentpress.entropy.grid_closed import Targets
from latentpress.entropy.grid_network import GROUPS, GridConfig, GridNetwork
from latentpress.entropy.grid_tables import mixture_tables
from latentpress.entropy.sharpen import sharpened
from latentpress.errors import InputError

OCTAVES = 4  # that a training crop has
STRENGTH = 4000  # observations that the mixtures weigh when tables are counted
SEED = 1
ROOM = 1 << 5  # beyond the largest sample: half a step counted from a prediction, and its rounding


class GridModel(Trainable):
    """The network with the loss of a lossless codec: bits a sample."""

    id: ClassVar[str] = GridRGB.id
    domain: ClassVar[str] = "image"
    options: ClassVar[type[Any]] = GridConfig
    defaults: ClassVar[Mapping[str, Any]] = {
        "optimiser": "soap", "rate": 1.5e-3, "batch": 12, "crop": 256, "shrink": 1.25, "warmup": 100, "model": {"lanes": 2, "fits": True},
    }  # fmt: skip

    def __init__(self, network: GridNetwork) -> None:
        super().__init__()
        self.network = network

    @classmethod
    def from_options(cls, options: GridConfig, variant: str = "") -> GridModel:
        """Trains through the integers that code. Raises InputError for variants."""
        if variant:
            raise InputError(f"{cls.id} has no variant {variant!r}; its sizes are settings: --set model.width=64")
        network = GridNetwork(options)
        network.set_through(True)
        return cls(network)

    def forward(self, batch: Tensor) -> Losses:
        """batch [b, 3, 2n, 2n] in 0..1, n a multiple of 16. The scalar bpp counts the bits of a pixel, three samples."""
        planes = training_planes(batch)
        step = 1 << OCTAVES
        planes = planes[:, :, : planes.shape[2] // step * step, : planes.shape[3] // step * step].contiguous()
        bits = torch.stack(self.network(planes, octaves=OCTAVES)).sum() / planes.numel()
        return Losses(main=bits, scalars={"bpp": 3 * bits.detach()})

    def reconstruct(self, batch: Tensor) -> Tensor:
        """What was given: the codec is lossless."""
        return batch

    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        """Tables are counted on the photographs as training sees them, with the same noise every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            planes = [_whole(s) for s in samples]
        freeze_network(copy.deepcopy(self.network).cpu(), directory, planes, [], provenance)


def training_planes(batch: Tensor) -> Tensor:
    """Photographs [b, 3, 2n, 2n] in 0..1 -> integers [b, 3, n, n] of YCoCg-R: halved, so that marks of an earlier JPEG vanish, and for half
    of them with a little grey and colour noise, which cameras have and halving removed."""
    b = len(batch)
    x = F.interpolate(batch * 255, scale_factor=0.5, mode="bicubic", antialias=True)
    strength = torch.rand(2, b, 1, 1, 1, device=x.device) * (torch.rand(b, 1, 1, 1, device=x.device) < 0.5)
    x = x + torch.randn_like(x[:, :1]) * strength[0] * 2 + torch.randn_like(x) * strength[1] * 1.2
    r, g, blue = x.round().clamp(0, 255).unbind(1)
    co = r - blue
    t = blue + torch.floor(co / 2)
    cg = g - t
    return torch.stack([t + torch.floor(cg / 2), co, cg], 1)


def _whole(sample: Tensor) -> NDArray[np.int32]:
    """A photograph, uint8 [3, h, w], as training sees it: int32 [3, h/2, w/2]."""
    even = sample[:, : sample.shape[1] // 2 * 2, : sample.shape[2] // 2 * 2]
    return training_planes(even[None].float() / 255)[0].numpy().astype(np.int32)


def freeze_network(
    network: GridNetwork, directory: Path, planes: Sequence[NDArray[np.int32]], targets: Sequence[NDArray[np.float64]],
    provenance: Mapping[str, Any], codec: str = GridRGB.id,
) -> None:  # fmt: skip
    """Write a preset: integers of the network, and tables sharpened by what occurs in `planes` and `targets` (of training data; of targets
    what steps counted from predictions make of them)."""
    mix = np.concatenate([torch.softmax(_group(network, g).mix.detach().double(), 1).numpy() for g in GROUPS])
    widths = np.concatenate([torch.exp(_group(network, g).relative.detach().double()).numpy() for g in GROUPS])
    frozen, tables = network.freeze(), mixture_tables(mix, widths, closed=network.config.modes > 1)
    weights = integer_state(frozen, "network")
    weights |= {f"network.groups.{g}.octave": _group(frozen, g).octave.detach().numpy().astype(np.int32) for g in GROUPS}
    if planes or targets:
        reach = [int(np.abs(p).max(initial=0)) for p in planes] + [int(np.abs(t).max(initial=0)) for t in targets]
        peak = max(network.config.peak, max(reach) + ROOM)
        prior = GridPrior(frozen_network(network.config, weights, peak), tables)
        tables = sharpened(tables, _pushes(prior, planes, targets), STRENGTH)
    weights |= tables.state("tables")
    about = {"licence": provenance.get("licence", "not stated"), "paper": "hierarchical integer grid, our own"}
    config = dataclasses.asdict(network.config)
    write_preset(directory, {"codec": codec, "config": config, "about": about, "provenance": dict(provenance)}, weights)


def _pushes(prior: GridPrior, planes: Sequence[NDArray[np.int32]], targets: Sequence[NDArray[np.float64]]) -> Iterator[Push]:
    for p in planes:
        yield from prior.symbols(p)
    for t in targets:
        yield from prior.approximated(Targets(t))[0]


def _group(network: GridNetwork, name: str) -> Any:
    return network.groups[name]
