"""Circuits of clusters: the cheap rule parts what is apart, a mixture is what its parts are, and learns what one circuit cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.entropy.circuit_clusters import ClusterLearner, Mixture, k_means, nearest
from latentpress.entropy.circuit_em import Learner, start
from latentpress.entropy.circuit_tree import chow_liu, pairwise_information
from tests.circuits import random_circuit, random_mixture


def two_kinds(count: int, seed: int, lift: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, 8] of two kinds: neighbours alike in one, opposite in the other; values 0 and 1, in the second kind `lift` more."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 2, count)
    first = draw.integers(0, 2, (count, 4))
    second = first ^ kind[:, None] ^ (draw.random((count, 4)) < 0.05)
    return (np.stack([first, second], 2).reshape(count, 8) + lift * kind[:, None]).astype(np.uint8), kind


def learner_of(data: np.ndarray, states: int = 4) -> Learner:
    information = pairwise_information(np.minimum(data, 1 + data % 2), 3)
    return start(chow_liu(information), data, information, states=states, values=22)


def test_clusters_are_found() -> None:
    data, kind = two_kinds(500, 0)
    found = nearest(k_means(data, 2, seed=1), data)
    assert (found == kind).all() or (found == 1 - kind).all()


@given(count=st.integers(1, 6), samples=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_nearest_is_nearest_also_where_samples_repeat(count: int, samples: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 3, (samples, 4)).astype(np.uint8)
    centres = k_means(data, count, seed)
    distances = np.square(data[:, None].astype(int) - centres[None].astype(int)).sum(2)
    assert (distances[np.arange(samples), nearest(centres, data)] == distances.min(1)).all()


def test_a_mixture_of_one_is_its_circuit() -> None:
    circuit = random_circuit(6, 4, 3, 0)
    samples = circuit.sample(50, 0)
    mixture = Mixture.of(circuit)
    torch.testing.assert_close(mixture.log_likelihood(samples, np.zeros(50, np.int64)), circuit.log_likelihood(samples))


def test_the_likelihood_is_that_of_cluster_and_sample_together() -> None:
    mixture = random_mixture(3, 5, 3, 2, 4)
    samples, clusters = mixture.shape.sample(40, 0), np.arange(40) % 3
    got = mixture.log_likelihood(samples, clusters, batch=7)
    for i in (0, 1, 2, 39):
        c = int(clusters[i])
        expected = mixture.circuit(c).log_likelihood(samples[i : i + 1])[0] + mixture.shares[c].double().log()
        assert float(got[i]) == pytest.approx(float(expected), rel=1e-6)


def test_clusters_learn_what_one_circuit_cannot() -> None:
    """Two states tell values apart, and nobody the kinds."""
    data, kind = two_kinds(2000, 0, lift=0)
    shared = learner_of(data, states=2)
    nodes = shared.circuit.nodes_first(data)
    for _ in range(20):
        together = shared.step(nodes, 1.0)
    apart = ClusterLearner.split(shared, torch.tensor([0.5, 0.5]), strength=1.0)
    parts = [nodes[:, torch.from_numpy(np.flatnonzero(kind == k))] for k in range(2)]
    assert len(np.unique(data)) == 2
    path = [apart.step(parts, 0.5, part=300) for _ in range(60)]
    assert path[0] == pytest.approx(together - np.log(2), abs=0.05)  # copies, and a bit that says which
    assert path[-1] > together + 1.0
    fresh, other = two_kinds(500, 1, lift=0)
    assert float(apart.mixture.log_likelihood(fresh, other).mean()) == pytest.approx(path[-1], abs=0.15)


def test_strong_pseudocounts_keep_clusters_together_and_empty_ones_change_nothing() -> None:
    data, _ = two_kinds(400, 2)
    shared = learner_of(data)
    nodes = shared.circuit.nodes_first(data)
    shared.step(nodes, 1.0)
    apart = ClusterLearner.split(shared, torch.tensor([0.9, 0.1]), strength=1e7)
    apart.step([nodes, nodes[:, :0]], 0.5)
    torch.testing.assert_close(apart.mixture.transitions[0], apart.mixture.transitions[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(apart.mixture.transitions[:, 1:].sum(3), torch.ones(2, 7, 4))
