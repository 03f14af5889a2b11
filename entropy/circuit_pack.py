"""Float circuits to integers and to few bytes: logarithmic codes of one byte a weight, compressed; expanded by integer arithmetic alone.

    pack(circuit, bits, basis, mixing) -> arrays by name (what weights.safetensors holds)
    unpack(arrays) -> IntegerCircuit

A code c > 0 stands for 2**((1 - c) / 8), in integers of 18 bits by a fixed table; 0 for nothing. Eight codes an octave cost about 0.05 % of rate.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_exact import LEAF_BITS, MAX_VALUES, IntegerCircuit
from latentpress.entropy.circuit_tree import Tree
from latentpress.errors import FormatError

WEIGHT_BITS = 18
_OCTAVE = (1073741824, 984625594, 902905651, 827968132, 759250125, 696235434, 638450708, 585461881)  # 2**30 * 2**(-i/8), i = 0 .. 7
WEIGHTS = np.array([0] + [(_OCTAVE[(c - 1) % 8] >> (c - 1) // 8 >> (30 - WEIGHT_BITS - 1)) + 1 >> 1 for c in range(1, 256)], np.int64)
MAX_NODES, MAX_STATES, MAX_WEIGHTS = 1 << 16, 1024, 1 << 26  # a model may come from a stranger: half a gigabyte at most
_RAW = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]


def codes_of(weights: Tensor, least: float = 2.0**-WEIGHT_BITS) -> NDArray[np.uint8]:
    """uint8 of the same shape: weights 0..1 to codes; what is below `least` becomes 0."""
    w = weights.double().numpy()
    with np.errstate(divide="ignore"):
        code = np.clip(np.rint(-8 * np.log2(w)), 0, 254) + 1
    return np.where(w < least, 0, code).astype(np.uint8)


def pack(circuit: Circuit, *, bits: int, basis: Tensor | None = None, mixing: Tensor | None = None) -> dict[str, NDArray[Any]]:
    """basis [values, B] and mixing [n, B, M] where leaves are shared mixtures; otherwise the leaves are stored themselves."""
    tree = circuit.tree
    out: dict[str, NDArray[Any]] = {
        "parents": tree.parents.astype(np.int32), "variables": tree.variables.astype(np.int32), "root": codes_of(circuit.root),
        "sizes": np.array([tree.size, circuit.values, circuit.states, bits], np.int32), "transitions": _squeezed(codes_of(circuit.transitions[1:])),
    }  # fmt: skip
    if basis is None or mixing is None:
        return out | {"leaves": _squeezed(codes_of(circuit.leaves))}
    return out | {"basis": codes_of(basis), "mixing": _squeezed(codes_of(mixing))}


def unpack(arrays: Mapping[str, NDArray[Any]]) -> IntegerCircuit:
    """Raises FormatError for arrays that no `pack` made, as far as can be told."""
    try:
        n, values, states, bits = (int(v) for v in arrays["sizes"])
        if not (1 <= n <= MAX_NODES and 1 <= values <= MAX_VALUES and 1 <= states <= MAX_STATES and 8 <= bits <= 26):
            raise ValueError(f"sizes {n}, {values}, {states}, {bits}")
        if n * states * max(values, states) > MAX_WEIGHTS:
            raise ValueError(f"{n} tables of {states} x {max(values, states)} weights are more than this version takes")
        tree = Tree(arrays["parents"].astype(np.int64), arrays["variables"].astype(np.int64))
        transitions = np.zeros((n, states, states), np.int64)
        transitions[1:] = _shares(WEIGHTS[_expanded(arrays["transitions"], (n - 1, states, states))], 2, 1 << bits)
        root = _shares(WEIGHTS[arrays["root"]], 0, 1 << bits)
        if "leaves" in arrays:
            masses = np.maximum(_shares(WEIGHTS[_expanded(arrays["leaves"], (n, values, states))], 1, 1 << LEAF_BITS), 1)
        else:
            basis = arrays["basis"]
            masses = _mixed(basis, _expanded(arrays["mixing"], (n, basis.shape[1], states)))
    except (KeyError, ValueError, IndexError, TypeError, lzma.LZMAError) as error:
        raise FormatError(f"the weights of the circuit are damaged ({error})") from error
    return IntegerCircuit(tree, root, transitions, masses.astype(np.int32), bits)


def _mixed(basis: NDArray[np.uint8], mixing: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Masses of mixtures [n, values, M]: integers below 2**53 all along, so that float64 products are exact."""
    shapes = torch.from_numpy(_shares(WEIGHTS[basis], 0, 1 << 16)).double()
    shares = torch.from_numpy(_shares(WEIGHTS[mixing], 1, 1 << 12)).double()
    product = torch.matmul(shapes, shares)
    return product.mul_(2.0 ** (LEAF_BITS - 28)).floor_().clamp_(min=1).long().numpy()


def _shares(weights: NDArray[np.int64], axis: int, total: int) -> NDArray[np.int64]:
    """Weights scaled to sum to `total` or a little less, rounded; where all are 0, equal shares."""
    sums = weights.sum(axis, keepdims=True)
    weights = np.where(sums == 0, 1, weights)
    sums = weights.sum(axis, keepdims=True)
    shares = (weights * total + sums // 2) // sums
    over = np.maximum(shares.sum(axis, keepdims=True) - total, 0)
    top = np.expand_dims(shares.argmax(axis), axis)
    np.put_along_axis(shares, top, np.take_along_axis(shares, top, axis) - over, axis)
    return shares


def _squeezed(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.frombuffer(lzma.compress(codes.tobytes(), lzma.FORMAT_RAW, filters=_RAW), np.uint8)


def _expanded(blob: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Never more memory than the shape says."""
    size = int(np.prod(shape))
    reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_RAW)
    raw = reader.decompress(blob.tobytes(), size + 1)
    if len(raw) != size or not reader.eof or reader.unused_data:
        raise ValueError(f"{len(raw)} weights, {size} expected")
    return np.frombuffer(raw, np.uint8).reshape(shape)
