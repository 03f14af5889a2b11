"""Optimisers by name, and the course of the rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latentpress.errors import InputError
from latentpress.train.optimisers import OPTIMISERS, make_optimiser, rate_factor, set_rate


def test_the_rate_warms_up_stays_and_falls_to_a_hundredth() -> None:
    course = {"warmup": 100, "constant": 0.5}
    assert rate_factor(49, 0.0, **course) == pytest.approx(0.5)
    assert rate_factor(1000, 0.49, **course) == 1.0
    assert rate_factor(1000, 0.75, **course) == pytest.approx(0.5)
    assert rate_factor(1000, 1.0, **course) == pytest.approx(0.01)
    assert rate_factor(0, 0.0, warmup=0, constant=1.0) == rate_factor(9, 1.0, warmup=0, constant=1.0) == 1.0


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_every_optimiser_gets_down_a_hill(name: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(12, 16, 1), nn.GELU(), nn.Conv2d(16, 12, 1)), torch.randn(4, 12, 8, 8)
    optimiser = make_optimiser(name, list(model.named_parameters()), 0.01)
    costs = []
    for _ in range(80):
        cost = (model(x) - x).pow(2).mean()
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        costs.append(cost.item())
    assert costs[-1] < 0.6 * costs[0]


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_the_rate_of_every_group_follows_and_zero_stands_still(name: str) -> None:
    model = nn.Conv2d(12, 16, 1)
    optimiser = make_optimiser(name, list(model.named_parameters()), 0.01)
    set_rate(optimiser, 0.0)
    before = model.weight.detach().clone()
    for _ in range(3):
        model(torch.randn(1, 12, 2, 2)).sum().backward()
        optimiser.step()
    assert torch.equal(model.weight, before)
    set_rate(optimiser, 0.5)
    assert all(g["lr"] == g["base"] / 2 for g in optimiser.param_groups)


def test_unknown_optimisers_are_refused_with_those_that_exist() -> None:
    with pytest.raises(InputError, match="'adam': one of adamw, soap, muon"):
        make_optimiser("adam", [], 0.1)
