"""Probabilistic circuits shaped like a hidden Chow-Liu tree, in floating point: likelihoods and queries. Training is in circuit_em.py,
exact coding in circuit_exact.py.

Every variable x_i of an alphabet 0 .. values-1 hangs on a latent z_i of M states; latents form a tree:

    p(x) = sum over z of  root[z_0]  prod over edges transitions[k][z_parent, z_k]  prod over nodes leaves[k][x_k, z_k]

Messages travel in the linear domain, rescaled per sample and node; nodes of one depth are one batched matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.circuit_tree import Tree

TINY = 1e-30  # keeps quotients finite where a state has no support


@dataclass
class Circuit:
    """root [M]; transitions [n, M, M] (rows: state of the parent, sum to one; entry 0 is unused); leaves [n, values, M] (sum to one over values).

    Nodes are in the order of the tree (breadth first), data columns in the order of the variables.
    """

    tree: Tree
    root: Tensor
    transitions: Tensor
    leaves: Tensor

    @property
    def states(self) -> int:
        return self.leaves.shape[2]

    @property
    def values(self) -> int:
        return self.leaves.shape[1]

    # ---- likelihood

    def log_likelihood(self, data: NDArray[np.integer] | Tensor, known: NDArray[np.bool_] | None = None, batch: int = 512) -> Tensor:
        """Natural logarithm of p(x), float64 [samples]. known: bool [n] or [samples, n]; variables that are not known are summed out."""
        nodes = self.nodes_first(data)
        mask = None if known is None else self._mask(known, nodes.shape[1])
        parts = [self.upward(nodes[:, s : s + batch], None if mask is None else mask[:, s : s + batch]).log_likelihood
                 for s in range(0, nodes.shape[1], batch)]  # fmt: skip
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def nodes_first(self, data: NDArray[np.integer] | Tensor) -> Tensor:
        """int64 [n, samples] in node order from [samples, n] in variable order."""
        array = data.numpy() if isinstance(data, Tensor) else np.asarray(data)
        return torch.from_numpy(np.ascontiguousarray(array[:, self.tree.variables].T).astype(np.int64))

    def _mask(self, known: NDArray[np.bool_], samples: int) -> Tensor:
        whole = np.broadcast_to(np.asarray(known, bool), (samples, self.tree.size))
        return torch.from_numpy(np.ascontiguousarray(whole[:, self.tree.variables].T))

    def upward(self, nodes: Tensor, known: Tensor | None = None, *, maximum: bool = False) -> Upward:
        """Messages from the leaves to the root. nodes: int64 [n, b] in node order; maximum: best state instead of the sum over states."""
        tree, states = self.tree, self.states
        n, b = nodes.shape
        below = torch.empty(n, b, states, dtype=self.leaves.dtype)
        above = torch.empty(n, b, states, dtype=self.leaves.dtype)
        logs = torch.zeros(b, dtype=torch.float64)
        table = self.leaves.reshape(-1, states)
        for level in range(len(tree.levels) - 1, -1, -1):
            first, stop = tree.levels[level]
            rows = nodes[first:stop] + torch.arange(first, stop)[:, None] * self.values
            part = below[first:stop]
            torch.index_select(table, 0, rows.reshape(-1), out=part.view(-1, states))
            if known is not None:
                self._forget(part, known[first:stop], first, stop, maximum)
            if level + 1 < len(tree.levels):
                for children, parents in tree.sibling_groups(level + 1):
                    _multiply(part, parents - first, above, children)
            top = part.amax(2, keepdim=True).clamp_(min=TINY)
            part /= top
            logs += top.double().log_().sum((0, 2))
            if level:
                _up(part, self.transitions[first:stop], maximum, above[first:stop])
        joint = below[0] * self.root
        total = joint.amax(1) if maximum else joint.sum(1)
        return Upward(below, above, logs + total.double().log())

    def _forget(self, part: Tensor, known: Tensor, first: int, stop: int, maximum: bool) -> None:
        free = self.leaves[first:stop].amax(1) if maximum else torch.ones(stop - first, self.states, dtype=part.dtype)
        part[~known] = free[:, None, :].expand_as(part)[~known]

    # ---- queries

    def conditional(self, data: NDArray[np.integer], known: NDArray[np.bool_], variable: int) -> Tensor:
        """p(x_variable | known variables), float64 [samples, values]. known: bool [n] or [samples, n]; the variable itself is taken as unknown."""
        samples = len(data)
        given = np.broadcast_to(np.asarray(known, bool), (samples, self.tree.size)).copy()
        given[:, variable] = False
        nodes, mask = self.nodes_first(data), self._mask(given, samples)
        node = int(np.flatnonzero(self.tree.variables == variable)[0])
        posterior = self.posteriors(self.upward(nodes, mask))[node]  # nothing is known of the variable itself
        return posterior.double() @ self.leaves[node].double().T

    def marginals(self, data: NDArray[np.integer], known: NDArray[np.bool_]) -> Tensor:
        """p(x_i | known variables) of every variable that is not known, and certainty for those that are: float64 [samples, n, values]."""
        nodes, mask = self.nodes_first(data), self._mask(known, len(data))
        posterior = self.posteriors(self.upward(nodes, mask))
        out = torch.bmm(posterior.double(), self.leaves.double().transpose(1, 2))
        certain = torch.nn.functional.one_hot(nodes, self.values).double()
        out = torch.where(mask[:, :, None], certain, out)
        return out[torch.from_numpy(np.argsort(self.tree.variables))].transpose(0, 1)

    def posteriors(self, up: Upward) -> Tensor:
        """p(z_k | what the upward pass was given), [n, b, M]."""
        out = torch.empty_like(up.below)
        out[0] = up.below[0] * self.root
        out[0] /= out[0].sum(1, keepdim=True).clamp(min=TINY)
        for first, stop in self.tree.levels[1:]:
            parents = torch.from_numpy(self.tree.parents[first:stop])
            quotient = out[parents] / up.above[first:stop].clamp(min=TINY)
            out[first:stop] = torch.bmm(quotient, self.transitions[first:stop]) * up.below[first:stop]
        return out

    def sample(self, count: int, seed: int) -> NDArray[np.int64]:
        """int64 [count, n] drawn from p."""
        nothing = np.zeros((count, self.tree.size), np.int64)
        return self.complete(nothing, np.zeros(self.tree.size, bool), seed)

    def complete(self, data: NDArray[np.integer], known: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
        """A draw from p(unknown | known) for each sample: the data with its unknown entries filled in, int64 [samples, n]."""
        generator = torch.Generator().manual_seed(seed)
        nodes, mask = self.nodes_first(data), self._mask(known, len(data))
        up = self.upward(nodes, mask)
        states = torch.empty_like(nodes)
        out = nodes.clone()
        for node in range(self.tree.size):
            prior = self.root.expand(nodes.shape[1], -1) if node == 0 else self.transitions[node][states[self.tree.parents[node]]]
            weights = (prior * up.below[node]).clamp(min=TINY)
            states[node] = torch.multinomial(weights, 1, generator=generator)[:, 0]
            drawn = torch.multinomial(self.leaves[node].T[states[node]].clamp(min=0), 1, generator=generator)[:, 0]
            out[node] = torch.where(mask[node], nodes[node], drawn)
        return self._variables_first(out)

    def most_probable(self, data: NDArray[np.integer], known: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The unknown entries, and the latents with them, that are jointly most probable given the known ones: int64 [samples, n].

        Exact for the joint of variables and latents (the field's max-product); the maximum over variables alone is NP-hard.
        """
        nodes, mask = self.nodes_first(data), self._mask(known, len(data))
        up = self.upward(nodes, mask, maximum=True)
        states = torch.empty_like(nodes)
        out = nodes.clone()
        best = self.leaves.argmax(1)  # [n, M]
        for node in range(self.tree.size):
            prior = self.root.expand(nodes.shape[1], -1) if node == 0 else self.transitions[node][states[self.tree.parents[node]]]
            states[node] = (prior * up.below[node]).argmax(1)
            out[node] = torch.where(mask[node], nodes[node], best[node][states[node]])
        return self._variables_first(out)

    def _variables_first(self, nodes: Tensor) -> NDArray[np.int64]:
        out = np.empty((nodes.shape[1], nodes.shape[0]), np.int64)
        out[:, self.tree.variables] = nodes.numpy().T
        return out


@dataclass
class Upward:
    """below [n, b, M]: evidence at and under each latent, scaled to a greatest entry of one; above [n, b, M]: the same seen from the parent's
    state (entry 0 unused); log_likelihood float64 [b]."""

    below: Tensor
    above: Tensor
    log_likelihood: Tensor


def _multiply(part: Tensor, at: NDArray[np.int64], factors: Tensor, rows: NDArray[np.int64]) -> None:
    """part[at] *= factors[rows], all of `at` different."""
    factor = torch.index_select(factors, 0, torch.from_numpy(rows))
    if len(at) == len(part):  # all of them, in rising order
        part *= factor
    else:
        index = torch.from_numpy(at)
        factor *= torch.index_select(part, 0, index)
        part.index_copy_(0, index, factor)


def _up(below: Tensor, transitions: Tensor, maximum: bool, out: Tensor) -> None:
    if maximum:
        for b, t, o in zip(below, transitions, out, strict=True):
            torch.amax(b[:, None, :] * t[None], 2, out=o)
    else:
        torch.bmm(below, transitions.transpose(1, 2), out=out)
