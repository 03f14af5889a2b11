"""Exact coding: the same integers as plain Python arithmetic, whatever carries them; bytes as the likelihood promises."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from latentpress.entropy import circuit_exact
from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_clusters import Mixture
from latentpress.entropy.circuit_exact import IntegerCircuit, carrier_of, decode_block, encode_block
from latentpress.entropy.circuit_pack import WEIGHTS, codes_of, pack, unpack
from latentpress.entropy.circuit_symbols import COUNT
from latentpress.errors import FormatError
from tests.circuits import random_circuit, random_mixture


def integers_of(circuit: Circuit | Mixture, bits: int = 12) -> IntegerCircuit:
    return unpack(pack(circuit, bits=bits))


def drawn(circuit: Circuit, count: int, seed: int = 0) -> torch.Tensor:
    return circuit.nodes_first(circuit.sample(count, seed))


class Recorder:
    """Stands in for the coder: keeps symbols and counts."""

    def __init__(self) -> None:
        self.pushes: list[tuple[list[int], list[list[int]]]] = []

    def push(self, symbols: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        if len(symbols):
            assert (counts >= 1).all() and (counts.sum(1) == COUNT).all()
            self.pushes.append((symbols.tolist(), counts.tolist()))

    def finish(self) -> bytes:
        return b""


def recorded(
    circuit: IntegerCircuit, nodes: torch.Tensor, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, clusters: NDArray[np.int64] | None = None
) -> Recorder:
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(circuit_exact, "RowEncoder", lambda: recorder)
        encode_block(carrier_of(circuit, dtype), nodes, clusters)
    return recorder


# ---- plain Python


def normal(message: list[int], size: int, bits: int) -> list[int]:
    if size == 0:
        return [1] * len(message)
    shift = bits - size.bit_length()
    return [m << shift if shift >= 0 else m >> -shift for m in message]


def share(message: list[int], bits: int) -> list[int]:
    return normal(message, sum(message), bits)


def scale(message: list[int], bits: int) -> list[int]:
    return normal(message, max(message), bits)


class Plain:
    """The description in circuit_exact's docstring, one sample at a time, in Python's integers: flag counts of every node."""

    def __init__(self, c: IntegerCircuit, x: list[int], cluster: int = 0) -> None:
        self.c, self.x, self.flags = c, x, {}  # type: ignore[var-annotated]
        self.transitions, self.common = c.transitions[cluster], c.leaves.sum(2).argmax(1)
        self.states = range(c.states)
        self.seen = [[scale(c.leaves[k, v].tolist(), c.bits) for v in range(c.values)] for k in range(c.tree.size)]
        weight = np.ones(c.tree.size, int)
        for k in range(c.tree.size - 1, 0, -1):
            weight[c.tree.parents[k]] += weight[k]
        self.order = [sorted(ch, key=lambda n: (weight[n], n)) for ch in c.tree.children]
        self.visit(0, c.roots[cluster].tolist())

    def visit(self, k: int, message: list[int]) -> list[int]:
        """Returns b_k."""
        c, bits = self.c, self.c.bits
        message = share(message, bits)
        coded = message if bits <= 16 else [m >> (bits - 16) for m in message]
        mass = [sum(d * int(c.leaves[k, v, z]) for z, d in enumerate(coded)) for v in range(c.values)]
        self.flags[k] = 1 + mass[int(self.common[k])] * (COUNT - 2) // sum(mass)
        seen = self.seen[k][self.x[k]]
        a, b = share([m * s for m, s in zip(message, seen, strict=True)], bits), list(seen)
        for child in self.order[k]:
            t = self.transitions[child].tolist()
            news = self.visit(child, [sum(a[p] * t[p][z] for p in self.states) for z in self.states])
            told = scale([sum(news[z] * t[p][z] for z in self.states) for p in self.states], bits)
            a = share([m * u for m, u in zip(a, told, strict=True)], bits)
            b = scale([m * u for m, u in zip(b, told, strict=True)], bits)
        return b


@pytest.mark.parametrize("bits", [12, 20, 26])
@pytest.mark.parametrize("values", [2, 20])
def test_messages_are_those_of_plain_integer_arithmetic(bits: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = random_circuit(9, values, 4, 3, peak=8)
    exact, nodes = integers_of(circuit, bits), drawn(circuit, 6)
    pushes = recorded(exact, nodes, torch.float32 if bits == 12 else torch.float64, monkeypatch).pushes
    flags = iter(counts for _, counts in pushes if len(counts[0]) == 2)
    plain = [Plain(exact, nodes[:, i].tolist()) for i in range(6)]
    for down, node in exact.steps:
        if down:
            assert [row[0] for row in next(flags)] == [p.flags[node] for p in plain]


def test_carriers_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = random_circuit(40, 20, 8, 1, peak=10)
    exact, nodes = integers_of(circuit), drawn(circuit, 50)
    narrow, wide = (recorded(exact, nodes, dtype, monkeypatch).pushes for dtype in (torch.float32, torch.float64))
    assert narrow == wide
    with pytest.raises(ValueError, match="does not carry"):
        carrier_of(integers_of(circuit, 13), torch.float32)


@pytest.mark.parametrize("bits", [12, 20])
def test_a_sample_meets_the_circuit_of_its_cluster_alone(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, clusters = random_mixture(3, 9, 5, 4, 3), np.array([2, 0, 2, 2, 0, 1])
    exact, nodes = integers_of(mixture, bits), drawn(mixture.shape, 6)
    pushes = recorded(exact, nodes, torch.float32 if bits == 12 else torch.float64, monkeypatch, clusters).pushes
    assert pushes[0][0] == clusters.tolist() and pushes[0][1] == [exact.shares.tolist()] * 6
    flags = iter(counts for _, counts in pushes[1:] if len(counts[0]) == 2)
    order = np.argsort(clusters, kind="stable")
    plain = [Plain(exact, nodes[:, i].tolist(), int(clusters[i])) for i in order]
    for down, node in exact.steps:
        if down:
            assert [row[0] for row in next(flags)] == [p.flags[node] for p in plain]


@given(count=st.integers(2, 5), samples=st.integers(0, 25), states=st.integers(1, 5), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_any_clusters_come_back(count: int, samples: int, states: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    nodes, clusters = draw.integers(0, 20, (7, samples)), draw.integers(0, count, samples)
    carrier = carrier_of(integers_of(random_mixture(count, 7, 20, states, seed)))
    back, found = decode_block(carrier, samples, encode_block(carrier, nodes, clusters))
    np.testing.assert_array_equal(back, nodes)
    np.testing.assert_array_equal(found, clusters)


def test_mixtures_cost_what_their_likelihood_promises() -> None:
    mixture, clusters = random_mixture(3, 40, 12, 6, 8, peak=8), np.random.default_rng(0).choice(3, 2500, p=[0.7, 0.2, 0.1])
    samples = np.zeros((2500, 40), np.int64)
    for c in range(3):
        samples[clusters == c] = mixture.circuit(c).sample(int((clusters == c).sum()), c)
    promised = -float(mixture.log_likelihood(samples, clusters).sum()) / np.log(2) / 8
    nodes = mixture.shape.nodes_first(samples)
    carrier = carrier_of(integers_of(mixture))
    real = len(encode_block(carrier, nodes, clusters))
    assert 0.995 * promised < real < 1.005 * promised + 16
    assert real < 0.97 * len(encode_block(carrier, nodes, (clusters + 1) % 3))  # another's circuit fits worse


def test_company_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of a sample are the same alone, in a block, and on two threads."""
    circuit = random_circuit(25, 30, 6, 2, peak=6)
    exact, nodes = integers_of(circuit), drawn(circuit, 33)
    whole = recorded(exact, nodes, torch.float32, monkeypatch).pushes
    torch.set_num_threads(2)
    assert recorded(exact, nodes, torch.float32, monkeypatch).pushes == whole
    flags = [counts for _, counts in whole if len(counts[0]) == 2]
    for i in (0, 17, 32):
        alone = [counts for _, counts in recorded(exact, nodes[:, i : i + 1], torch.float32, monkeypatch).pushes if len(counts[0]) == 2]
        assert [f[i] for f in flags] == [f[0] for f in alone]


@given(n=st.integers(1, 12), values=st.sampled_from([1, 2, 3, 16, 17, 33, 256]), states=st.integers(1, 9), bits=st.sampled_from([8, 12, 17, 26]),
       samples=st.integers(0, 30), seed=st.integers(0, 1000))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_every_block_comes_back(n: int, values: int, states: int, bits: int, samples: int, seed: int) -> None:
    exact = integers_of(random_circuit(n, values, states, seed, peak=5), bits)
    nodes = np.random.default_rng(seed).integers(0, values, (n, samples))  # not what the circuit expects: every value occurs
    carrier = carrier_of(exact)
    blob = encode_block(carrier, nodes)
    np.testing.assert_array_equal(decode_block(carrier, samples, blob)[0], nodes)


def test_samples_without_any_support_come_back() -> None:
    """Transitions of zeros and ones: what the circuit thinks impossible is coded at a cost, and decoded."""
    circuit = random_circuit(10, 4, 3, 5)
    circuit.transitions = torch.eye(3).expand(10, 3, 3).contiguous()
    circuit.leaves = torch.zeros(10, 4, 3)
    circuit.leaves[:, :3] = torch.eye(3)
    carrier = carrier_of(integers_of(circuit))
    nodes = np.random.default_rng(0).integers(0, 4, (10, 200))
    np.testing.assert_array_equal(decode_block(carrier, 200, encode_block(carrier, nodes))[0], nodes)


@pytest.mark.parametrize("values", [2, 12, 200])
def test_bytes_are_what_the_likelihood_promises(values: int) -> None:
    circuit = random_circuit(60, values, 8, 8, peak=12)
    samples = circuit.sample(3000, 1)
    promised = -float(circuit.log_likelihood(samples).sum()) / np.log(2) / 8
    real = len(encode_block(carrier_of(integers_of(circuit)), circuit.nodes_first(samples)))
    assert real < 1.005 * promised + 16


def test_the_bytes_are_those_of_the_day_they_were_written() -> None:
    """A coder or an arithmetic that changed would be noticed."""
    circuit = random_circuit(30, 20, 4, 4)
    nodes = np.random.default_rng(4).integers(0, 20, (30, 40))
    blob = encode_block(carrier_of(integers_of(circuit)), nodes)
    assert hashlib.sha256(blob).hexdigest()[:16] == "d5092b9d169fa6d3"


def test_damage_ends_in_an_error_or_in_other_symbols() -> None:
    circuit = random_circuit(20, 30, 4, 6)
    carrier, nodes = carrier_of(integers_of(circuit)), drawn(circuit, 40)
    blob, draw = encode_block(carrier, nodes), np.random.default_rng(0)
    flipped = []
    for _ in range(30):
        flipped.append(bytearray(blob))
        flipped[-1][int(draw.integers(len(blob)))] ^= 1 << int(draw.integers(8))
    errors = 0
    for bad in (*map(bytes, flipped), blob[:-4], blob[4:], blob[:4], b""):  # whatever looks whole here fails the content hash of its chunk
        try:
            assert (decode_block(carrier, 40, bad)[0] != nodes.numpy()).any()
        except FormatError:
            errors += 1
    assert errors > 25
    for bad in (blob + bytes(4), blob[:-1], blob + blob):
        with pytest.raises(FormatError):
            decode_block(carrier, 40, bad)


# ---- weights


def test_codes_stand_for_powers_of_an_eighth_of_an_octave() -> None:
    for c in range(1, 256):
        assert abs(int(WEIGHTS[c]) - 2 ** (18 + (1 - c) / 8)) <= 0.5 + 1e-6
    weights = torch.tensor([1.0, 0.5, 0.3, 1e-3, 2.0**-19, 0.0])
    back = WEIGHTS[codes_of(weights)] / 2**18
    np.testing.assert_allclose(back[:4], weights[:4].numpy(), rtol=0.05)
    assert (back[4:] == 0).all()


def test_integer_weights_sum_to_what_the_bounds_need() -> None:
    exact = integers_of(random_circuit(12, 9, 5, 2))
    assert exact.transitions[:, 1:].sum(3).max() == 1 << 12 and exact.leaves.min() >= 1
    assert Fraction(int(exact.leaves.sum(1).min()), 1 << circuit_exact.LEAF_BITS) > Fraction(99, 100)


@pytest.mark.parametrize("broken", ["sizes", "parents", "transitions", "leaves", "root", "shares"])
def test_broken_weights_are_refused(broken: str) -> None:
    arrays = pack(random_mixture(2, 6, 5, 3, 1), bits=12)
    for value in (arrays[broken][:-1], arrays[broken] + 1, np.zeros(3, np.uint8), np.full(4, 2**30, np.int32)):
        try:
            unpack({**arrays, broken: value})
        except FormatError:
            continue
        assert broken in ("root", "transitions", "leaves", "shares") and value.shape == arrays[broken].shape  # other weights, still weights
    with pytest.raises(FormatError, match="damaged"):
        unpack({k: v for k, v in arrays.items() if k != broken})
