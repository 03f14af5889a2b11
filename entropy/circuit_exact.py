"""Exact coding with circuits: integer weights, integer messages, one depth-first pass over the tree for a whole block of samples.

    IntegerCircuit(tree, shares, roots, transitions, leaves, bits)      integers only; what presets hold
    encode_block(carrier, nodes, clusters) -> bytes
    decode_block(carrier, samples, blob) -> nodes, clusters

A sample is coded by the circuit of its cluster: one root and one set of transitions each, the same tree and leaves for all. Samples are walked in
the order of their clusters, so that a cluster's messages are neighbouring rows.

The code of x_k needs p(x_k | everything decoded before). In depth-first order one message down and one up each edge give that for all variables:

    down   d = share(a_parent @ T_k)            what is known so far, seen from z_k: sums to less than 2**bits
    code   x_k by the masses d @ leaves
    here   a_k = share(d * seen[x_k]),  b_k = seen[x_k]
    up     u = scale(b_k @ T_k'),  a_parent = share(a_parent * u),  b_parent = scale(b_parent * u)

`share` brings a sum, `scale` a greatest entry, below 2**bits by a power of two and floor. Every product and partial sum is an integer below
2**(2 * bits), so float32 carries them exactly up to 12 bits and float64 up to 26: any order of summation, thread count, batch size or carrier gives
the same integers. States that lose all support (a flush to zero) start again from equal shares: worse compression, never a wrong symbol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.circuit_symbols import COUNT, MAX_VALUES, LeafTables, Receiver, Sender
from latentpress.entropy.circuit_tree import Tree
from latentpress.entropy.coder import RowDecoder, RowEncoder
from latentpress.errors import FormatError

LEAF_BITS = 20  # each leaf's masses sum to about 2**20, at most twice that; none is zero
CODE_BITS = 16  # of the message that meets the leaf masses: 37 bits of mass, 24 more for the coder
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class IntegerCircuit:
    """shares int64 [C], of the clusters, at least 1, sum to COUNT; roots int64 [C, M], sum to at most 2**bits; transitions integers
    [C, n, M, M], rows sum to at most 2**bits; leaves int32 [n, values, M], every entry at least 1, sums over values at most 2**(LEAF_BITS + 1).
    bits: 8 to 26; float32 carries messages up to 12 bits."""

    tree: Tree
    shares: Integers
    roots: Integers
    transitions: NDArray[np.integer[Any]]
    leaves: NDArray[np.int32]
    bits: int

    def __post_init__(self) -> None:
        n, values, states = self.leaves.shape
        one, clusters = 1 << self.bits, len(self.shares)
        fits = (
            self.tree.size == n and 8 <= self.bits <= 26 and 1 <= states <= one // 4 and 1 <= values <= MAX_VALUES and clusters >= 1
            and self.roots.shape == (clusters, states) and self.transitions.shape == (clusters, n, states, states)
            and min(self.roots.min(), self.transitions.min()) >= 0 and self.shares.min() >= 1 and self.shares.sum() == COUNT
            and self.roots.sum(1).max() <= one and self.transitions.sum(3).max() <= one and self.leaves.min() >= 1
            and self.leaves.sum(1).max() <= 2 << LEAF_BITS
        )  # fmt: skip
        if not fits:
            raise FormatError("the weights of the circuit are damaged: out of the bounds that make its arithmetic exact")

    @property
    def clusters(self) -> int:
        return len(self.shares)

    @property
    def values(self) -> int:
        return self.leaves.shape[1]

    @property
    def states(self) -> int:
        return self.leaves.shape[2]

    @cached_property
    def steps(self) -> list[tuple[bool, int]]:
        """(True, k): message down into node k and its symbol; (False, k): message of node k up to its parent. Messages nobody reads are left out."""
        tree = self.tree
        weight = np.ones(tree.size, np.int64)
        for node in range(tree.size - 1, 0, -1):
            weight[tree.parents[node]] += weight[node]
        steps: list[tuple[bool, int]] = []
        stack: list[tuple[bool, int, bool]] = [(True, 0, False)]  # the last: does anybody wait for news of this node
        while stack:
            down, node, awaited = stack.pop()
            steps.append((down, node))
            if not down:
                continue
            if awaited:
                stack.append((False, node, True))
            children = sorted(tree.children[node], key=lambda c: (weight[c], c))
            for at in range(len(children) - 1, -1, -1):
                stack.append((True, children[at], awaited or at + 1 < len(children)))
        return steps


class Carrier:
    """The tables of a circuit in the type that carries its messages."""

    def __init__(self, circuit: IntegerCircuit, dtype: torch.dtype) -> None:
        if circuit.bits > (12 if dtype == torch.float32 else 26):
            raise ValueError(f"{dtype} does not carry messages of {circuit.bits} bits exactly")
        self.circuit, self.dtype = circuit, dtype
        self.transitions = torch.from_numpy(circuit.transitions).to(dtype)
        self.roots = torch.from_numpy(circuit.roots).to(dtype)
        narrow = torch.int16 if circuit.bits < 16 else torch.int32
        self.seen = _scale(torch.from_numpy(circuit.leaves).double(), circuit.bits).to(narrow)  # [n, values, M]
        self.leaves = LeafTables(circuit.leaves, dtype)

    @cached_property
    def children(self) -> Integers:
        return np.array([len(c) for c in self.circuit.tree.children])

    def code_message(self, message: Tensor) -> Tensor:
        """The message as it meets masses: its sum below 2**CODE_BITS."""
        bits = self.circuit.bits
        return message if bits <= CODE_BITS else (message * 2.0 ** (CODE_BITS - bits)).floor_()


def carrier_of(circuit: IntegerCircuit, dtype: torch.dtype | None = None) -> Carrier:
    """Tables ready for walking; float32 where it is exact."""
    return Carrier(circuit, dtype or (torch.float32 if circuit.bits <= 12 else torch.float64))


_Code = Callable[[int, Tensor], Tensor]


class _Edges:
    """Messages along edges. clusters: int64 [samples], rising."""

    def __init__(self, carrier: Carrier, clusters: Integers) -> None:
        ends = np.searchsorted(clusters, np.arange(carrier.circuit.clusters + 1)).tolist()
        self.carrier = carrier
        self.parts = [(c, a, b) for c, (a, b) in enumerate(pairwise(ends)) if b > a]

    def root(self, out: Tensor) -> Tensor:
        for c, a, b in self.parts:
            out[a:b] = self.carrier.roots[c]
        return out

    def down(self, message: Tensor, node: int, out: Tensor) -> Tensor:
        for c, a, b in self.parts:
            torch.mm(message[a:b], self.carrier.transitions[c, node], out=out[a:b])
        return out

    def up(self, message: Tensor, node: int, out: Tensor) -> Tensor:
        for c, a, b in self.parts:
            torch.mm(message[a:b], self.carrier.transitions[c, node].T, out=out[a:b])
        return out


class _Buffers:
    """Tensors [samples, M] that are used again: fresh memory for every message costs more than the arithmetic."""

    def __init__(self, samples: int, states: int, dtype: torch.dtype) -> None:
        self.shape, self.dtype, self.free = (samples, states), dtype, []  # type: ignore[var-annotated]

    def take(self) -> Tensor:
        return self.free.pop() if self.free else torch.empty(self.shape, dtype=self.dtype)

    def give(self, *tensors: Tensor) -> None:
        self.free += tensors


def _walk(carrier: Carrier, clusters: Integers, code: _Code) -> None:
    """One depth-first pass over samples in the order of their clusters, int64 [samples]. code(node, message [samples, M], sums below 2**CODE_BITS)
    gives the symbols of that node, int64 [samples]."""
    circuit, parents, bits = carrier.circuit, carrier.circuit.tree.parents, carrier.circuit.bits
    left = carrier.children.copy()
    awaited = {node for down, node in circuit.steps if not down}
    known: dict[int, Tensor] = {}  # a: the message at a node that still has children to come
    news: dict[int, Tensor] = {}  # b: what its parent will be told
    buffers, edges = _Buffers(len(clusters), circuit.states, carrier.dtype), _Edges(carrier, clusters)
    for down, node in circuit.steps:
        parent = int(parents[node])
        message = buffers.take()
        if down:
            _share(edges.down(known[parent], node, message) if node else edges.root(message), bits)
            symbols = code(node, carrier.code_message(message))
            seen = torch.index_select(carrier.seen[node].to(carrier.dtype), 0, symbols, out=buffers.take())
            if left[node]:
                known[node] = _share(message.mul_(seen), bits)
            else:
                buffers.give(message)
            if node in awaited:
                news[node] = seen
            else:
                buffers.give(seen)
            if node:
                left[parent] -= 1
                if not left[parent] and node not in awaited:
                    buffers.give(known.pop(parent))
        else:
            told = news.pop(node)
            _scale(edges.up(told, node, message), bits)
            if left[parent]:
                _share(known[parent].mul_(message), bits)
            else:
                buffers.give(known.pop(parent))
            if parent in awaited:
                _scale(news[parent].mul_(message), bits)
            buffers.give(message, told)


def _share(message: Tensor, bits: int) -> Tensor:
    return _shifted(message, message.sum(-1, keepdim=True), bits)


def _scale(message: Tensor, bits: int) -> Tensor:
    return _shifted(message, message.amax(-1, keepdim=True), bits)


def _shifted(message: Tensor, size: Tensor, bits: int) -> Tensor:
    """floor(message * 2**k), in place, with the k that brings `size` to bits digits; all ones where size is 0."""
    sizes: NDArray[Any] = size.numpy()
    whole, mantissa, bias = (np.int32, 23, 127) if sizes.dtype == np.float32 else (np.int64, 52, 1023)
    if sizes.min() == 0:
        message.masked_fill_(size == 0, 1.0)
        sizes = np.maximum(sizes, sizes.dtype.type(1 << (bits - 1)))
    words: Any = sizes.view(whole)
    power = words >> mantissa  # the binary logarithm, floored, plus the bias: exact, unlike log2
    factor = ((bits - 1 + 2 * bias - power) << mantissa).view(sizes.dtype)
    return message.mul_(torch.from_numpy(factor)).floor_()


def encode_block(carrier: Carrier, nodes: NDArray[np.integer[Any]] | Tensor, clusters: Integers | None = None) -> bytes:
    """nodes: integers [n, samples] in node order, 0 .. values-1; clusters: int64 [samples], which circuit codes each (all by the first where None).
    The same samples and clusters give the same bytes on every machine."""
    nodes = torch.as_tensor(nodes).long()
    samples = nodes.shape[1]
    if samples == 0:
        return b""
    clusters = np.zeros(samples, np.int64) if clusters is None else clusters
    out = RowEncoder()
    if carrier.circuit.clusters > 1:
        out.push(clusters.astype(np.int32), _cluster_counts(carrier.circuit, samples))
    order = np.argsort(clusters, kind="stable")
    _walk(carrier, clusters[order], Sender(carrier.leaves, nodes[:, torch.from_numpy(order)], out))
    return out.finish()


def decode_block(carrier: Carrier, samples: int, blob: bytes) -> tuple[Integers, Integers]:
    """int64 [n, samples], and their clusters, int64 [samples]. Raises FormatError for bytes that no encoder wrote, as far as can be told."""
    circuit = carrier.circuit
    if samples == 0:
        if blob:
            raise FormatError("damaged stream: data for no samples")
        return np.empty((circuit.tree.size, 0), np.int64), np.empty(0, np.int64)
    source = RowDecoder(blob)
    clusters = source.pull(_cluster_counts(circuit, samples)).astype(np.int64) if circuit.clusters > 1 else np.zeros(samples, np.int64)
    order = np.argsort(clusters, kind="stable")
    receiver = Receiver(carrier.leaves, source)
    _walk(carrier, clusters[order], receiver)
    source.close()
    out = np.empty((circuit.tree.size, samples), np.int64)
    for node, symbols in receiver.nodes.items():
        out[node, order] = symbols
    return out, clusters


def _cluster_counts(circuit: IntegerCircuit, samples: int) -> Integers:
    """[samples, C], the same for all samples."""
    return np.broadcast_to(circuit.shares, (samples, circuit.clusters))
