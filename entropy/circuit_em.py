"""Expectation maximisation for circuits: explicit products, no autograd.

    start(tree, data, ...) -> Learner          hard clusters of neighbouring variables give the first tables
    learner.step(nodes, rate)                  one mini-batch: running statistics move by `rate`, parameters follow
    learner.circuit                            the circuit as it stands

Running statistics are per sample: S <- (1 - rate) S + rate * S(batch), parameters = normalise(S + pseudocounts).
Rate one over all data is full-batch EM.

Leaves are free tables or mixtures of `basis` distributions that all variables share, leaves[k][x, z] = sum over b of basis[x, b] mixing[k][b, z]:
small images need few shapes of grey-value distributions (black, saturated, the flanks between), and shared ones generalise and store better.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.circuit import TINY, Circuit
from latentpress.entropy.circuit_tree import Tree


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Pseudocounts, in samples: `edges` spread over the states of a child in proportion to how common they are, `leaves` over the values
    (or the mixing weights) of a variable in proportion to how common they are at that variable, `uniform` over all values alike."""

    edges: float = 1.0
    leaves: float = 1.0
    uniform: float = 0.01


@dataclass
class Statistics:
    """Expected counts a sample: root [M], edges [n, M, M], leaves [n, values, M]."""

    root: Tensor
    edges: Tensor
    leaves: Tensor

    @classmethod
    def zeros(cls, n: int, values: int, states: int) -> Statistics:
        return cls(torch.zeros(states), torch.zeros(n, states, states), torch.zeros(n, values, states))

    def clear(self) -> None:
        for tensor in (self.root, self.edges, self.leaves):
            tensor.zero_()

    def move(self, other: Statistics, rate: float) -> None:
        for mine, new in ((self.root, other.root), (self.edges, other.edges), (self.leaves, other.leaves)):
            mine.lerp_(new, rate)


def own_statistics(circuit: Circuit) -> Statistics:
    """What a circuit expects of its own samples."""
    n, values, states = circuit.leaves.shape
    out = Statistics.zeros(n, values, states)
    out.root[:] = circuit.root
    use = torch.empty(n, states)  # how often each state is taken
    use[0] = circuit.root
    for first, stop in circuit.tree.levels[1:]:
        out.edges[first:stop] = use[torch.from_numpy(circuit.tree.parents[first:stop])][:, :, None] * circuit.transitions[first:stop]
        use[first:stop] = out.edges[first:stop].sum(1)
    torch.mul(circuit.leaves, use[:, None], out=out.leaves)
    return out


def add_statistics(circuit: Circuit, nodes: Tensor, out: Statistics) -> Tensor:
    """Adds the expected counts of a batch (edges without their factor `transitions`) and gives the log-likelihoods, float64 [b]."""
    up = circuit.upward(nodes)
    posterior = torch.empty_like(up.below)
    posterior[0] = up.below[0] * circuit.root
    posterior[0] /= posterior[0].sum(1, keepdim=True).clamp(min=TINY)
    out.root += posterior[0].sum(0)
    for first, stop in circuit.tree.levels[1:]:
        parents = torch.from_numpy(circuit.tree.parents[first:stop])
        quotient = torch.index_select(posterior, 0, parents)
        quotient /= up.above[first:stop].clamp_(min=TINY)
        below = up.below[first:stop]
        part = posterior[first:stop]
        torch.bmm(quotient, circuit.transitions[first:stop], out=part)
        part *= below
        out.edges[first:stop].baddbmm_(quotient.transpose(1, 2), below)
    values = out.leaves.shape[1]
    rows = nodes + torch.arange(len(nodes))[:, None] * values
    out.leaves.view(-1, circuit.states).index_add_(0, rows.reshape(-1), posterior.view(-1, circuit.states))
    return up.log_likelihood


@dataclass
class Learner:
    """A circuit in training. basis [values, B] (columns sum to one) and mixing [n, B, M] (sum to one over B), or None for free leaves.

    counts: running statistics, samples: how many samples the pseudocounts are measured against; kept: bool [n, M, M], transitions that may be
    more than zero (all of them where None)
    """

    circuit: Circuit
    counts: Statistics
    samples: int
    smoothing: Smoothing = field(default_factory=Smoothing)
    basis: Tensor | None = None
    mixing: Tensor | None = None
    batch_counts: Statistics | None = None
    kept: Tensor | None = None

    def step(self, nodes: Tensor, rate: float, part: int = 256) -> float:
        """One batch, int64 [n, b] in node order, worked in parts. Returns the mean log-likelihood (nats) before the step."""
        if self.batch_counts is None:
            n, values, states = self.circuit.leaves.shape
            self.batch_counts = Statistics.zeros(n, values, states)
        batch = self.batch_counts
        batch.clear()
        total = 0.0
        for start in range(0, nodes.shape[1], part):
            total += float(add_statistics(self.circuit, nodes[:, start : start + part], batch).sum())
        batch.edges *= self.circuit.transitions
        for tensor in (batch.root, batch.edges, batch.leaves):
            tensor /= nodes.shape[1]
        self.counts.move(batch, rate)
        self.update()
        return total / nodes.shape[1]

    def update(self) -> None:
        """Parameters from the running statistics."""
        c, s, n = self.circuit, self.smoothing, self.samples
        c.root = normal(self.counts.root + s.edges / n / c.states, 0)
        common = self.counts.edges.sum(1, keepdim=True)
        common = common / common.sum(2, keepdim=True).clamp(min=TINY)
        torch.add(self.counts.edges, common, alpha=s.edges / n, out=c.transitions)
        c.transitions += 0.01 * s.edges / n / c.states
        if self.kept is not None:
            c.transitions *= self.kept
        c.transitions /= c.transitions.sum(2, keepdim=True)
        if self.basis is None or self.mixing is None:
            c.leaves = self._free_leaves()
        else:
            self._shared_leaves()

    def _free_leaves(self) -> Tensor:
        s, n = self.smoothing, self.samples
        common = self.counts.leaves.sum(2, keepdim=True)
        common = common / common.sum(1, keepdim=True).clamp(min=TINY)
        return normal(self.counts.leaves + common * (s.leaves / n) + s.uniform / n / self.circuit.values, 1)

    def _shared_leaves(self) -> None:
        """One step of EM for the mixture under each leaf, given the counts of its values."""
        assert self.basis is not None and self.mixing is not None
        s, n, values = self.smoothing, self.samples, self.circuit.values
        quotient = torch.div(self.counts.leaves, self.circuit.leaves.clamp_(min=TINY), out=self.circuit.leaves)  # [n, values, M]
        mixing = self.mixing * torch.matmul(self.basis.T, quotient)  # [n, B, M]
        basis = self.basis * torch.bmm(quotient, self.mixing.transpose(1, 2)).sum(0)
        common = mixing.sum(2, keepdim=True)
        common = common / common.sum(1, keepdim=True).clamp(min=TINY)
        self.mixing = normal(mixing + common * (s.leaves / n) + 1e-6 * s.leaves / n, 1)
        self.basis = normal(basis + s.uniform / n / values, 0)
        torch.matmul(self.basis, self.mixing, out=self.circuit.leaves)


def normal(table: Tensor, axis: int) -> Tensor:
    """Sums to one along the axis."""
    return table / table.sum(axis, keepdim=True).clamp(min=TINY)


# ---- the first tables


def start(
    tree: Tree, data: NDArray[np.integer], information: NDArray[np.floating], *, states: int, values: int, basis: int = 0,
    smoothing: Smoothing | None = None, neighbours: int = 32, rounds: int = 4, seed: int = 0, samples: int | None = None,
) -> Learner:  # fmt: skip
    """A learner whose latents begin as clusters: z_k is the nearest of M centres over the variables that tell most about x_k.

    data: integers [samples, n], a few thousand samples are enough; information [n, n] as for the tree; basis: 0 for free leaves
    """
    clusters = _clusters(tree, data, information, states, neighbours, rounds, seed)
    n = tree.size
    counts = Statistics.zeros(n, values, states)
    hot = torch.nn.functional.one_hot(clusters, states).float()  # [n, samples, M]
    nodes = torch.from_numpy(np.ascontiguousarray(data[:, tree.variables].T).astype(np.int64))
    rows = nodes + torch.arange(n)[:, None] * values
    counts.leaves.view(-1, states).index_add_(0, rows.reshape(-1), hot.view(-1, states))
    counts.root += hot[0].sum(0)
    for first, stop in tree.levels[1:]:
        counts.edges[first:stop] = torch.bmm(hot[torch.from_numpy(tree.parents[first:stop])].transpose(1, 2), hot[first:stop])
    for tensor in (counts.root, counts.edges, counts.leaves):
        tensor /= len(data)
    even = (torch.full((states,), 1 / states), torch.full((n, states, states), 1 / states), torch.full((n, values, states), 1 / values))
    circuit = Circuit(tree, *even)
    learner = Learner(circuit, counts, samples or len(data), smoothing or Smoothing())
    soft = Smoothing(edges=learner.samples / 8, leaves=learner.samples / 32, uniform=learner.smoothing.uniform)
    final, learner.smoothing = learner.smoothing, soft
    if basis:
        learner.basis = _first_basis(counts.leaves.sum((0, 2)), basis)
        learner.mixing = torch.full((n, basis, states), 1 / basis)
        circuit.leaves = torch.matmul(learner.basis, learner.mixing)
        for _ in range(8):
            learner._shared_leaves()
    learner.update()
    learner.smoothing = final
    return learner


def _first_basis(histogram: Tensor, basis: int) -> Tensor:
    """[values, basis]: windows that overlap, each with about the same mass of the histogram; the commonest values get one alone."""
    values = len(histogram)
    p = histogram / histogram.sum() + 1e-4 / values
    alone = [int(v) for v in p.argsort(descending=True)[: basis // 4]]
    rest = p.clone()
    rest[alone] = 0
    rest += 1e-6
    edges = torch.searchsorted((rest.cumsum(0) / rest.sum()).contiguous(), torch.linspace(0, 1, basis - len(alone) + 2)[1:-1]).clamp(max=values - 1)
    grid = torch.arange(values).float()
    columns = [(grid == v).float() for v in alone]
    width = max(values / (basis - len(alone)), 1.0)
    columns += [torch.exp(-0.5 * ((grid - float(e)) / width) ** 2) * (p + 0.2 / values) for e in edges]
    return normal(torch.stack(columns, 1) + 1e-5 / values, 0)


def _clusters(
    tree: Tree, data: NDArray[np.integer], information: NDArray[np.floating], states: int, neighbours: int, rounds: int, seed: int
) -> Tensor:
    """int64 [n, samples]: k-means over each variable and those that tell most about it, weighted by the square root of their information."""
    generator = torch.Generator().manual_seed(seed)
    scaled = torch.from_numpy(np.asarray(data, np.float32))
    scaled = (scaled - scaled.mean(0)) / scaled.std().clamp(min=1e-6)
    weights = np.array(information, np.float32)
    np.fill_diagonal(weights, 1.0001 * weights.max(1).clip(min=1e-6))
    out = torch.empty(tree.size, len(data), dtype=torch.int64)
    for node, variable in enumerate(tree.variables):
        near = np.argsort(-weights[variable], kind="stable")[: min(neighbours, tree.size)]
        scale = torch.from_numpy(np.sqrt(weights[variable][near].clip(min=1e-9)))
        points = scaled[:, torch.from_numpy(near)] * scale
        out[node] = _k_means(points, states, rounds, generator)
    return out


def _k_means(points: Tensor, states: int, rounds: int, generator: torch.Generator) -> Tensor:
    points = points + 1e-4 * torch.randn(points.shape, generator=generator)  # many samples are equal: ties must not empty clusters
    centres = points[torch.randperm(len(points), generator=generator)[:states]].clone()
    centres = centres if len(centres) == states else torch.cat([centres, torch.randn(states - len(centres), points.shape[1], generator=generator)])
    for r in range(rounds):
        nearest = (centres.square().sum(1) - 2 * points @ centres.T).argmin(1)
        if r + 1 == rounds:
            return nearest
        size = torch.zeros(states).index_add_(0, nearest, torch.ones(len(points)))
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(size[:, None] > 0, total / size.clamp(min=1)[:, None], centres)
    return nearest
