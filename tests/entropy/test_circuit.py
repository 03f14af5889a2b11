"""Circuits answer every query as the joint table does that one gets by multiplying out; training climbs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_em import Smoothing, Statistics, add_statistics, start
from latentpress.entropy.circuit_tree import Tree, binned, chow_liu, pairwise_information
from tests.circuits import all_samples, joint, joint_with_states, random_circuit

SHAPES = [(1, 3, 2, 0), (2, 2, 1, 1), (4, 3, 2, 2), (5, 2, 3, 3)]


@pytest.fixture(params=SHAPES, ids=str)
def circuit(request: pytest.FixtureRequest) -> Circuit:
    n, values, states, seed = request.param
    return random_circuit(n, values, states, seed)


def test_likelihoods_are_those_of_the_joint_table_and_sum_to_one(circuit: Circuit) -> None:
    samples = all_samples(circuit.tree.size, circuit.values)
    got = circuit.log_likelihood(samples, batch=7).exp().numpy()
    np.testing.assert_allclose(got, joint(circuit).ravel(), rtol=1e-5)
    assert got.sum() == pytest.approx(1, abs=1e-5)


def test_marginals_of_any_subset(circuit: Circuit) -> None:
    n = circuit.tree.size
    samples = all_samples(n, circuit.values)
    table = joint(circuit)
    for known in all_samples(n, 2).astype(bool):
        free = tuple(np.flatnonzero(~known))
        expected = np.broadcast_to(table.sum(free, keepdims=True), table.shape).ravel()
        np.testing.assert_allclose(circuit.log_likelihood(samples, known).exp().numpy(), expected, rtol=1e-5)


def test_conditionals_given_any_subset(circuit: Circuit) -> None:
    n, values = circuit.tree.size, circuit.values
    samples = all_samples(n, values)
    table = joint(circuit)
    for known in all_samples(n, 2).astype(bool):
        marginals = circuit.marginals(samples, known).numpy()
        for variable in range(n):
            free = tuple(v for v in range(n) if not known[v] and v != variable)
            slices = np.moveaxis(np.broadcast_to(table.sum(free, keepdims=True), table.shape), variable, -1).reshape(-1, values)
            rest = np.delete(samples, variable, 1)
            index = np.ravel_multi_index(rest.T, (values,) * (n - 1)) if n > 1 else np.zeros(len(samples), int)
            expected = slices[index] / slices[index].sum(1, keepdims=True)
            np.testing.assert_allclose(circuit.conditional(samples, known, variable).numpy(), expected, rtol=2e-5, atol=1e-7)
            if not known[variable]:
                np.testing.assert_allclose(marginals[:, variable], expected, rtol=2e-5, atol=1e-7)
            else:
                np.testing.assert_array_equal(marginals[:, variable].argmax(1), samples[:, variable])


def test_each_sample_may_know_other_variables() -> None:
    circuit = random_circuit(4, 3, 2, 9)
    samples = all_samples(4, 3)
    known = np.random.default_rng(0).random(samples.shape) < 0.5
    together = circuit.log_likelihood(samples, known)
    for i in range(0, len(samples), 9):
        assert float(together[i]) == pytest.approx(float(circuit.log_likelihood(samples[i : i + 1], known[i])[0]), rel=1e-6)


def test_samples_follow_the_table() -> None:
    circuit = random_circuit(3, 3, 2, 4)
    drawn = circuit.sample(40_000, seed=1)
    found = np.bincount(np.ravel_multi_index(drawn.T, (3, 3, 3)), minlength=27) / len(drawn)
    expected = joint(circuit).ravel()
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected.max() / len(drawn))
    np.testing.assert_array_equal(drawn, circuit.sample(40_000, seed=1))


def test_completions_keep_what_is_known_and_follow_the_conditional() -> None:
    circuit = random_circuit(3, 3, 2, 5)
    known = np.array([True, False, True])
    given = np.tile([2, 0, 1], (40_000, 1))
    drawn = circuit.complete(given, known, seed=3)
    assert (drawn[:, [0, 2]] == [2, 1]).all()
    expected = circuit.conditional(given[:1], known, 1)[0].numpy()
    np.testing.assert_allclose(np.bincount(drawn[:, 1], minlength=3) / len(drawn), expected, atol=0.015)


def test_the_most_probable_completion_is_the_greatest_entry_of_the_joint_with_latents() -> None:
    for seed in range(6):
        circuit = random_circuit(4, 3, 2, seed)
        n, samples = 4, all_samples(4, 3)
        table = joint_with_states(circuit)
        table = table.transpose(*range(n), *(n + np.argsort(circuit.tree.variables)))
        for known in all_samples(n, 2).astype(bool):
            got = circuit.most_probable(samples, known)
            best = table.max(tuple(range(n)))
            free = tuple(np.flatnonzero(~known))
            top = np.broadcast_to(best.max(free, keepdims=True) if free else best, best.shape)
            np.testing.assert_allclose(best[tuple(got.T)], top[tuple(samples.T)], rtol=1e-5)
            assert (got == samples)[:, known].all()


# ---- trees


def test_information_and_tree_find_a_chain() -> None:
    draw = np.random.default_rng(0)
    chain = draw.permutation(7)
    columns: dict[int, np.ndarray] = {}
    column = draw.integers(0, 4, 6000)
    for variable in chain:
        column = np.where(draw.random(6000) < 0.8, column, draw.integers(0, 4, 6000))
        columns[int(variable)] = column
    data = np.stack([columns[v] for v in range(7)], 1)
    information = pairwise_information(data, 4)
    assert information[chain[0], chain[1]] == pytest.approx(_information(data[:, chain[0]], data[:, chain[1]]), rel=1e-3)
    tree = chow_liu(information)
    edges = {frozenset((int(tree.variables[k]), int(tree.variables[tree.parents[k]]))) for k in range(1, 7)}
    assert edges == {frozenset((int(a), int(b))) for a, b in pairwise(chain)}
    assert int(tree.variables[0]) == chain[3] and tree.depths[-1] == 3  # rooted in the middle


def _information(a: np.ndarray, b: np.ndarray) -> float:
    joint_table = np.histogram2d(a, b, bins=[4, 4])[0] / len(a)
    independent = joint_table.sum(1, keepdims=True) * joint_table.sum(0, keepdims=True)
    return float((joint_table * np.log(joint_table / independent)).sum())


def test_bins_keep_the_commonest_value_alone() -> None:
    column = np.array([0] * 50 + list(range(1, 51)))
    bins = binned(column[:, None], 5)[:, 0]
    assert (bins == 0).sum() == 50 and set(bins) == set(range(5)) and (np.diff(bins) >= 0).all()


@pytest.mark.parametrize("parents", [[0], [-1, 1], [-1, 0, 0, 1, 0], []])
def test_trees_that_are_none_are_refused(parents: list[int]) -> None:
    with pytest.raises(ValueError, match="tree"):
        Tree(np.array(parents, np.int64), np.arange(len(parents)))


# ---- training


def test_expected_counts_are_those_of_the_joint_table() -> None:
    circuit = random_circuit(4, 3, 2, 6)
    n, samples = 4, all_samples(4, 3)[::5]
    counts = Statistics.zeros(n, 3, 2)
    nodes = circuit.nodes_first(samples)
    add_statistics(circuit, nodes, counts)
    table = joint_with_states(circuit)
    for k in range(n):
        edges, leaves = np.zeros((2, 2)), np.zeros((3, 2))
        for x in nodes.T.numpy():
            states = table[(..., *x)] / table[(..., *x)].sum()
            leaves[x[k]] += states.sum(tuple(a for a in range(n) if a != k))
            if k:
                parent = int(circuit.tree.parents[k])
                edges += states.sum(tuple(a for a in range(n) if a not in (k, parent)))
        np.testing.assert_allclose(counts.leaves[k].numpy(), leaves, atol=1e-4)
        if k:
            np.testing.assert_allclose((counts.edges[k] * circuit.transitions[k]).numpy(), edges, atol=1e-4)


@pytest.mark.parametrize("basis", [0, 4])
def test_full_batches_climb(basis: int) -> None:
    data = random_circuit(8, 6, 3, 7, peak=6).sample(1500, seed=0)
    information = pairwise_information(data, 6)
    little = Smoothing(edges=1e-3, leaves=1e-3, uniform=1e-3)
    learner = start(chow_liu(information), data, information, states=4, values=6, basis=basis, smoothing=little)
    nodes = learner.circuit.nodes_first(data)
    path = [learner.step(nodes, 1.0, part=400) for _ in range(25)]
    assert path[-1] > path[1] + 0.01
    assert all(b > a - 1e-3 for a, b in pairwise(path[1:]))
    circuit = learner.circuit
    for table, axis in ((circuit.root, 0), (circuit.transitions[1:], 2), (circuit.leaves, 1)):
        torch.testing.assert_close(table.sum(axis), torch.ones_like(table.sum(axis)), atol=1e-4, rtol=0)


def test_pseudocounts_keep_unseen_values_possible() -> None:
    data = np.zeros((200, 3), np.int64)
    data[:100] = 1
    information = pairwise_information(data, 2)
    learner = start(chow_liu(information), data, information, states=2, values=5)
    learner.step(learner.circuit.nodes_first(data), 1.0)
    assert torch.isfinite(learner.circuit.log_likelihood(np.full((1, 3), 4))).all()
