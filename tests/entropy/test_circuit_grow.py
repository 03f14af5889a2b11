"""Growing changes nothing until training tells the copies apart; pruning takes what carries least."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentpress.entropy.circuit_em import Learner, Smoothing, start
from latentpress.entropy.circuit_grow import grow, prune
from latentpress.entropy.circuit_tree import chow_liu, pairwise_information
from tests.circuits import random_circuit

NOTHING = Smoothing(edges=1e-6, leaves=1e-6, uniform=1e-6)


def trained(basis: int = 0, states: int = 4) -> tuple[Learner, np.ndarray]:
    data = random_circuit(10, 5, 6, 3, peak=8).sample(2000, seed=0)
    information = pairwise_information(data, 5)
    learner = start(chow_liu(information), data, information, states=states, values=5, basis=basis, smoothing=NOTHING)
    for _ in range(8):
        learner.step(learner.circuit.nodes_first(data), 1.0)
    return learner, data


def likelihood(learner: Learner, data: np.ndarray) -> float:
    return float(learner.circuit.log_likelihood(data).mean())


@pytest.mark.parametrize("basis", [0, 3])
def test_growing_without_noise_changes_no_likelihood(basis: int) -> None:
    learner, data = trained(basis)
    before = likelihood(learner, data)
    grow(learner, 0.0, seed=1)
    assert learner.circuit.states == 8
    assert likelihood(learner, data) == pytest.approx(before, abs=0.02 if basis else 2e-4)  # a mixture's step is taken on the way


@pytest.mark.parametrize("basis", [0, 3])
def test_a_grown_circuit_learns_more(basis: int) -> None:
    learner, data = trained(basis, states=2)
    nodes = learner.circuit.nodes_first(data)
    for _ in range(20):
        small = learner.step(nodes, 1.0)
    grow(learner, 0.3, seed=1)
    for _ in range(20):
        large = learner.step(nodes, 1.0)
    assert large > small + 0.02


def test_pruning_takes_the_smallest_flows_and_they_stay_away() -> None:
    learner, data = trained(states=8)
    before, flow = likelihood(learner, data), learner.counts.edges[1:].clone()
    prune(learner, 0.6)
    gone = learner.circuit.transitions[1:] == 0
    assert 0.3 < gone.float().mean() < 0.42
    assert flow[gone].max() <= flow[~gone].median()
    other, _ = trained(states=8)
    other.circuit.transitions[1:] *= torch.rand(gone.shape, generator=torch.Generator().manual_seed(0)) > gone.float().mean()
    other.circuit.transitions /= other.circuit.transitions.sum(2, keepdim=True).clamp(min=1e-9)
    assert before - likelihood(learner, data) < 0.5 * (before - likelihood(other, data))  # less than by chance
    learner.step(learner.circuit.nodes_first(data), 0.5)
    assert (learner.circuit.transitions[1:][gone] == 0).all()
    torch.testing.assert_close(learner.circuit.transitions[1:].sum(2), torch.ones(9, 8))
    grow(learner, 0.1, seed=2)
    assert (learner.circuit.transitions[1:] == 0).float().mean() == pytest.approx(float(gone.float().mean()))


@pytest.mark.parametrize("keep", [0.0, 1.5])
def test_parts_that_are_none_are_refused(keep: float) -> None:
    with pytest.raises(ValueError, match="keep"):
        prune(trained()[0], keep)
