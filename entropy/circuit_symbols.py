"""Symbols of exact circuits: what a message says of a value, as integer counts for the coder, both ways.

    LeafTables(leaves, bits, dtype)             masses of values under each state, in the type that carries messages
    Sender(tables, nodes, encoder)(node, message)      codes the symbols of a node
    Receiver(tables, decoder)(node, message)           reads them

A symbol is coded in up to three steps, so that the decoder never builds a table of 256 entries: is it the variable's commonest value; which group of
16 values; which value of the group.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.coder import RowDecoder, RowEncoder
from latentpress.errors import FormatError

HALF = 10
GROUP = 16
COUNT = 1 << 24  # what the coder's entries sum to
MAX_VALUES = GROUP * GROUP


class LeafTables:
    """leaves: int32 [n, values, M]. Masses are split into high and low halves, so that their products with messages stay exact in float32."""

    def __init__(self, leaves: NDArray[np.int32], dtype: torch.dtype) -> None:
        self.dtype, self.values = dtype, leaves.shape[1]
        self.common = leaves.sum(2).argmax(1)  # [n] the value that each variable has most often, lowest first: coded by a flag of its own
        masses = torch.from_numpy(leaves)
        n, values, states = masses.shape
        common = torch.from_numpy(self.common)
        mass = masses[torch.arange(n), common]  # [n, M]
        self.flags = _halves(torch.stack([mass.long(), masses.sum(1)], 2)).to(dtype).transpose(1, 2).contiguous()  # [n, 4, M]: fastest
        self.width = min(GROUP, values)
        self.groups = -(-values // self.width)
        others = torch.zeros(n, states, self.groups * self.width, dtype=torch.int32)
        others[:, :, :values] = masses.transpose(1, 2)
        others.scatter_(2, common[:, None, None].expand(-1, states, 1), 0)  # the commonest value is coded before
        grouped = others.view(n, states, self.groups, self.width)
        self.edges = _halves(_from_zero(grouped.sum(3))).to(dtype)  # [n, M, 2 * (groups + 1)]: mass under each group
        self.inside = _halves(_from_zero(grouped)).to(torch.int16).transpose(1, 2).contiguous()  # [n, groups, M, 2 * (width + 1)]: in its group

    def flag_counts(self, node: int, message: Tensor) -> NDArray[np.int64]:
        """Counts [samples, 2] of the commonest value and of the others."""
        mass = _joined(message @ self.flags[node].T)
        flag = 1 + mass[:, 0] * (COUNT - 2) // mass[:, 1]
        return np.stack([flag, COUNT - flag], 1)

    def group_bounds(self, node: int, message: Tensor) -> NDArray[np.int64]:
        """Cumulative counts [samples, groups + 1]."""
        return _entries(_joined(message @ self.edges[node]))

    def group_interval(self, node: int, message: Tensor, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts [samples, 3]: below, inside and above group `at` of each sample."""
        return _interval((message @ self.edges[node]).numpy(), at)

    def value_bounds(self, node: int, message: Tensor, group: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cumulative counts [samples, width + 1] of the values of each sample's group."""
        order, product = self._in_groups(node, message, group)
        out = np.empty((len(order), self.width + 1), np.int64)
        out[order] = _entries(_joined(product))
        return out

    def value_interval(self, node: int, message: Tensor, group: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts [samples, 3]: below, inside and above value `at` of each sample's group."""
        order, product = self._in_groups(node, message, group)
        out = np.empty((len(order), 3), np.int64)
        out[order] = _interval(product.numpy(), at[order])
        return out

    def _in_groups(self, node: int, message: Tensor, group: NDArray[np.int64]) -> tuple[NDArray[np.intp], Tensor]:
        """Samples in the order of their groups, and their masses in them."""
        tables = self.inside[node].to(self.dtype)
        order = np.argsort(group.astype(np.uint8), kind="stable")
        rows = message[torch.from_numpy(order)]
        product = torch.empty(len(rows), tables.shape[2], dtype=self.dtype)
        ends = np.cumsum(np.bincount(group, minlength=self.groups)).tolist()
        begin = 0
        for table, end in zip(tables, ends, strict=True):
            if end > begin:
                torch.mm(rows[begin:end], table, out=product[begin:end])
            begin = end
        return order, product


def _from_zero(mass: Tensor) -> Tensor:
    """[..., k] to its running sums [..., k + 1]."""
    return torch.nn.functional.pad(mass.cumsum(-1), (1, 0)).to(torch.int32)


def _halves(mass: Tensor) -> Tensor:
    """[..., k] to [..., 2 k]: the masses without their last ten bits, then these bits."""
    return torch.cat([mass >> HALF, mass & ((1 << HALF) - 1)], -1)


def _joined(product: Tensor) -> NDArray[np.int64]:
    """message @ halves [samples, 2 k] to message @ mass, int64 [samples, k]."""
    whole = product.numpy().astype(np.int64)
    k = whole.shape[1] // 2
    high = whole[:, :k]
    high <<= HALF
    high += whole[:, k:]
    return high


def _entries(mass: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cumulative counts [samples, entries + 1] from cumulative masses of that shape (from 0 to the total): rising, from 1 to COUNT - 1, since an
    entry of 1 stands at either end. A total of 0 counts as 1."""
    count = mass.shape[1] - 1
    total = np.maximum(mass[:, -1:], 1)
    mass *= COUNT - 2 - count
    mass //= total
    mass += np.arange(1, count + 2)
    return mass


def _interval(product: NDArray[np.floating], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [samples, 3] below, inside and above entry `at` of products [samples, 2 (entries + 1)]: as of `_entries`, without the rest of it."""
    count = product.shape[1] // 2 - 1
    columns = np.stack([at, at + 1, np.full(len(at), count)], 1)
    high, low = np.take_along_axis(product, columns, 1).astype(np.int64), np.take_along_axis(product, columns + count + 1, 1).astype(np.int64)
    mass = (high << HALF) + low
    ends = mass[:, :2] * (COUNT - 2 - count) // np.maximum(mass[:, 2:], 1) + columns[:, :2] + 1
    return np.stack([ends[:, 0], ends[:, 1] - ends[:, 0], COUNT - ends[:, 1]], 1)


class Sender:
    """Turns the symbols of known nodes, int64 [n, samples], into counts for the coder."""

    def __init__(self, tables: LeafTables, nodes: Tensor, out: RowEncoder) -> None:
        self.tables, self.nodes, self.out = tables, nodes, out

    def __call__(self, node: int, message: Tensor) -> Tensor:
        tables, symbols = self.tables, self.nodes[node]
        if tables.values == 1:
            return symbols
        other = symbols.numpy() != tables.common[node]
        self.out.push(other.astype(np.int32), tables.flag_counts(node, message))
        where = np.flatnonzero(other)
        if len(where) and tables.values > 2:
            self._other(node, message[torch.from_numpy(where)], symbols.numpy()[where])
        return symbols

    def _other(self, node: int, message: Tensor, symbols: NDArray[np.int64]) -> None:
        tables, width = self.tables, self.tables.width
        group, inside = symbols // width, symbols % width
        one = np.ones(len(symbols), np.int32)
        if tables.groups > 1:
            self.out.push(one, tables.group_interval(node, message, group))
        self.out.push(one, tables.value_interval(node, message, group, inside))


class Receiver:
    """The inverse: symbols from the coder."""

    def __init__(self, tables: LeafTables, source: RowDecoder) -> None:
        self.tables, self.source = tables, source
        self.nodes: dict[int, NDArray[np.int64]] = {}

    def __call__(self, node: int, message: Tensor) -> Tensor:
        values = self.tables.values
        symbols = np.full(len(message), self.tables.common[node])
        if values > 1:
            where = np.flatnonzero(self.source.pull(self.tables.flag_counts(node, message)))
            if len(where):
                symbols[where] = 1 - symbols[where] if values == 2 else self._other(node, message[torch.from_numpy(where)])
        self.nodes[node] = symbols
        return torch.from_numpy(symbols)

    def _other(self, node: int, message: Tensor) -> NDArray[np.int64]:
        tables = self.tables
        group = self._pull(tables.group_bounds(node, message)) if tables.groups > 1 else np.zeros(len(message), np.int64)
        symbols = group * tables.width + self._pull(tables.value_bounds(node, message, group))
        if symbols.max() >= tables.values:
            raise FormatError("damaged stream: a value is out of range")
        return symbols

    def _pull(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which entry of cumulative counts [samples, entries + 1]."""
        counts = np.diff(bounds, prepend=0, append=COUNT)
        entry = self.source.pull(counts).astype(np.int64) - 1
        if entry.min() < 0 or entry.max() >= bounds.shape[1] - 1:
            raise FormatError("damaged stream: a symbol outside its table")
        return entry
