"""Exact coding with circuits: integer weights, integer messages, one depth-first pass over the tree for a whole block of samples.

    IntegerCircuit(tree, root, transitions, leaves, bits)      integers only; what presets hold
    encode_block(circuit, nodes) -> bytes
    decode_block(circuit, samples, blob) -> nodes

The code of x_k needs p(x_k | everything decoded before). In depth-first order one message down and one up each edge give that for all variables:

    down   d = share(a_parent @ T_k)            what is known so far, seen from z_k: sums to less than 2**bits
    code   x_k by the masses d @ leaves
    here   a_k = share(d * seen[x_k]),  b_k = seen[x_k]
    up     u = scale(b_k @ T_k'),  a_parent = share(a_parent * u),  b_parent = scale(b_parent * u)

`share` brings a sum, `scale` a greatest entry, below 2**bits by a power of two and floor. Every product and partial sum is an integer below
2**(2 * bits), so float32 carries them exactly up to 12 bits and float64 up to 26: any order of summation, thread count, batch size or carrier gives
the same integers. States that lose all support (a flush to zero) start again from equal shares: worse compression, never a wrong symbol.

A symbol is coded in up to three steps, so that the decoder never builds a table of 256 entries: is it the variable's commonest value; which group of
16 values; which value of the group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.circuit_tree import Tree
from latentpress.entropy.coder import RowDecoder, RowEncoder
from latentpress.errors import FormatError

LEAF_BITS = 20  # each leaf's masses sum to 2**20, none is zero
CODE_BITS = 16  # of the message that meets the leaf masses: 36 bits of mass, 24 more for the coder
GROUP = 16
COUNT = 1 << 24  # what the coder's entries sum to
MAX_VALUES = GROUP * GROUP


@dataclass(frozen=True, eq=False)
class IntegerCircuit:
    """root int64 [M], sums to at most 2**bits; transitions int64 [n, M, M], rows sum to at most 2**bits; leaves int64 [n, values, M], every entry
    at least 1, sums over values equal to 2**LEAF_BITS. bits: 8 to 26; float32 carries messages up to 12 bits."""

    tree: Tree
    root: NDArray[np.int64]
    transitions: NDArray[np.int64]
    leaves: NDArray[np.int64]
    bits: int

    def __post_init__(self) -> None:
        n, values, states = self.leaves.shape
        one = 1 << self.bits
        fits = (
            self.tree.size == n and 8 <= self.bits <= 26 and 1 <= states <= one // 4 and 1 <= values <= MAX_VALUES and self.root.shape == (states,)
            and self.transitions.shape == (n, states, states) and min(self.root.min(), self.transitions.min()) >= 0
            and self.root.sum() <= one and self.transitions.sum(2).max() <= one and self.leaves.min() >= 1
            and (self.leaves.sum(1) == 1 << LEAF_BITS).all()
        )  # fmt: skip
        if not fits:
            raise FormatError("the weights of the circuit are damaged: out of the bounds that make its arithmetic exact")

    @property
    def values(self) -> int:
        return self.leaves.shape[1]

    @property
    def states(self) -> int:
        return self.leaves.shape[2]

    @cached_property
    def common(self) -> NDArray[np.int64]:
        """[n] the value that each variable has most often by its leaf masses, lowest first: coded by a flag of its own."""
        return self.leaves.sum(2).argmax(1)

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


class _Carrier:
    """The tables as floating tensors of one type, and the messages of a walk."""

    def __init__(self, circuit: IntegerCircuit, dtype: torch.dtype) -> None:
        if circuit.bits > (12 if dtype == torch.float32 else 26):
            raise ValueError(f"{dtype} does not carry messages of {circuit.bits} bits exactly")
        self.circuit, self.dtype = circuit, dtype
        self.transitions = torch.from_numpy(circuit.transitions).to(dtype)
        self.root = torch.from_numpy(circuit.root).to(dtype)
        peak = circuit.leaves.max(2, keepdims=True)
        self.seen = torch.from_numpy((circuit.leaves << circuit.bits) // peak).to(dtype)  # [n, values, M]
        self.common = torch.from_numpy(np.take_along_axis(circuit.leaves, circuit.common[:, None, None], 1)[:, 0]).double()  # [n, M]
        others = circuit.leaves.copy()
        np.put_along_axis(others, circuit.common[:, None, None], 0, 1)
        self.width = min(GROUP, circuit.values)
        self.groups = -(-circuit.values // self.width)
        below = np.zeros((len(others), self.groups * self.width + 1, circuit.states), np.float32)
        np.cumsum(others, axis=1, out=below[:, 1 : circuit.values + 1])
        below[:, circuit.values + 1 :] = below[:, circuit.values : circuit.values + 1]
        self.below = torch.from_numpy(below)  # [n, groups * width + 1, M]: mass under each value, without the common one
        self.children_left = np.array([len(c) for c in circuit.tree.children])


def carrier_of(circuit: IntegerCircuit, dtype: torch.dtype | None = None) -> _Carrier:
    """Tables ready for walking; float32 where it is exact."""
    return _Carrier(circuit, dtype or (torch.float32 if circuit.bits <= 12 else torch.float64))


_Code = Callable[[int, Tensor], Tensor]


def _walk(carrier: _Carrier, samples: int, code: _Code) -> None:
    """One depth-first pass. code(node, message float64 [samples, M], sums below 2**CODE_BITS) gives the symbols of that node, int64 [samples]."""
    circuit, parents = carrier.circuit, carrier.circuit.tree.parents
    left = carrier.children_left.copy()
    awaited = {node for down, node in circuit.steps if not down}
    known: dict[int, Tensor] = {}  # a: the message at a node that still has children to come
    news: dict[int, Tensor] = {}  # b: what its parent will be told
    bits = circuit.bits
    for down, node in circuit.steps:
        parent = int(parents[node])
        if down:
            message = carrier.root.expand(samples, -1) if node == 0 else known[parent] @ carrier.transitions[node]
            message = _share(message, bits)
            symbols = code(node, message.double() if bits <= CODE_BITS else (message.double() * 2.0 ** (CODE_BITS - bits)).floor_())
            seen = torch.index_select(carrier.seen[node], 0, symbols)
            if left[node]:
                known[node] = _share(message * seen, bits)
            if node in awaited:
                news[node] = seen
            if node:
                left[parent] -= 1
                if not left[parent] and node not in awaited:
                    del known[parent]
        else:
            told = _scale(news.pop(node) @ carrier.transitions[node].T, bits)
            if left[parent]:
                known[parent] = _share(known[parent] * told, bits)
            else:
                known.pop(parent, None)
            if parent in awaited:
                news[parent] = _scale(news[parent] * told, bits)


def _share(message: Tensor, bits: int) -> Tensor:
    return _shifted(message, message.sum(1, keepdim=True), bits)


def _scale(message: Tensor, bits: int) -> Tensor:
    return _shifted(message, message.amax(1, keepdim=True), bits)


def _shifted(message: Tensor, size: Tensor, bits: int) -> Tensor:
    """floor(message * 2**k) with the k that brings `size` to bits digits; all ones where size is 0."""
    whole, mantissa, bias = (torch.int32, 23, 127) if message.dtype == torch.float32 else (torch.int64, 52, 1023)
    power = (size.view(whole) >> mantissa) - bias  # the binary logarithm, floored: exact, unlike log2
    factor = ((bits - 1 - power + bias) << mantissa).view(message.dtype)
    out = (message * factor).floor_()
    lost = size == 0
    return torch.where(lost, torch.ones_like(out), out) if bool(lost.any()) else out


# ---- symbols


def _entries(masses: Tensor) -> NDArray[np.int64]:
    """Cumulative counts [samples, entries + 1] from cumulative masses of that shape (from 0 to the total): rising, from 1 to COUNT - 1, since an
    entry of 1 stands at either end. A total of 0 counts as 1."""
    mass, count = masses.numpy().astype(np.int64), masses.shape[1] - 1
    return 1 + np.arange(count + 1) + mass * (COUNT - 2 - count) // np.maximum(mass[:, -1:], 1)


def _flags(carrier: _Carrier, node: int, message: Tensor) -> NDArray[np.int64]:
    """Count of the commonest value, 1 to COUNT - 1, int64 [samples]."""
    mass = (message @ carrier.common[node]).numpy().astype(np.int64)
    total = message.sum(1).numpy().astype(np.int64) << LEAF_BITS
    return 1 + mass * (COUNT - 2) // total


def _rows(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack(columns, 1)


def _interval(bounds: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [samples, 3]: below, inside and above entry `at` of cumulative counts [samples, entries + 1]."""
    pick = np.arange(len(at))
    low, high = bounds[pick, at], bounds[pick, at + 1]
    return _rows(low, high - low, COUNT - high)


class _Sender:
    """Turns the symbols of known nodes into counts for the coder."""

    def __init__(self, carrier: _Carrier, nodes: Tensor, out: RowEncoder) -> None:
        self.carrier, self.nodes, self.out = carrier, nodes, out

    def __call__(self, node: int, message: Tensor) -> Tensor:
        carrier, symbols, values = self.carrier, self.nodes[node], self.carrier.circuit.values
        if values == 1:
            return symbols
        flag = _flags(carrier, node, message)
        common = int(carrier.circuit.common[node])
        other = symbols != common
        self.out.push(other.numpy().astype(np.int32), _rows(flag, COUNT - flag))
        where = torch.nonzero(other)[:, 0]
        if len(where) and values > 2:
            self._other(node, message[where], symbols[where])
        return symbols

    def _other(self, node: int, message: Tensor, symbols: Tensor) -> None:
        carrier, width = self.carrier, self.carrier.width
        below = carrier.below[node]
        group, inside = symbols // width, (symbols % width).numpy()
        one = np.ones(len(symbols), np.int32)
        if carrier.groups > 1:
            self.out.push(one, _interval(_entries(message @ below[::width].T.double()), group.numpy()))
        start = group * width
        first, low, high, last = ((message * torch.index_select(below, 0, r)).sum(1).numpy().astype(np.int64)
                                  for r in (start, symbols, symbols + 1, start + width))  # fmt: skip
        total = np.maximum(last - first, 1)
        low, high = (1 + at + (mass - first) * (COUNT - 2 - width) // total for mass, at in ((low, inside), (high, inside + 1)))
        self.out.push(one, _rows(low, high - low, COUNT - high))


class _Receiver:
    """The inverse: symbols from the coder."""

    def __init__(self, carrier: _Carrier, source: RowDecoder) -> None:
        self.carrier, self.source = carrier, source
        self.nodes: dict[int, NDArray[np.int64]] = {}

    def __call__(self, node: int, message: Tensor) -> Tensor:
        carrier, values = self.carrier, self.carrier.circuit.values
        symbols = np.full(len(message), int(carrier.circuit.common[node]), np.int64)
        if values > 1:
            flag = _flags(carrier, node, message)
            where = np.flatnonzero(self.source.pull(_rows(flag, COUNT - flag)))
            if len(where):
                symbols[where] = 1 - symbols[where] if values == 2 else self._other(node, message[torch.from_numpy(where)])
        self.nodes[node] = symbols
        return torch.from_numpy(symbols)

    def _other(self, node: int, message: Tensor) -> NDArray[np.int64]:
        carrier, width = self.carrier, self.carrier.width
        below = carrier.below[node].double()
        group = self._pull(_entries(message @ below[::width].T)) if carrier.groups > 1 else np.zeros(len(message), np.int64)
        bounds = np.empty((len(message), width + 1), np.int64)
        for g in np.unique(group):
            rows = np.flatnonzero(group == g)
            start = int(g) * width
            bounds[rows] = _entries(message[torch.from_numpy(rows)] @ (below[start : start + width + 1] - below[start]).T)
        symbols = group * width + self._pull(bounds)
        if (symbols >= carrier.circuit.values).any():
            raise FormatError("damaged stream: a value is out of range")
        return symbols

    def _pull(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which entry of cumulative counts [samples, entries + 1]."""
        counts = np.empty((len(bounds), bounds.shape[1] + 1), np.int64)
        counts[:, 0] = bounds[:, 0]
        np.subtract(bounds[:, 1:], bounds[:, :-1], out=counts[:, 1:-1])
        counts[:, -1] = COUNT - bounds[:, -1]
        entry = self.source.pull(counts).astype(np.int64) - 1
        if entry.min() < 0 or entry.max() >= bounds.shape[1] - 1:
            raise FormatError("damaged stream: a symbol outside its table")
        return entry


def encode_block(carrier: _Carrier, nodes: NDArray[np.integer[Any]] | Tensor) -> bytes:
    """nodes: integers [n, samples] in node order, 0 .. values-1. The same samples give the same bytes on every machine."""
    nodes = torch.as_tensor(nodes).long()
    out = RowEncoder()
    _walk(carrier, nodes.shape[1], _Sender(carrier, nodes, out))
    return out.finish()


def decode_block(carrier: _Carrier, samples: int, blob: bytes) -> NDArray[np.int64]:
    """int64 [n, samples]. Raises FormatError for bytes that `encode_block` did not write, as far as can be told."""
    source = RowDecoder(blob)
    receiver = _Receiver(carrier, source)
    _walk(carrier, samples, receiver)
    source.close()
    return np.stack([receiver.nodes[node] for node in range(carrier.circuit.tree.size)])
