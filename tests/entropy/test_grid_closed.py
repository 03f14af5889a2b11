"""Steps counted from predictions: what is decoded lies within half a step of every target, and what lies close to its prediction costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.grid_preset import frozen_network
from latentpress.entropy.frozen import integer_state
from latentpress.entropy.grid import GridPrior
from latentpress.entropy.grid_closed import Targets
from latentpress.entropy.grid_network import COARSE, GROUPS, GridConfig, GridNetwork
from latentpress.entropy.grid_tables import CLOSED_FIRST, CLOSED_ROWS, WIDE, choose_closed, mixture_tables
from latentpress.errors import LatentpressError
from tests.entropy.grids import strayed

MIXTURE = np.tile([[0.6, 0.3, 0.1]], (9, 1)), np.tile([[0.6, 1.0, 2.5]], (9, 1))
PEAKS = (65535, (1 << 24) - 1)


def network(modes: int = 2) -> GridNetwork:
    return strayed(GridConfig(width=8, blocks=1, head=8, modes=modes))


def prior_of(made: GridNetwork, peak: int, mix: Any = MIXTURE[0], widths: Any = MIXTURE[1]) -> GridPrior:
    frozen = made.freeze()
    weights = integer_state(frozen, "network")
    weights |= {f"network.groups.{g}.octave": frozen.groups[g].octave.numpy().astype(np.int32) for g in GROUPS}
    return GridPrior(frozen_network(made.config, weights, peak), mixture_tables(mix, widths, closed=made.config.modes > 1))


@pytest.fixture(scope="module")
def priors() -> list[GridPrior]:
    return [prior_of(network(), peak) for peak in PEAKS]


@settings(deadline=None, max_examples=40)
@given(
    h=st.integers(1, 24), w=st.integers(1, 24), c=st.integers(1, 3), seed=st.integers(0, 99), wide=st.booleans(),
    hidden=st.sampled_from([None, 0.0, 0.3, 1.0]), most=st.sampled_from([None, 0, 5, 12]), chain=st.booleans(),
)  # fmt: skip
def test_all_that_is_decoded_lies_within_half_a_step(priors, h, w, c, seed, wide, hidden, most, chain):
    rng, prior = np.random.default_rng(seed), priors[wide]
    known = None if hidden is None else rng.random((c, h, w)) >= hidden
    shifts = None if most is None else rng.integers(0, most + 1, (h, w)).astype(np.int32)
    room = 6200  # a step of 4096 and half a one: what is decoded is coded again below
    values = rng.uniform(-1, 1, (c, h, w)) * (prior.peak - room) / (3 if chain else 1) * rng.choice([1e-3, 1.0])
    deltas, before = ((True,) * c, rng.integers(-500, 500, (h, w))) if chain else ((False,) * c, None)
    blob, found = prior.approximate(Targets(values, deltas, known, before), shifts)
    assert np.array_equal(prior.decode(blob, found.shape, known, shifts, closed=True), found)
    shown = np.ones(values.shape, bool) if known is None else known
    absolute, last = np.where(shown, found, 0), np.zeros((h, w), np.int64) if before is None else before
    for k in range(c):
        absolute[k] = np.where(shown[k], absolute[k] + (last if deltas[k] else 0), 0)
        last = absolute[k]
    half = np.ldexp(0.5, np.full((h, w), COARSE) if shifts is None else shifts) * np.ones((c, 1, 1))
    assert (np.abs(absolute - values)[shown] <= half[shown]).all()
    again, same = prior.approximate(Targets(np.where(shown, found, 0).astype(float), known=known), shifts)
    assert again == blob and np.array_equal(same[shown], found[shown])


def test_training_counts_what_is_coded():
    """Bits of the network in training, with the tables of its own mixture, beside bytes of the frozen one."""
    made = network()
    made.set_through(True)
    y, x = np.mgrid[:64, :64]
    targets = 300 * np.sin(x / 9 + y / 14) + np.random.default_rng(1).normal(0, 30, (3, 64, 64))
    with torch.no_grad():
        bits = float(torch.stack(made(torch.from_numpy(targets)[None].float(), octaves=3, coarse=COARSE)).sum())
    mix = np.concatenate([torch.softmax(made.groups[g].mix.detach().double(), 1).numpy() for g in GROUPS])
    widths = np.concatenate([torch.exp(made.groups[g].relative.detach().double()).numpy() for g in GROUPS])
    prior = prior_of(made, PEAKS[0], mix, widths)
    pushes, _ = prior.approximated(Targets(targets))
    coded = sum(prior.tables.bits(np.asarray(s, np.int32), r) for s, r in pushes[2:])
    assert bits == pytest.approx(coded, rel=0.03)


def test_a_plane_that_predictions_hit_costs_next_to_nothing(priors):
    y, x = np.mgrid[:96, :96]
    ramp = (3.0 * y + 2.0 * x)[None]
    counted, _ = priors[0].approximate(Targets(ramp), np.full((96, 96), 7, np.int32))
    assert len(counted) < 0.5 * len(priors[0].encode(np.round(ramp).astype(np.int32) >> 7 << 7))


def test_rows_follow_the_scale():
    scale = np.arange(-400, 260, dtype=np.int32)
    chosen = choose_closed(scale, 20)
    assert chosen.row.min() == 0 and chosen.row.max() == CLOSED_ROWS - 1 and (np.diff(chosen.row + 4 * chosen.low) >= 0).all()
    widths = (CLOSED_FIRST + chosen.row) / 4 + chosen.low
    inside = (widths > CLOSED_FIRST / 4) & (chosen.low < 20)
    assert np.abs(widths - (scale - 44.68) / 8)[inside].max() <= 0.26 and widths[chosen.low > 0].min() > WIDE // 4 - 1


def test_what_does_not_fit_is_refused(priors):
    prior = priors[0]
    with pytest.raises(ValueError, match="expected"):
        prior.approximate(Targets(np.full((1, 9, 9), prior.peak - 3.0)))
    with pytest.raises(ValueError, match="expected"):
        prior.approximate(Targets(np.full((2, 9, 9), prior.peak * 0.6), (False, True)))
    plain = prior_of(network(modes=1), PEAKS[0])
    with pytest.raises(ValueError, match="not trained"):
        plain.approximate(Targets(np.zeros((1, 9, 9))))
    with pytest.raises(LatentpressError, match="preset"):
        plain.decode(b"", (1, 9, 9), closed=True)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_is_refused_or_decodes_to_something_else(priors, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    values = rng.normal(0, 200, (2, 20, 17))
    blob, _ = priors[0].approximate(Targets(values))
    bad = bytearray(blob)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = priors[0].decode(bytes(bad), values.shape, closed=True)
    except LatentpressError:
        return
    assert np.abs(found).max() <= priors[0].peak
