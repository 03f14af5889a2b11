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

LEAF_BITS = 20  # each leaf's masses sum to about 2**20, at most twice that; none is zero
HALF = 10
CODE_BITS = 16  # of the message that meets the leaf masses: 37 bits of mass, 24 more for the coder
GROUP = 16
COUNT = 1 << 24  # what the coder's entries sum to
MAX_VALUES = GROUP * GROUP


@dataclass(frozen=True, eq=False)
class IntegerCircuit:
    """root int64 [M], sums to at most 2**bits; transitions int64 [n, M, M], rows sum to at most 2**bits; leaves int32 [n, values, M], every entry
    at least 1, sums over values at most 2**(LEAF_BITS + 1). bits: 8 to 26; float32 carries messages up to 12 bits."""

    tree: Tree
    root: NDArray[np.int64]
    transitions: NDArray[np.int64]
    leaves: NDArray[np.int32]
    bits: int

    def __post_init__(self) -> None:
        n, values, states = self.leaves.shape
        one = 1 << self.bits
        fits = (
            self.tree.size == n and 8 <= self.bits <= 26 and 1 <= states <= one // 4 and 1 <= values <= MAX_VALUES and self.root.shape == (states,)
            and self.transitions.shape == (n, states, states) and min(self.root.min(), self.transitions.min()) >= 0
            and self.root.sum() <= one and self.transitions.sum(2).max() <= one and self.leaves.min() >= 1
            and self.leaves.sum(1).max() <= 2 << LEAF_BITS
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


class Carrier:
    """The tables of a circuit in the type that carries its messages. Masses are split into high and low halves, so that their products with messages
    stay exact in float32."""

    def __init__(self, circuit: IntegerCircuit, dtype: torch.dtype) -> None:
        if circuit.bits > (12 if dtype == torch.float32 else 26):
            raise ValueError(f"{dtype} does not carry messages of {circuit.bits} bits exactly")
        self.circuit, self.dtype = circuit, dtype
        self.transitions = torch.from_numpy(circuit.transitions).to(dtype)
        self.root = torch.from_numpy(circuit.root).to(dtype)
        leaves = torch.from_numpy(circuit.leaves)
        narrow = torch.int16 if circuit.bits < 16 else torch.int32
        self.seen = _scale(leaves.double(), circuit.bits).to(narrow)  # [n, values, M]
        common = torch.from_numpy(circuit.common)
        mass = leaves[torch.arange(len(leaves)), common]  # [n, M]
        self.flags = _halves(torch.stack([mass.long(), leaves.sum(1)], 2)).to(dtype)  # [n, M, 4]
        self.width = min(GROUP, circuit.values)
        self.groups = -(-circuit.values // self.width)
        others = torch.zeros(len(leaves), circuit.states, self.groups * self.width, dtype=torch.int32)
        others[:, :, : circuit.values] = leaves.transpose(1, 2)
        others.scatter_(2, common[:, None, None].expand(-1, circuit.states, 1), 0)  # the commonest value is coded before
        grouped = others.view(len(leaves), circuit.states, self.groups, self.width)
        self.edges = _halves(_from_zero(grouped.sum(3))).to(dtype)  # [n, M, 2 * (groups + 1)]: mass under each group
        self.inside = _halves(_from_zero(grouped)).to(torch.int16).transpose(1, 2).contiguous()  # [n, groups, M, 2 * (width + 1)]: in its group

    @cached_property
    def children(self) -> NDArray[np.int64]:
        return np.array([len(c) for c in self.circuit.tree.children])

    def code_message(self, message: Tensor) -> Tensor:
        """The message as it meets masses: its sum below 2**CODE_BITS."""
        bits = self.circuit.bits
        return message if bits <= CODE_BITS else (message * 2.0 ** (CODE_BITS - bits)).floor_()


def _from_zero(mass: Tensor) -> Tensor:
    """[..., k] to its running sums [..., k + 1]."""
    return torch.nn.functional.pad(mass.cumsum(-1), (1, 0)).to(torch.int32)


def _halves(mass: Tensor) -> Tensor:
    """[..., k] to [..., 2 k]: the masses without their last ten bits, then these bits."""
    return torch.cat([mass >> HALF, mass & ((1 << HALF) - 1)], -1)


def _masses(message: Tensor, halves: Tensor) -> NDArray[np.int64]:
    """message @ mass, int64 [samples, k]."""
    return _joined(message @ halves)


def _joined(product: Tensor) -> NDArray[np.int64]:
    whole = product.numpy().astype(np.int64)
    k = whole.shape[1] // 2
    high = whole[:, :k]
    high <<= HALF
    high += whole[:, k:]
    return high


def carrier_of(circuit: IntegerCircuit, dtype: torch.dtype | None = None) -> Carrier:
    """Tables ready for walking; float32 where it is exact."""
    return Carrier(circuit, dtype or (torch.float32 if circuit.bits <= 12 else torch.float64))


_Code = Callable[[int, Tensor], Tensor]


class _Buffers:
    """Tensors [samples, M] that are used again: fresh memory for every message costs more than the arithmetic."""

    def __init__(self, samples: int, states: int, dtype: torch.dtype) -> None:
        self.shape, self.dtype, self.free = (samples, states), dtype, []  # type: ignore[var-annotated]

    def take(self) -> Tensor:
        return self.free.pop() if self.free else torch.empty(self.shape, dtype=self.dtype)

    def give(self, *tensors: Tensor) -> None:
        self.free += tensors


def _walk(carrier: Carrier, samples: int, code: _Code) -> None:
    """One depth-first pass. code(node, message [samples, M], sums below 2**CODE_BITS) gives the symbols of that node, int64 [samples]."""
    circuit, parents, bits = carrier.circuit, carrier.circuit.tree.parents, carrier.circuit.bits
    left = carrier.children.copy()
    awaited = {node for down, node in circuit.steps if not down}
    known: dict[int, Tensor] = {}  # a: the message at a node that still has children to come
    news: dict[int, Tensor] = {}  # b: what its parent will be told
    buffers = _Buffers(samples, circuit.states, carrier.dtype)
    for down, node in circuit.steps:
        parent = int(parents[node])
        message = buffers.take()
        if down:
            if node:
                torch.mm(known[parent], carrier.transitions[node], out=message)
            else:
                message[:] = carrier.root
            _share(message, bits)
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
            _scale(torch.mm(told, carrier.transitions[node].T, out=message), bits)
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


# ---- symbols


def _entries(mass: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cumulative counts [samples, entries + 1] from cumulative masses of that shape (from 0 to the total): rising, from 1 to COUNT - 1, since an
    entry of 1 stands at either end. A total of 0 counts as 1."""
    count = mass.shape[1] - 1
    total = np.maximum(mass[:, -1:], 1)
    mass *= COUNT - 2 - count
    mass //= total
    mass += np.arange(1, count + 2)
    return mass


def _group_bounds(carrier: Carrier, node: int, message: Tensor) -> NDArray[np.int64]:
    return _entries(_masses(message, carrier.edges[node]))


def _value_bounds(carrier: Carrier, node: int, message: Tensor, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cumulative counts of the values of each sample's group."""
    tables = carrier.inside[node].to(carrier.dtype)
    order = np.argsort(group.astype(np.uint8), kind="stable")
    rows = message[torch.from_numpy(order)]
    product = torch.empty(len(rows), tables.shape[2], dtype=carrier.dtype)
    ends = np.cumsum(np.bincount(group, minlength=carrier.groups)).tolist()
    begin = 0
    for table, end in zip(tables, ends, strict=True):
        if end > begin:
            torch.mm(rows[begin:end], table, out=product[begin:end])
        begin = end
    out = np.empty((len(rows), carrier.width + 1), np.int64)
    out[order] = _entries(_joined(product))
    return out


def _flags(carrier: Carrier, node: int, message: Tensor) -> NDArray[np.int64]:
    """Counts [samples, 2] of the commonest value and of the others."""
    mass = _masses(message, carrier.flags[node])
    flag = 1 + mass[:, 0] * (COUNT - 2) // mass[:, 1]
    return np.stack([flag, COUNT - flag], 1)


def _interval(bounds: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [samples, 3]: below, inside and above entry `at` of cumulative counts [samples, entries + 1]."""
    pick = np.arange(len(at))
    low, high = bounds[pick, at], bounds[pick, at + 1]
    return np.stack([low, high - low, COUNT - high], 1)


class _Sender:
    """Turns the symbols of known nodes into counts for the coder."""

    def __init__(self, carrier: Carrier, nodes: Tensor, out: RowEncoder) -> None:
        self.carrier, self.nodes, self.out = carrier, nodes, out

    def __call__(self, node: int, message: Tensor) -> Tensor:
        carrier, symbols, values = self.carrier, self.nodes[node], self.carrier.circuit.values
        if values == 1:
            return symbols
        other = symbols.numpy() != carrier.circuit.common[node]
        self.out.push(other.astype(np.int32), _flags(carrier, node, message))
        where = np.flatnonzero(other)
        if len(where) and values > 2:
            self._other(node, message[torch.from_numpy(where)], symbols.numpy()[where])
        return symbols

    def _other(self, node: int, message: Tensor, symbols: NDArray[np.int64]) -> None:
        carrier, width = self.carrier, self.carrier.width
        group, inside = symbols // width, symbols % width
        one = np.ones(len(symbols), np.int32)
        if carrier.groups > 1:
            self.out.push(one, _interval(_group_bounds(carrier, node, message), group))
        self.out.push(one, _interval(_value_bounds(carrier, node, message, group), inside))


class _Receiver:
    """The inverse: symbols from the coder."""

    def __init__(self, carrier: Carrier, source: RowDecoder) -> None:
        self.carrier, self.source = carrier, source
        self.nodes: dict[int, NDArray[np.int64]] = {}

    def __call__(self, node: int, message: Tensor) -> Tensor:
        carrier, values = self.carrier, self.carrier.circuit.values
        symbols = np.full(len(message), carrier.circuit.common[node])
        if values > 1:
            where = np.flatnonzero(self.source.pull(_flags(carrier, node, message)))
            if len(where):
                symbols[where] = 1 - symbols[where] if values == 2 else self._other(node, message[torch.from_numpy(where)])
        self.nodes[node] = symbols
        return torch.from_numpy(symbols)

    def _other(self, node: int, message: Tensor) -> NDArray[np.int64]:
        carrier = self.carrier
        group = self._pull(_group_bounds(carrier, node, message)) if carrier.groups > 1 else np.zeros(len(message), np.int64)
        symbols = group * carrier.width + self._pull(_value_bounds(carrier, node, message, group))
        if symbols.max() >= carrier.circuit.values:
            raise FormatError("damaged stream: a value is out of range")
        return symbols

    def _pull(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which entry of cumulative counts [samples, entries + 1]."""
        counts = np.diff(bounds, prepend=0, append=COUNT)
        entry = self.source.pull(counts).astype(np.int64) - 1
        if entry.min() < 0 or entry.max() >= bounds.shape[1] - 1:
            raise FormatError("damaged stream: a symbol outside its table")
        return entry


def encode_block(carrier: Carrier, nodes: NDArray[np.integer[Any]] | Tensor) -> bytes:
    """nodes: integers [n, samples] in node order, 0 .. values-1. The same samples give the same bytes on every machine."""
    nodes = torch.as_tensor(nodes).long()
    if nodes.shape[1] == 0:
        return b""
    out = RowEncoder()
    _walk(carrier, nodes.shape[1], _Sender(carrier, nodes, out))
    return out.finish()


def decode_block(carrier: Carrier, samples: int, blob: bytes) -> NDArray[np.int64]:
    """int64 [n, samples]. Raises FormatError for bytes that `encode_block` did not write, as far as can be told."""
    if samples == 0:
        if blob:
            raise FormatError("damaged stream: data for no samples")
        return np.empty((carrier.circuit.tree.size, 0), np.int64)
    source = RowDecoder(blob)
    receiver = _Receiver(carrier, source)
    _walk(carrier, samples, receiver)
    source.close()
    return np.stack([receiver.nodes[node] for node in range(carrier.circuit.tree.size)])
