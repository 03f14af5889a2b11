"""Chow-Liu trees: the spanning tree of greatest mutual information, rooted at its centre, nodes numbered breadth first.

    pairwise_information(data, values) -> nats [n, n]
    chow_liu(information) -> Tree

Structure is made once, in training; files and presets hold the tree as the list of parents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """A rooted tree over n variables, breadth first: node 0 is the root, parents[k] < k, parents[0] is -1, nodes of one depth are neighbours.

    parents    int64 [n], node of the parent of each node
    variables  int64 [n], which variable (column of the data) each node holds: a permutation
    """

    parents: Integers
    variables: Integers

    def __post_init__(self) -> None:
        n = len(self.parents)
        if n == 0 or sorted(self.variables.tolist()) != list(range(n)) or self.parents[0] != -1:
            raise ValueError("a tree needs a root first and each variable once")
        if n > 1 and (self.parents[1:].min() < 0 or (self.parents[1:] >= np.arange(1, n)).any() or (np.diff(self.parents) < 0).any()):
            raise ValueError("parents do not number a tree breadth first")

    @property
    def size(self) -> int:
        return len(self.parents)

    @cached_property
    def depths(self) -> Integers:
        depths = np.zeros(self.size, np.int64)
        for node in range(1, self.size):
            depths[node] = depths[self.parents[node]] + 1
        return depths

    @cached_property
    def levels(self) -> list[tuple[int, int]]:
        """(first node, node after the last) of every depth."""
        edges = np.searchsorted(self.depths, np.arange(self.depths[-1] + 2))
        return [(int(a), int(b)) for a, b in pairwise(edges)]

    @cached_property
    def children(self) -> list[list[int]]:
        lists: list[list[int]] = [[] for _ in range(self.size)]
        for node in range(1, self.size):
            lists[self.parents[node]].append(node)
        return lists

    def sibling_groups(self, level: int) -> Iterator[tuple[Integers, Integers]]:
        """(nodes of a depth, their parents) in groups without two children of one parent: first children, second children, ..."""
        first, stop = self.levels[level]
        nodes = np.arange(first, stop)
        parents = self.parents[first:stop]
        rank = np.arange(len(nodes)) - np.searchsorted(parents, parents)
        for r in range(int(rank.max()) + 1):
            yield nodes[rank == r], parents[rank == r]

    @cached_property
    def depth_first(self) -> list[int]:
        """Nodes in the order they are coded: each before its children, smaller subtrees first (so that few messages wait at a time)."""
        weight = np.ones(self.size, np.int64)
        for node in range(self.size - 1, 0, -1):
            weight[self.parents[node]] += weight[node]
        order, stack = [], [0]
        while stack:
            node = stack.pop()
            order.append(node)
            stack += sorted(self.children[node], key=lambda c: (-weight[c], c))
        return order


def pairwise_information(data: NDArray[np.integer], values: int) -> NDArray[np.float32]:
    """Mutual information in nats of every pair of columns. data: integers [samples, n] in 0 .. values-1, values small (binned)."""
    samples, n = data.shape
    counts = torch.zeros(n * values, n * values)
    offsets = torch.arange(n) * values
    for start in range(0, samples, 2048):
        part = torch.from_numpy(np.ascontiguousarray(data[start : start + 2048]).astype(np.int64)) + offsets
        hot = torch.zeros(len(part), n * values).scatter_(1, part, 1.0)
        counts += hot.T @ hot
    joint = (counts / samples).reshape(n, values, n, values).permute(0, 2, 1, 3)
    single = torch.diagonal(torch.diagonal(joint, dim1=0, dim2=1), dim1=0, dim2=1)  # [n, values]
    out = torch.zeros(n, n)
    for i in range(n):
        independent = single[i][None, :, None] * single[:, None, :]
        p = joint[i]
        out[i] = torch.where(p > 0, p * (p.clamp(min=1e-30) / independent.clamp(min=1e-30)).log(), 0.0).sum((1, 2))
    return ((out + out.T) / 2).numpy()


def binned(data: NDArray[np.integer], bins: int) -> NDArray[np.int64]:
    """Values of each column replaced by the number of their bin, 0 .. bins-1: the column's commonest value alone, the others by quantiles."""
    out = np.zeros(data.shape, np.int64)
    for i in range(data.shape[1]):
        column = data[:, i]
        levels, counts = np.unique(column, return_counts=True)
        common = levels[counts.argmax()]
        rest = column[column != common]
        if len(rest):
            cuts = np.unique(np.quantile(rest, np.linspace(0, 1, bins)[1:-1]))
            out[:, i] = np.where(column == common, 0, 1 + np.searchsorted(cuts, column, side="right"))
    return np.minimum(out, bins - 1)


def chow_liu(information: NDArray[np.floating]) -> Tree:
    """The maximum spanning tree of `information` [n, n] (Prim), rooted where the farthest leaf is nearest."""
    n = len(information)
    neighbours: list[list[int]] = [[] for _ in range(n)]
    best, source = np.full(n, -np.inf), np.zeros(n, np.int64)
    inside = np.zeros(n, bool)
    node = 0
    for _ in range(n - 1):
        inside[node] = True
        better = ~inside & (information[node] > best)
        best[better], source[better] = information[node][better], node
        node = int(np.where(inside, -np.inf, best).argmax())
        neighbours[node].append(int(source[node]))
        neighbours[int(source[node])].append(node)
    return rooted(neighbours, _centre(neighbours))


def rooted(neighbours: list[list[int]], root: int) -> Tree:
    variables, parents = [root], [-1]
    before = {root: -1}
    for at, variable in enumerate(variables):  # grows while it is read
        for other in sorted(neighbours[variable]):
            if other != before[variable]:
                before[other] = variable
                variables.append(other)
                parents.append(at)
    return Tree(np.array(parents, np.int64), np.array(variables, np.int64))


def _centre(neighbours: list[list[int]]) -> int:
    """The middle of a longest path."""
    end = _path(neighbours, 0)[-1]
    path = _path(neighbours, end)
    return path[len(path) // 2]


def _path(neighbours: list[list[int]], start: int) -> list[int]:
    """From `start` to a node farthest from it."""
    before, order = {start: -1}, [start]
    for node in order:
        for other in neighbours[node]:
            if other not in before:
                before[other] = node
                order.append(other)
    path = [order[-1]]
    while before[path[-1]] >= 0:
        path.append(before[path[-1]])
    return path[::-1]
