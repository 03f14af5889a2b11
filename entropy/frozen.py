"""Trained layers to integer layers, those to arrays and back: what a preset stores of an exact network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from latentpress.entropy.exact import FixedConv2d, IntegerConv2d


def replace_layers(network: nn.Module, make: Callable[[str, FixedConv2d], IntegerConv2d]) -> None:
    """Put what `make` gives for its name and itself in the place of every FixedConv2d inside `network`."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, FixedConv2d):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, make(name, layer))


def freeze_layers(network: nn.Module) -> None:
    """Every trained layer inside `network` becomes the integers that it computed with."""
    replace_layers(network, lambda name, layer: layer.freeze())


def integer_layers(network: nn.Module) -> dict[str, IntegerConv2d]:
    """By name, in the order of the network."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, IntegerConv2d)}


def integer_state(network: nn.Module, prefix: str) -> dict[str, NDArray[Any]]:
    """Every IntegerConv2d inside `network`: weights int16, bias int32, fraction int8. Raises ValueError for weights beyond 16 bits."""
    state: dict[str, NDArray[Any]] = {}
    for name, layer in integer_layers(network).items():
        weight, bias, fraction = (t.numpy() for t in layer.integers)
        if np.abs(weight).max() > np.iinfo(np.int16).max:
            raise ValueError(f"{name}: weights do not fit 16 bits")
        parts = {"weight": weight.astype(np.int16), "bias": bias, "fraction": fraction.astype(np.int8)}
        state |= {f"{prefix}.{name}.{k}": v for k, v in parts.items()}
    return state


def load_integers(network: nn.Module, weights: Mapping[str, NDArray[Any]], prefix: str, *, widen: bool = False) -> None:
    """Replace every FixedConv2d inside `network` by the stored integer layer; each proves its bound again.

    widen: a layer whose sums float32 cannot hold (inputs of 16 bits) computes in float64.
    Raises KeyError for missing layers, ValueError for others' shapes and for bounds that do not hold.
    """

    def stored(name: str, layer: FixedConv2d) -> IntegerConv2d:
        parts = {k: torch.from_numpy(np.array(weights[f"{prefix}.{name}.{k}"])) for k in ("weight", "bias", "fraction")}
        if parts["weight"].shape != layer.weight.shape or not len(parts["bias"]) == len(parts["fraction"]) == len(layer.weight):
            raise ValueError(f"{name}: shape {tuple(parts['weight'].shape)}, {tuple(layer.weight.shape)} expected")
        return _proven(parts, layer, widen)

    replace_layers(network, stored)


def _proven(parts: Mapping[str, torch.Tensor], layer: FixedConv2d, widen: bool) -> IntegerConv2d:
    known: dict[str, Any] = {**parts, "source": layer.source, "target": layer.target, "groups": layer.groups}
    try:
        return IntegerConv2d(**known)
    except ValueError:
        if not widen:
            raise
        return IntegerConv2d(**known, carrier_bits=53)
