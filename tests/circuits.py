"""Small circuits for tests, their joint tables by brute force, and an installed codec where the environment is older than the tree."""

from __future__ import annotations

import itertools
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latentpress.codecs import registry
from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_clusters import Mixture
from latentpress.entropy.circuit_tree import Tree


def random_tree(n: int, seed: int) -> Tree:
    """Parents at random, breadth first; variables shuffled."""
    draw = np.random.default_rng(seed)
    parents = np.sort(np.array([-1] + [int(draw.integers(0, k)) for k in range(1, n)], np.int64))
    return Tree(parents, draw.permutation(n).astype(np.int64))


def random_circuit(n: int, values: int, states: int, seed: int, peak: float = 2.0) -> Circuit:
    """peak: larger is more certain."""
    g = torch.Generator().manual_seed(seed)

    def share(*shape: int, axis: int) -> torch.Tensor:
        weights = torch.rand(*shape, generator=g) ** peak + 1e-4
        return weights / weights.sum(axis, keepdim=True)

    return Circuit(random_tree(n, seed), share(states, axis=0), share(n, states, states, axis=2), share(n, values, states, axis=1))


def random_mixture(count: int, n: int, values: int, states: int, seed: int, peak: float = 2.0) -> Mixture:
    """Circuits of one tree with the same leaves, the first cluster the commonest."""
    circuits = [random_circuit(n, values, states, seed + 100 * c, peak) for c in range(count)]
    shares = torch.arange(count, 0, -1).float()
    return Mixture(circuits[0], shares / shares.sum(), torch.stack([c.root for c in circuits]), torch.stack([c.transitions for c in circuits]))


def joint_with_states(circuit: Circuit) -> NDArray[np.float64]:
    """p(z, x), [M] * n + [values] * n in node order, by multiplying out."""
    n, values, states = circuit.leaves.shape
    out = np.ones((states,) * n + (values,) * n)
    for node in range(n):
        edge = circuit.root.numpy().astype(np.float64) if node == 0 else circuit.transitions[node].numpy().astype(np.float64)
        axes = [node] if node == 0 else [int(circuit.tree.parents[node]), node]
        out = out * _spread(edge, axes, out.ndim)
        out = out * _spread(circuit.leaves[node].numpy().astype(np.float64).T, [node, n + node], out.ndim)
    return out


def _spread(table: NDArray[np.float64], axes: list[int], ndim: int) -> NDArray[np.float64]:
    order = np.argsort(axes)
    shape = [1] * ndim
    for axis, size in zip(axes, table.shape, strict=True):
        shape[axis] = size
    return table.transpose(order).reshape(shape)


def joint(circuit: Circuit) -> NDArray[np.float64]:
    """p(x), [values] * n in the order of the variables."""
    n = circuit.tree.size
    by_node = joint_with_states(circuit).sum(tuple(range(n)))
    return by_node.transpose(np.argsort(circuit.tree.variables))


def all_samples(n: int, values: int) -> NDArray[np.int64]:
    return np.array(list(itertools.product(range(values), repeat=n)), np.int64)


def register_circuit(patch: pytest.MonkeyPatch) -> None:
    """The entry point of the codec, for environments that were installed before it was there."""
    usual = registry.codec_entry_points

    def with_circuit() -> dict[str, EntryPoint]:
        return {"circuit": EntryPoint("circuit", "latentpress.codecs.circuit:Circuit", "latentpress.codecs"), **usual()}

    patch.setattr(registry, "codec_entry_points", with_circuit)
