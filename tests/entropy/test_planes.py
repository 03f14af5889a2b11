"""The prior for planes: inversion at every size, exact prediction, no look ahead, honest bits, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.entropy.planes import PlanePrior, View, steps
from latentpress.errors import LatentpressError
from latentpress.train.fit_planes import fit

CHANNELS, PEAK = 6, 127


def some_planes(seed: int, h: int, w: int) -> np.ndarray:
    """Smooth planes whose later channels follow the first one's gradient, with noise of changing size."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(h + 8, w + 8)).cumsum(0).cumsum(1)
    base = 60 * np.tanh(base / (np.abs(base).mean() + 1))
    slope = np.gradient(base, axis=0) if base.shape[0] > 1 else base
    noise = rng.normal(size=(CHANNELS, h, w)) * np.abs(base[:h, :w]) / 20
    planes = np.stack([base[:h, :w] if c == 0 else slope[:h, :w] * 2 / c for c in range(CHANNELS)]) + noise
    return np.clip(np.round(planes), -PEAK, PEAK).astype(np.int32)


@pytest.fixture(scope="module")
def prior() -> PlanePrior:
    return fit([some_planes(s, 40, 40) for s in range(8)], PEAK)


@settings(deadline=None, max_examples=40)
@given(h=st.integers(1, 40), w=st.integers(1, 40), seed=st.integers(0, 99), wild=st.booleans())
def test_decode_inverts_encode(prior, h, w, seed, wild):
    rng = np.random.default_rng(seed)
    planes = rng.integers(-PEAK, PEAK + 1, (CHANNELS, h, w), dtype=np.int32) if wild else some_planes(seed, h, w)
    assert np.array_equal(prior.decode(prior.encode(planes), (h, w)), planes)


def test_bits_are_those_of_the_coder(prior):
    planes = some_planes(77, 128, 160)
    blob = prior.encode(planes)
    assert len(blob) > 10_000 and abs(8 * len(blob) / prior.bits(planes) - 1) < 0.01


def test_it_beats_the_entropy_of_each_channel(prior):
    planes = some_planes(78, 64, 64)
    plain = 0.0
    for plane in planes:
        share = np.unique(plane, return_counts=True)[1] / plane.size
        plain -= plane.size * float((share * np.log2(share)).sum())
    assert prior.bits(planes) < 0.85 * plain


def test_every_point_is_coded_once():
    size = (13, 21)
    count = np.zeros((2, *size), int)
    for step in steps(2):
        count[step.channel][step.points(size)] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 24)])
def test_no_step_looks_at_what_is_not_yet_decoded(prior, size):
    """Values that a decoder does not have yet are replaced by nonsense: predictions must not change."""
    planes = some_planes(5, *size)
    known, spoiled = View(CHANNELS, size), View(CHANNELS, size)
    spoiled.values[:, :-1, :-1] = spoiled.misses[:, :-1, :-1] = 99
    for index, step in enumerate(prior.steps):
        points = step.points(size)
        values = planes[step.channel][points]
        if values.size:
            mean, rows = prior.predict(known, index)
            for a, b in zip((mean, rows), prior.predict(spoiled, index), strict=True):
                assert np.array_equal(a, b)
            for view in (known, spoiled):
                view.values[step.channel, :-1, :-1][points] = values
                view.misses[step.channel, :-1, :-1][points] = np.abs(4 * values - mean.reshape(values.shape))
        if index + 1 == len(prior.steps) or prior.steps[index + 1].channel != step.channel:
            known.finish(step.channel)
            spoiled.finish(step.channel)


def test_predictions_are_those_of_whole_numbers(prior):
    """float32 sums against Python integers."""
    view, size = View(CHANNELS, (24, 24)), (24, 24)
    rng = np.random.default_rng(3)
    view.values[:, :-1, :-1] = rng.integers(-PEAK, PEAK + 1, (CHANNELS, *size))
    view.misses[:, :-1, :-1] = rng.integers(0, 8 * PEAK, (CHANNELS, *size))
    for c in range(CHANNELS):
        view.finish(c)
    for index in range(len(prior.steps)):
        weights, bias = prior._mean[index]
        features = view.for_mean(prior.steps[index]).astype(np.int64)
        mean, _ = prior.predict(view, index)
        exact = (weights.astype(np.int64) @ features + bias) >> 10 if len(weights) else np.full(len(mean), bias >> 10)
        assert np.array_equal(mean, np.clip(exact, -4 * PEAK, 4 * PEAK))


def test_state_round_trip(prior):
    again = PlanePrior.from_state(prior.state("p"), "p", channels=CHANNELS, peak=PEAK)
    planes = some_planes(6, 20, 30)
    assert again.encode(planes) == prior.encode(planes)


def test_weights_that_could_leave_float32_are_refused(prior):
    state = prior.state("p")
    state["p.mean"] = np.full_like(state["p.mean"], 32767)
    with pytest.raises(ValueError, match="could reach"):
        PlanePrior.from_state(state, "p", channels=CHANNELS, peak=PEAK)


def test_values_out_of_range_are_refused(prior):
    with pytest.raises(ValueError, match="within"):
        prior.encode(np.full((CHANNELS, 3, 3), PEAK + 1, np.int32))


def test_damage_ends_in_our_error_or_in_other_planes(prior):
    planes = some_planes(8, 16, 16)
    blob = prior.encode(planes)
    for at in range(0, len(blob), 7):
        bad = bytearray(blob)
        bad[at] ^= 1 << at % 8
        for damaged in (bytes(bad), blob[:at]):
            try:
                assert not np.array_equal(prior.decode(damaged, (16, 16)), planes)
            except LatentpressError:
                continue
