"""Networks of the integer grid for tests."""

from __future__ import annotations

import torch

from latentpress.entropy.grid_network import GROUPS, GridConfig, GridNetwork


def strayed(config: GridConfig) -> GridNetwork:
    """Weights that are far from those of the start, so that every path counts."""
    torch.manual_seed(3)
    made = GridNetwork(config)
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for name in GROUPS:
        for layer in made.groups[name].linear:
            layer.weight.data *= 0.2
    return made
