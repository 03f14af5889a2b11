"""Float circuits to integers and to few bytes: logarithmic codes of one byte a weight, compressed; expanded by integer arithmetic alone.

    pack(circuit, bits, basis, mixing, flows) -> arrays by name (what weights.safetensors holds)
    unpack(arrays) -> IntegerCircuit

Transitions of clusters are stored as changes of the codes of the circuit they have in common; most change nothing.
Where flows are given (how many samples use a weight), rarely used weights get coarser codes, which compress better.

A code c > 0 stands for 2**((1 - c) / 8), in integers of 18 bits by a fixed table; 0 for nothing. Eight codes an octave cost about 0.05 % of rate.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_clusters import Mixture
from latentpress.entropy.circuit_exact import LEAF_BITS, IntegerCircuit
from latentpress.entropy.circuit_symbols import COUNT, MAX_VALUES
from latentpress.entropy.circuit_tree import Tree
from latentpress.errors import FormatError

WEIGHT_BITS = 18
_OCTAVE = (1073741824, 984625594, 902905651, 827968132, 759250125, 696235434, 638450708, 585461881)  # 2**30 * 2**(-i/8), i = 0 .. 7
WEIGHTS = np.array([0] + [(_OCTAVE[(c - 1) % 8] >> (c - 1) // 8 >> (30 - WEIGHT_BITS - 1)) + 1 >> 1 for c in range(1, 256)], np.int64)
MAX_NODES, MAX_STATES, MAX_CLUSTERS, MAX_WEIGHTS = 1 << 16, 1024, 256, 1 << 26  # a model may come from a stranger: half a gigabyte at most
TOLERANCE = 0.02  # nats
_NATS = 0.0866  # of one code: log(2) / 8
_RAW = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]


@dataclass(frozen=True)
class Flows:
    """How many samples use each transition: of all [n, M, M], of each cluster [C, n, M, M]; and each state, [n, M]."""

    transitions: Tensor
    clusters: Tensor
    states: Tensor


def codes_of(weights: Tensor, least: float = 2.0**-WEIGHT_BITS, flows: Tensor | None = None, tolerance: float = TOLERANCE) -> NDArray[np.uint8]:
    """uint8 of the same shape: weights 0..1 to codes; what is below `least` becomes 0. flows: how many samples use each weight, of the same shape;
    tolerance: nats that rounding may cost all of them together."""
    w = weights.double()
    code = (-8 * w.log2()).clamp(0, 254)
    code = code.round() if flows is None else _rounded(code, flows, tolerance).clamp(0, 254)
    return torch.where(w < least, 0, code + 1).to(torch.uint8).numpy()


def changes_of(common: NDArray[np.uint8], weights: Tensor, flows: Tensor | None = None, tolerance: float = TOLERANCE) -> NDArray[np.uint8]:
    """What added to the codes `common` (modulo 256) gives codes of the weights."""
    if flows is None:
        return codes_of(weights) - common
    base = torch.from_numpy(common.astype(np.float32)) - 1
    change = (-8 * weights.clamp(min=2.0**-WEIGHT_BITS).log2()) - base
    rounded = _rounded(change, flows, tolerance)
    rounded[flows * (change * _NATS).square() < 4 * tolerance] = 0
    lowest, highest = torch.where(base < 0, 0.0, -base), torch.where(base < 0, 0.0, 254 - base)  # what is nothing stays nothing
    return torch.minimum(torch.maximum(rounded, lowest), highest).to(torch.int16).numpy().astype(np.uint8)


def _rounded(codes: Tensor, flows: Tensor, tolerance: float) -> Tensor:
    """To multiples of powers of two, as large as the tolerance lets them: a step s costs flow * (s * _NATS)**2 / 24 nats on average."""
    step = (24 * tolerance / flows.clamp(min=1e-9)).sqrt() / _NATS
    step = 2.0 ** step.clamp(1, 64).log2().floor()
    return torch.round(codes / step) * step


def pack(
    circuit: Circuit | Mixture, *, bits: int, basis: Tensor | None = None, mixing: Tensor | None = None, flows: Flows | None = None
) -> dict[str, NDArray[Any]]:
    """basis [values, B] and mixing [n, B, M] where leaves are shared mixtures; otherwise the leaves are stored themselves."""
    mixture = circuit if isinstance(circuit, Mixture) else Mixture.of(circuit)
    shape, tree, clusters = mixture.shape, mixture.shape.tree, mixture.clusters
    sizes = [tree.size, shape.values, shape.states, bits] + ([clusters] if clusters > 1 else [])
    common = codes_of(shape.transitions[1:], flows=None if flows is None else flows.transitions[1:])
    out: dict[str, NDArray[Any]] = {
        "parents": tree.parents.astype(np.int32), "variables": tree.variables.astype(np.int32), "sizes": np.array(sizes, np.int32),
        "root": codes_of(mixture.roots if clusters > 1 else mixture.roots[0]), "transitions": _squeezed(common),
    }  # fmt: skip
    if clusters > 1:
        changes = np.empty((*common.shape, clusters), np.uint8)
        for c in range(clusters):
            changes[..., c] = changes_of(common, mixture.transitions[c, 1:], None if flows is None else flows.clusters[c, 1:])
        out |= {"shares": codes_of(mixture.shares), "changes": _squeezed(changes)}
    if basis is None or mixing is None:
        return out | {"leaves": _squeezed(codes_of(shape.leaves))}
    of_mixing = codes_of(mixing, flows=None if flows is None else flows.states[:, None] * mixing)
    return out | {"basis": codes_of(basis), "mixing": _squeezed(of_mixing)}


def floats(arrays: Mapping[str, NDArray[Any]]) -> tuple[Circuit, Tensor | None, Tensor | None]:
    """The circuit that `pack` was given, as codes keep it, its basis and mixing. Raises FormatError, also for several clusters."""
    exact = unpack(arrays)
    if exact.clusters > 1:
        raise FormatError("a circuit of several clusters is no start for another")
    n, values, states = exact.leaves.shape

    def share(codes: NDArray[np.uint8], axis: int) -> Tensor:
        weights = torch.from_numpy(WEIGHTS[codes]).float()
        return weights / weights.sum(axis, keepdim=True).clamp(min=1)

    transitions = torch.zeros(n, states, states)
    transitions[1:] = share(_expanded(arrays["transitions"], (n - 1, states, states)), 2)
    root = share(arrays["root"], 0)
    if "leaves" in arrays:
        return Circuit(exact.tree, root, transitions, share(_expanded(arrays["leaves"], (n, values, states)), 1)), None, None
    basis, mixing = share(arrays["basis"], 0), share(_expanded(arrays["mixing"], (n, arrays["basis"].shape[1], states)), 1)
    return Circuit(exact.tree, root, transitions, basis @ mixing), basis, mixing


def unpack(arrays: Mapping[str, NDArray[Any]]) -> IntegerCircuit:
    """Raises FormatError for arrays that no `pack` made, as far as can be told."""
    try:
        n, values, states, bits, clusters = (*(int(v) for v in arrays["sizes"]), 1)[:5]
        sound = 1 <= n <= MAX_NODES and 1 <= values <= MAX_VALUES and 1 <= states <= MAX_STATES and 8 <= bits <= 26 and 1 <= clusters <= MAX_CLUSTERS
        if not sound:
            raise ValueError(f"sizes {n}, {values}, {states}, {bits}, {clusters}")
        if n * states * max(values, states * clusters) > MAX_WEIGHTS:
            raise ValueError(f"{n} tables of {states} x {max(values, states * clusters)} weights are more than this version takes")
        tree = Tree(arrays["parents"].astype(np.int64), arrays["variables"].astype(np.int64))
        common = _expanded(arrays["transitions"], (n - 1, states, states))
        transitions = np.zeros((clusters, n, states, states), np.int16 if bits < 15 else np.int32)
        transitions[:, 1:] = _shares(WEIGHTS[common], 2, 1 << bits)
        if clusters > 1:
            changes = _expanded(arrays["changes"], (*common.shape, clusters))
            for c in range(clusters):
                rows = changes[..., c].any(2)
                transitions[c, 1:][rows] = _shares(WEIGHTS[common[rows] + changes[rows][..., c]], 1, 1 << bits)
        roots = _shares(WEIGHTS[arrays["root"].reshape(clusters, states)], 1, 1 << bits)
        shares = _counts(WEIGHTS[arrays["shares"]] if clusters > 1 else np.ones(1, np.int64))
        if "leaves" in arrays:
            masses = np.maximum(_shares(WEIGHTS[_expanded(arrays["leaves"], (n, values, states))], 1, 1 << LEAF_BITS), 1)
        else:
            basis = arrays["basis"]
            masses = _mixed(basis, _expanded(arrays["mixing"], (n, basis.shape[1], states)))
    except (KeyError, ValueError, IndexError, TypeError, lzma.LZMAError) as error:
        raise FormatError(f"the weights of the circuit are damaged ({error})") from error
    return IntegerCircuit(tree, shares, roots, transitions, masses.astype(np.int32), bits)


def _counts(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Weights [C] to counts of at least 1 that sum to COUNT."""
    ends = np.concatenate([[0], weights.cumsum()])
    if ends[-1] == 0:
        raise ValueError("no cluster has a share")
    return np.diff(ends * (COUNT - len(weights)) // ends[-1]) + 1


def _mixed(basis: NDArray[np.uint8], mixing: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Masses of mixtures [n, values, M]: integers below 2**53 all along, so that float64 products are exact."""
    shapes = torch.from_numpy(_shares(WEIGHTS[basis], 0, 1 << 16)).double()
    shares = torch.from_numpy(_shares(WEIGHTS[mixing], 1, 1 << 12)).double()
    product = torch.matmul(shapes, shares)
    return product.mul_(2.0 ** (LEAF_BITS - 28)).floor_().clamp_(min=1).long().numpy()


def _shares(weights: NDArray[np.integer[Any]], axis: int, total: int) -> NDArray[Any]:
    """Weights scaled to sum to `total` or a little less, rounded; where all are 0, equal shares."""
    if total <= 1 << 12 and weights.shape[axis] <= 1 << 12:  # products below 2**31
        weights = weights.astype(np.int32)
    sums = weights.sum(axis, keepdims=True)
    weights = np.where(sums == 0, 1, weights)
    sums = weights.sum(axis, keepdims=True, dtype=weights.dtype)
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
