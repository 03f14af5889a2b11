"""Pruning by circuit flow and growing, after Dang, Liu and Van den Broeck (2022): spend parameters where samples go.

    prune(learner, keep)     transitions that carry the least expected count disappear, and stay away
    grow(learner, noise)     every state becomes two that differ a little; further training tells them apart

The flow of a transition is its expected count a sample: what its loss costs in likelihood is at most that count times its logarithm, so small flows
go first. Growing without noise changes no likelihood; so a circuit of M states learns its coarse structure as one of M / 2, at a quarter of the work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_em import Learner, Statistics


def prune(learner: Learner, keep: float) -> None:
    """Keeps the transitions of greatest flow, a part `keep` (0 to 1) of all of them, and of every row the greatest."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep!r}: a part between 0 and 1 expected")
    flow = learner.counts.edges[1:]
    least = flow.flatten().kthvalue(max(1, round((1 - keep) * flow.numel()))).values if keep < 1 and flow.numel() else torch.tensor(-1.0)
    kept = torch.ones_like(learner.circuit.transitions, dtype=torch.bool)
    kept[1:] = (flow > least) | (flow == flow.amax(2, keepdim=True))
    if learner.kept is not None:
        kept &= learner.kept
    learner.kept = kept
    learner.update()


def grow(learner: Learner, noise: float, seed: int) -> None:
    """Twice the states. noise: standard deviation of the logarithm of what the copies are multiplied by."""
    generator = torch.Generator().manual_seed(seed)

    def shaken(table: Tensor) -> Tensor:
        return table * torch.exp(noise * torch.randn(table.shape, generator=generator)) if noise else table

    circuit, counts = learner.circuit, learner.counts
    double = Circuit(circuit.tree, circuit.root.repeat_interleave(2) / 2, _twice(circuit.transitions) / 2, circuit.leaves.repeat_interleave(2, 2))
    leaves = counts.leaves.repeat_interleave(2, 2) / 2
    learner.counts = Statistics(shaken(counts.root.repeat_interleave(2) / 2), shaken(_twice(counts.edges) / 4), leaves)
    if learner.mixing is not None:
        mixing = shaken(learner.mixing.repeat_interleave(2, 2))
        learner.mixing = mixing / mixing.sum(1, keepdim=True)
    else:
        learner.counts.leaves = shaken(learner.counts.leaves)
    learner.kept = None if learner.kept is None else _twice(learner.kept)
    learner.circuit, learner.batch_counts = double, None
    learner.update()


def _twice(table: Tensor) -> Tensor:
    return table.repeat_interleave(2, 1).repeat_interleave(2, 2)
