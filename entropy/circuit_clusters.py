"""Mixtures of circuits: one for each cluster of samples, of one tree and with the same leaves.

    centres = k_means(data, count, seed); clusters = nearest(centres, data)      which circuit codes a sample: a cheap rule, free to err
    ClusterLearner.split(learner, shares, strength)                              every cluster starts from what all have in common
    learner.step(nodes of each cluster, rate)                                    hard expectation maximisation: a sample touches its own circuit

A cluster has its own root and transitions. Leaves are learned from all samples together. Transitions keep pseudocounts of the mean over all clusters
(an empirical prior), so that a cluster learns what sets it apart and nothing from noise. An image costs what one circuit costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_em import Learner, Statistics, add_statistics, normal


def nearest(centres: NDArray[Any], data: NDArray[np.integer]) -> NDArray[np.int64]:
    """Which of the centres [C, n] is nearest to each sample: int64 [samples]. data: integers [samples, n]."""
    if len(centres) == 1:
        return np.zeros(len(data), np.int64)
    wide = np.asarray(centres, np.float32)
    half = np.square(wide).sum(1) / 2
    parts = [(half - data[s : s + 4096].astype(np.float32) @ wide.T).argmin(1) for s in range(0, len(data), 4096)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def k_means(data: NDArray[np.uint8], count: int, seed: int, rounds: int = 15) -> NDArray[np.uint8]:
    """Centres [count, n] of clusters of integers [samples, n], rounded. Begins at samples far from each other (k-means++); an empty cluster stays."""
    draw = np.random.default_rng(seed)
    points = data.astype(np.float32)
    centres = points[draw.integers(len(points))][None]
    squares = np.square(points).sum(1)
    distance = np.full(len(points), np.inf)
    for _ in range(1, count):
        last = centres[-1]
        distance = np.minimum(distance, np.maximum(squares - 2 * (points @ last) + last @ last, 0))
        total = distance.sum()
        pick = int(draw.choice(len(points), p=distance / total)) if total > 0 else int(draw.integers(len(points)))
        centres = np.concatenate([centres, points[pick][None]])
    for _ in range(rounds):
        at = nearest(centres, data)
        for c in np.unique(at):
            centres[c] = points[at == c].mean(0)
    return np.rint(centres).astype(np.uint8)


@dataclass
class Mixture:
    """Circuits of one tree with the same leaves. shares [C], sum to one; roots [C, M]; transitions [C, n, M, M]; shape: the tree and leaves."""

    shape: Circuit
    shares: Tensor
    roots: Tensor
    transitions: Tensor

    @classmethod
    def of(cls, circuit: Circuit) -> Mixture:
        return cls(circuit, torch.ones(1), circuit.root[None], circuit.transitions[None])

    @property
    def clusters(self) -> int:
        return len(self.roots)

    def circuit(self, cluster: int) -> Circuit:
        return Circuit(self.shape.tree, self.roots[cluster], self.transitions[cluster], self.shape.leaves)

    def log_likelihood(self, data: NDArray[np.integer], clusters: NDArray[np.integer], batch: int = 512) -> Tensor:
        """Natural logarithm of p(cluster) p(x | cluster), float64 [samples]: what coding both costs."""
        out = torch.empty(len(data), dtype=torch.float64)
        for c in np.unique(clusters):
            mine = np.flatnonzero(clusters == c)
            out[torch.from_numpy(mine)] = self.circuit(int(c)).log_likelihood(data[mine], batch=batch) + self.shares[c].double().log()
        return out


@dataclass
class ClusterLearner:
    """A mixture in training. shared: tree, leaves, smoothing, and as its transitions the mean of all clusters; roots [C, M] and edges [C, n, M, M]:
    running statistics of each cluster, a sample of it; strength: pseudocounts that every row of transitions has from the mean, in samples."""

    shared: Learner
    mixture: Mixture
    roots: Tensor
    edges: Tensor
    strength: float

    @classmethod
    def split(cls, shared: Learner, shares: Tensor, strength: float) -> ClusterLearner:
        """Every cluster a copy of the shared circuit."""
        circuit, count = shared.circuit, len(shares)
        roots, transitions = circuit.root.expand(count, -1).clone(), circuit.transitions.expand(count, -1, -1, -1).clone()
        edges = shared.counts.edges.expand(count, -1, -1, -1).clone()
        mixture = Mixture(circuit, shares / shares.sum(), roots, transitions)
        return cls(shared, mixture, shared.counts.root.expand(count, -1).clone(), edges, strength)

    @property
    def flows(self) -> Tensor:
        """How many samples take each transition of each cluster: [C, n, M, M]."""
        return self.edges * (self.mixture.shares * self.shared.samples)[:, None, None, None]

    def step(self, nodes: Sequence[Tensor], rate: float, part: int = 256) -> float:
        """One batch: for each cluster int64 [n, b_c] in node order. Returns the mean log-likelihood (nats) of all samples before the step."""
        shared, leaves = self.shared, self.shared.counts.leaves
        if shared.batch_counts is None:
            shared.batch_counts = Statistics.zeros(leaves.shape[0], leaves.shape[1], leaves.shape[2])
        batch, count = shared.batch_counts, sum(x.shape[1] for x in nodes)
        batch.clear()
        total = 0.0
        for c, mine in enumerate(nodes):
            if not mine.shape[1]:
                continue
            batch.root.zero_()
            batch.edges.zero_()
            circuit = self.mixture.circuit(c)
            for start in range(0, mine.shape[1], part):
                total += float(add_statistics(circuit, mine[:, start : start + part], batch).sum())
            batch.edges *= circuit.transitions
            self.roots[c].lerp_(batch.root / mine.shape[1], rate)
            self.edges[c].lerp_(batch.edges.div_(mine.shape[1]), rate)
            total += mine.shape[1] * float(self.mixture.shares[c].log())
        shared.counts.leaves.lerp_(batch.leaves.div_(count), rate)
        self.update()
        return total / count

    def update(self) -> None:
        """Parameters from the running statistics."""
        shared, mixture = self.shared, self.mixture
        shares = mixture.shares
        torch.sum(self.roots * shares[:, None], 0, out=shared.counts.root)
        shared.counts.edges.zero_()
        for share, edges in zip(shares.tolist(), self.edges, strict=True):
            shared.counts.edges.add_(edges, alpha=share)
        shared.update()
        for c, share in enumerate(shares.tolist()):
            pseudo = self.strength / max(1.0, share * shared.samples)
            mixture.roots[c] = normal(self.roots[c] + pseudo * shared.circuit.root, 0)
            table = torch.add(self.edges[c], shared.circuit.transitions, alpha=pseudo, out=mixture.transitions[c])
            table /= table.sum(2, keepdim=True)
