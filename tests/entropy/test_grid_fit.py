"""Fits of the integer grid: chosen once, replayed exactly, exact in the carrier, and worth their bits; lanes: streams side by side."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.grid_preset import frozen_network
from latentpress.entropy.coder import Decoder, Encoder
from latentpress.entropy.frozen import integer_state
from latentpress.entropy.grid import Fits, GridPrior
from latentpress.entropy.grid_closed import Targets
from latentpress.entropy.grid_fit import CLAMP, EDGES, MOST, MOST_BEND, MOST_OFFSET, MOST_SUM, OTHERS, PIVOTS, Around, Fit
from latentpress.entropy.grid_fit_coding import pulled, pushes_of
from latentpress.entropy.grid_network import COARSE, GROUPS, GridConfig
from latentpress.entropy.grid_tables import mixture_tables
from latentpress.entropy.grid_walk import LANE_POINTS, lanes_of
from latentpress.errors import FormatError, LatentpressError
from tests.entropy.grids import strayed
from tests.helpers import natural

MIXTURE = np.tile([[0.6, 0.3, 0.1]], (9, 1)), np.tile([[0.6, 1.0, 2.5]], (9, 1))


def prior_of(**settings: object) -> GridPrior:
    config = GridConfig(width=8, blocks=1, head=8, fits=True, **settings)
    return GridPrior(strayed(config).freeze(), mixture_tables(*MIXTURE, closed=config.modes > 1))


def wide_prior(**settings: object) -> GridPrior:
    """For samples of up to 65535, from the same integers."""
    config = GridConfig(width=8, blocks=1, head=8, fits=True, **settings)
    weights = integer_state(strayed(config).freeze(), "network")
    weights |= {f"network.groups.{g}.octave": np.zeros(strayed(config).groups[g].octave.shape, np.int32) for g in GROUPS}
    return GridPrior(frozen_network(config, weights, 65535), mixture_tables(*MIXTURE, closed=True))


@pytest.fixture(scope="module")
def prior() -> GridPrior:
    return prior_of(lanes=2)


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    image = np.ascontiguousarray(natural(190, 170).astype(np.int32).transpose(2, 0, 1)) - np.array([0, 128, 128], np.int32)[:, None, None]
    image[1] = np.clip(image[1] + image[0] // 2 - 60, -255, 255)  # what this network expects of colours is not so here
    return image


def test_fits_come_back_and_give_the_same_bytes_again(prior, planes):
    found = Fits.none()
    blob = prior.encode(planes)
    assert np.array_equal(prior.decode(blob, planes.shape, fits=found), planes)
    assert any(f and f.coefficients is not None for f in found.lanes[0]) and found.lanes[1]
    assert prior.encode(planes, fits=found) == blob


def test_a_fit_is_worth_its_bits(prior, planes):
    alone = prior.encode(planes, fits=False)
    assert len(prior.encode(planes)) < 0.97 * len(alone)
    assert np.array_equal(prior.decode(alone, planes.shape), planes)


def test_noise_wants_no_coefficients(prior):
    noise = np.random.default_rng(0).integers(-100, 100, (3, 140, 150)).astype(np.int32)
    found = Fits.none()
    blob = prior.encode(noise)
    assert len(blob) <= len(prior.encode(noise, fits=False)) + 16
    assert np.array_equal(prior.decode(blob, noise.shape, fits=found), noise)


def test_threads_and_strips_change_nothing(prior, planes, monkeypatch):
    torch.set_num_threads(1)
    blob = prior.encode(planes)
    torch.set_num_threads(2)
    monkeypatch.setattr("latentpress.entropy.grid.STRIP", 500)
    assert prior.encode(planes) == blob and np.array_equal(prior.decode(blob, planes.shape), planes)


def test_what_both_sides_know_is_left_out_of_fits(prior, planes):
    known = np.ones(planes.shape, np.bool_)
    known[:, 40:90, 30:120] = False
    shifts = np.zeros(planes.shape, np.int32)
    shifts[:, :, 100:] = 2
    coarse = planes >> shifts << shifts
    found = Fits.none()
    blob = prior.encode(coarse, known, shifts)
    assert np.array_equal(prior.decode(blob, coarse.shape, known, shifts, fits=found)[known], coarse[known])
    assert prior.encode(np.where(known, coarse, 7 << 2), known, shifts, fits=found) == blob


@pytest.mark.parametrize("coarse", [COARSE, COARSE + 3])
def test_steps_from_fitted_predictions_stay_within_half_a_step(planes, coarse):
    prior = wide_prior(lanes=2, modes=2)
    real = planes.astype(np.float64) * 16 + np.random.default_rng(1).normal(0, 3, planes.shape)
    shifts = np.full(planes.shape, coarse, np.int32)
    blob, made = prior.approximate(Targets(real), shifts)
    assert np.abs(made - real).max() <= 2.0 ** (coarse - 1)
    found = Fits.none()
    assert np.array_equal(prior.decode(blob, planes.shape, shifts=shifts, closed=True, fits=found), made)
    again, same = prior.approximate(Targets(made.astype(np.float64)), shifts, found)
    assert again == blob and np.array_equal(same, made)


@settings(deadline=None, max_examples=60)
@given(
    offset=st.integers(-MOST_OFFSET, MOST_OFFSET), coefficients=st.none() | st.lists(st.integers(-30, 30), min_size=5, max_size=40),
    bends=st.just(()) | st.tuples(*[st.integers(-MOST_BEND, MOST_BEND)] * (len(EDGES) + 1)), pivot=st.integers(0, PIVOTS - 1),
)
def test_what_is_sent_is_what_is_found(prior, offset, coefficients, bends, pivot):
    tables, flat = prior.tables, prior.flat_rows
    fit = Fit(offset, None if coefficients is None else np.array(coefficients, np.int32), bends, pivot)
    encoder = Encoder()
    for push in pushes_of(fit, tables, flat):
        encoder.push(*push, tables)
    decoder = Decoder(encoder.finish())
    made = pulled(lambda rows: decoder.pull(rows, tables), len(coefficients or ()), flat)
    assert made is not None and (made.offset, made.bends, made.pivot) == (offset, bends, pivot if bends else 0)
    assert (made.coefficients is None) == (coefficients is None) and (coefficients is None or made.coefficients.tolist() == coefficients)


@pytest.mark.parametrize("symbols", [
    [16, 0], [-16, 0], [99, 0], [8, 2], [8, 1, 64, [0] * 6], [8, 1, 3, [MOST_BEND + 1] * 6],
    [-8, 0, 63], [-8, 0, 4, [MOST + 1] * 30], [-8, 0, 4, [MOST] * 30],
])  # fmt: skip
def test_fits_that_no_encoder_sends_are_refused(symbols):
    answers = iter(symbols)
    with pytest.raises(FormatError):
        pulled(lambda rows: np.array(next(answers), np.int32).reshape(-1), 30, 100)


def test_sums_stay_within_the_carrier():
    """The worst of all: every coefficient on neighbours at one end of the range, the mean of the nearest at the other."""
    most = 4 * 255
    shape = (4, 4)
    ends, means = torch.full(shape, float(most)), torch.full(shape, float(-most))
    around = Around(
        quarters=[[ends] * 20] * 3, misses=[torch.full(shape, 1e9)] * 4, totals=[means] * 3, here=[ends] * 2, missed=[torch.full(shape, 1e9)] * 2,
        channel=2, narrow=True,
    )  # fmt: skip
    assert around.count == 20 + 2 * OTHERS + 2 + 2 + 4 + 1 == len(around.features())
    coefficients = np.zeros(around.count, np.int32)
    coefficients[: MOST_SUM // MOST] = MOST
    wide = Around(**{**around.__dict__, "narrow": False})
    assert torch.equal(around.correction(coefficients).double(), wide.correction(coefficients))
    assert 4 * MOST_SUM * 2 * most + 64 < 1 << 24 and MOST_SUM * CLAMP < 1 << 24


def test_scales_bend_by_their_class():
    scale = np.array([0, 27, 28, 34, 38, 42, 48, 207], np.int32)
    assert Fit(1, None, (-3, 0, 1, 2, 3, 4), 10).scaled(scale, 207).tolist() == [0, 25, 29, 36, 41, 46, 53, 207]


@pytest.mark.parametrize(("rows", "columns", "most", "expected"), [
    (1, LANE_POINTS - 1, 2, [(0, 1)]), (64, 64, 2, [(0, 32), (32, 64)]), (65, 100, 4, [(0, 16), (16, 32), (32, 48), (48, 65)]),
    (500, 500, 1, [(0, 500)]),
])  # fmt: skip
def test_lanes_share_the_rows(rows, columns, most, expected):
    assert lanes_of(rows, columns, most) == expected


@settings(deadline=None, max_examples=15)
@given(at=st.floats(0, 0.999), flip=st.integers(1, 255), cut=st.sampled_from([0, 0, 4, 400]))
def test_damage_ends_in_a_typed_error_or_other_planes(prior, planes, at, flip, cut):
    small = planes[:, :140, :140]
    if not hasattr(prior, "small"):
        prior.small = prior.encode(small)
    damaged = bytearray(prior.small[: len(prior.small) - cut])
    damaged[int(at * len(damaged))] ^= flip
    try:
        found = prior.decode(bytes(damaged), small.shape)
    except LatentpressError:
        return
    assert found.shape == small.shape and not np.array_equal(found, small)
