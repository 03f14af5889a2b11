"""A preset folder of the hierarchical integer grid: its frozen network and tables as priors, one for each width of the integers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from latentpress.codecs.presets import Preset
from latentpress.entropy.frozen import integer_layers, load_integers
from latentpress.entropy.grid import GridPrior
from latentpress.entropy.grid_network import GROUPS, GridConfig, GridNetwork
from latentpress.entropy.tables import Tables


class GridPriors:
    """Made when they are asked for: the tables are shared, the layers of wide integers compute in float64."""

    def __init__(self, preset: Preset) -> None:
        """Raises KeyError, TypeError, ValueError or RuntimeError for a preset that does not fit."""
        self.preset = preset
        self.config, self.tables = GridConfig(**preset.description["config"]), Tables.from_state(dict(preset.weights), "tables")
        self._made: dict[int, GridPrior] = {}

    @property
    def closable(self) -> bool:
        """Whether steps can be counted from predictions (GridPrior.approximate)."""
        return self.config.modes > 1

    def prior(self, peak: int) -> GridPrior:
        """For integers of magnitudes up to `peak`."""
        if peak not in self._made:
            self._made[peak] = GridPrior(frozen_network(self.config, self.preset.weights, peak), self.tables)
        return self._made[peak]

    def describe(self, peak: int) -> dict[str, Any]:
        layers = integer_layers(self.prior(peak).network)
        macs = {name: sum(layer.integers[0].numel() for key, layer in layers.items() if key.startswith(f"groups.{name}.")) for name in GROUPS}
        per_point = round(sum(macs.values()) / 3)  # a quarter of the points each, and a third more for the coarser octaves
        return {
            "parameters": sum(sum(t.numel() for t in layer.integers[:2]) for layer in layers.values()),
            "weight_bytes": sum(w.nbytes for w in self.preset.weights.values()),
            "macs_per_pixel": {"encode": per_point, "decode": per_point}, **self.preset.description.get("about", {}),
        }  # fmt: skip


def frozen_network(config: GridConfig, weights: Mapping[str, NDArray[Any]], peak: int) -> GridNetwork:
    """From the integers of a preset, for samples of magnitudes up to `peak`."""
    network = GridNetwork(dataclasses.replace(config, peak=peak))
    load_integers(network, weights, "network", widen=True)
    for name in GROUPS:
        group: Any = network.groups[name]
        group.octave = nn.Parameter(torch.from_numpy(np.array(weights[f"network.groups.{name}.octave"], np.float32)), requires_grad=False)
        group.integer = group.through = True
    return network.eval().requires_grad_(False)
