"""The hierarchical integer grid: inversion for every size and depth, integers equal to training, nothing seen before it is decoded."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.entropy.exact import FixedConv2d
from latentpress.entropy.frozen import integer_state, load_integers
from latentpress.entropy.grid import GridPrior, octaves_of
from latentpress.entropy.grid_frozen import Buffers, FrozenGroup, GroupPass, Strips
from latentpress.entropy.grid_network import GROUPS, MAX_PEAK, GridConfig, GridNetwork, log_steps, neighbours, padded
from latentpress.entropy.grid_tables import PER_SHAPE, choose, mixture_tables
from latentpress.errors import LatentpressError
from tests.entropy.grids import strayed
from tests.helpers import natural

CONFIG = GridConfig(width=8, blocks=1, head=8)
MIXTURE = np.tile([[0.6, 0.3, 0.1]], (9, 1)), np.tile([[0.6, 1.0, 2.5]], (9, 1))


def network() -> GridNetwork:
    return strayed(CONFIG)


@pytest.fixture(scope="module")
def prior() -> GridPrior:
    return GridPrior(network().freeze(), mixture_tables(*MIXTURE))


def widened(peak: int) -> GridPrior:
    wide = GridNetwork(GridConfig(width=8, blocks=1, head=8, peak=peak))
    frozen = network().freeze()
    load_integers(wide, integer_state(frozen, "n"), "n", widen=True)
    for name in GROUPS:
        wide.groups[name].octave, wide.groups[name].integer = frozen.groups[name].octave, True
    return GridPrior(wide.eval().requires_grad_(False), mixture_tables(*MIXTURE))


@pytest.fixture(scope="module")
def deep_prior() -> GridPrior:
    return widened(65535)


@pytest.fixture(scope="module")
def deepest_prior() -> GridPrior:
    return widened(MAX_PEAK)


def planes_of(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.astype(np.int32).transpose(2, 0, 1)) - np.array([0, 128, 128], np.int32)[:, None, None]


@settings(deadline=None, max_examples=30)
@given(h=st.integers(1, 40), w=st.integers(1, 40), c=st.integers(1, 3), kind=st.sampled_from(["natural", "noise", "flat", "wide"]))
def test_decode_inverts_encode(prior, deep_prior, h, w, c, kind):
    rng = np.random.default_rng(h * 41 + w)
    planes = {
        "natural": lambda: planes_of(natural(h, w))[:c], "noise": lambda: rng.integers(-255, 256, (c, h, w)),
        "flat": lambda: np.full((c, h, w), 77), "wide": lambda: rng.integers(-65535, 65536, (c, h, w)),
    }[kind]().astype(np.int32)  # fmt: skip
    prior = deep_prior if kind == "wide" else prior
    assert np.array_equal(prior.decode(prior.encode(planes), planes.shape), planes)


@settings(deadline=None, max_examples=25)
@given(h=st.integers(1, 24), w=st.integers(1, 24), c=st.integers(1, 3), kind=st.sampled_from(["smooth", "noise", "flat", "edge"]))
def test_samples_of_25_bits_come_back(deepest_prior, h, w, c, kind):
    rng = np.random.default_rng(h * 41 + w)
    slope = np.add.outer(np.arange(h), np.arange(w)) / (h + w)
    planes = {
        "smooth": lambda: np.broadcast_to((2 * slope - 1) * MAX_PEAK, (c, h, w)), "noise": lambda: rng.integers(-MAX_PEAK, MAX_PEAK + 1, (c, h, w)),
        "flat": lambda: np.full((c, h, w), -MAX_PEAK), "edge": lambda: MAX_PEAK * rng.choice([-1, 1], (c, h, w)),
    }[kind]().astype(np.int32)  # fmt: skip
    assert np.array_equal(deepest_prior.decode(deepest_prior.encode(planes), planes.shape), planes)


def test_wide_noise_costs_what_it_holds(deepest_prior):
    """Full range at a scale beyond the widest row: the low bits go out flat, so that the cost is near the 26 bits of the samples."""
    planes = np.random.default_rng(2).integers(-MAX_PEAK, MAX_PEAK + 1, (1, 48, 48)).astype(np.int32)
    assert 8 * len(deepest_prior.encode(planes)) / planes.size < 28.5


def test_a_peak_that_no_carrier_holds_is_refused():
    with pytest.raises(ValueError, match="peak"):
        GridConfig(peak=MAX_PEAK + 1)


@settings(deadline=None, max_examples=40)
@given(
    h=st.integers(1, 24), w=st.integers(1, 24), c=st.integers(1, 3), seed=st.integers(0, 99), wide=st.booleans(),
    hidden=st.sampled_from([None, 0.0, 0.3, 1.0]), most=st.sampled_from([None, 0, 3, 30]), each=st.booleans(),
)  # fmt: skip
def test_what_both_sides_know_is_not_coded(prior, deepest_prior, h, w, c, seed, wide, hidden, most, each):
    """Missing samples and multiples of powers of two, alone and together: what is known comes back, whatever stood where nothing is known."""
    rng = np.random.default_rng(seed)
    prior = deepest_prior if wide else prior
    planes = rng.integers(-prior.peak, prior.peak + 1, (c, h, w)).astype(np.int32)
    known = None if hidden is None else rng.random((c, h, w)) >= hidden
    shifts = None if most is None else rng.integers(0, most + 1, (c, h, w) if each else (h, w)).astype(np.int32)
    if shifts is not None:
        planes = np.sign(planes) * (np.abs(planes) >> shifts << shifts)
    shown = np.ones((c, h, w), bool) if known is None else known
    planes = np.where(shown, planes, np.iinfo(np.int32).min + 1)
    blob = prior.encode(planes, known, shifts)
    found = prior.decode(blob, planes.shape, known, shifts)
    assert np.array_equal(found[shown], planes[shown]) and np.abs(found).max() <= prior.peak
    assert prior.encode(np.where(shown, planes, 0), known, shifts) == blob == prior.encode(found, known, shifts)
    if not shown.any():
        assert not blob


def test_sides_that_add_nothing_change_no_byte(prior):
    planes = planes_of(natural(20, 30))
    assert prior.encode(planes) == prior.encode(planes, np.ones(planes.shape, bool), np.zeros(planes.shape[1:], np.int32))


def test_missing_samples_cost_nothing_and_shifts_save_their_bits(prior):
    planes = planes_of(natural(40, 40))
    known = np.ones(planes.shape, bool)
    known[:, :20] = False
    shifts = np.full(planes.shape[1:], 2, np.int32)
    whole, coarse = (len(prior.encode(x)) for x in (planes, planes >> 2 << 2))
    assert len(prior.encode(planes, known)) < 0.62 * whole
    assert len(prior.encode(planes >> 2 << 2, None, shifts)) < coarse - planes.size * 1.5 / 8


@pytest.mark.parametrize(
    "known, shifts, match",
    [(np.ones((1, 3, 3), bool), None, "known"), (None, np.zeros((3, 4), np.int32), "shifts"), (None, np.full((4, 4), 31, np.int32), "30"),
     (None, np.full((4, 4), 2, np.int32), "multiple")],
)  # fmt: skip
def test_sides_that_do_not_fit_are_refused(prior, known, shifts, match):
    with pytest.raises(ValueError, match=match):
        prior.encode(np.full((1, 4, 4), 6, np.int32), known, shifts)


def test_values_beyond_the_peak_are_refused(prior):
    with pytest.raises(ValueError, match="256"):
        prior.encode(np.full((1, 4, 4), 256, np.int32))


def test_integers_are_those_of_training():
    made = network()
    made.set_through(True)
    x = torch.from_numpy(planes_of(natural(64, 96))).float()[None]
    with torch.no_grad():
        real, whole = made(x, octaves=3), made.freeze()(x, octaves=3)
    assert [float(r) for r in real] == pytest.approx([float(w) for w in whole], rel=1e-6)


def test_stored_integers_come_back_and_wide_samples_take_a_wider_carrier():
    made = network()
    state = integer_state(made.freeze(), "n")
    narrow, wide = GridNetwork(CONFIG), GridNetwork(GridConfig(width=8, blocks=1, head=8, peak=65535))
    load_integers(narrow, state, "n")
    with pytest.raises(ValueError, match="carrier"):
        load_integers(GridNetwork(wide.config), state, "n")
    load_integers(wide, state, "n", widen=True)
    assert not any(isinstance(m, FixedConv2d) for m in [*narrow.modules(), *wide.modules()])
    assert narrow.groups["oo"].linear[0].weight.dtype == torch.float32 and wide.groups["oo"].linear[0].weight.dtype == torch.float64
    again = integer_state(narrow, "n")
    assert state.keys() == again.keys() and all(np.array_equal(state[k], again[k]) for k in state)


def test_a_stage_sees_only_what_was_decoded(prior):
    """Two images that differ in the last stage alone have equal pushes up to there."""
    planes = planes_of(natural(32, 32))
    other = planes.copy()
    other[2, 1::2, 0::2] += 5
    a, b = prior.symbols(planes), prior.symbols(other)
    same = [np.array_equal(p[0], q[0]) and np.array_equal(p[1], q[1]) for p, q in zip(a, b, strict=True)]
    assert all(same[:-1]) and not same[-1]


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("wide", [False, True])
def test_products_over_strips_give_what_the_group_gives(prior, deepest_prior, name, wide):
    prior, (h, w) = deepest_prior if wide else prior, (11, 13)
    torch.manual_seed(5)
    group, type_ = prior.network.groups[name], prior.carrier
    parts = {g: padded(torch.randint(-90, 90, (1, 3, h, w)).to(type_)) for g in ("ee", *GROUPS)}
    missed = {g: padded(torch.randint(0, 900, (1, 3, h, w)).to(type_)) for g in ("ee", *GROUPS)}
    x = torch.randint(-90, 90, (1, h, w)).to(type_)
    near = neighbours(missed, name)[:, :12].view(1, 4, 3, h, w).sum(1)
    features, total, difference, log = group.features(neighbours(parts, name), near, 1)
    quarters, misses = {g: 4 * p[0] for g, p in parts.items()}, {g: m[0] for g, m in missed.items()}
    found = GroupPass(FrozenGroup(group, 3), quarters, misses, 1, Buffers(), Strips(30, None))
    found.first()
    seen, residuals = [], []
    for k in range(3):
        if k:
            found.next(k, x[0])
        location, scale = group.parameters_of(k, features, seen, total, difference, residuals, log)
        assert torch.equal(found.location[k], location[0].int())
        assert torch.equal(found.scale[k], torch.floor(scale + 0.5).clamp(0, prior.network.config.log_range - 1)[0].int())
        made = group.observe(k, x, location, scale, total, log)
        seen.append(made[0])
        residuals.append(made[1])


def test_strips_change_nothing(prior, monkeypatch):
    planes = planes_of(natural(90, 70))
    blob = prior.encode(planes)
    monkeypatch.setattr("latentpress.entropy.grid.STRIP", 1)
    assert prior.encode(planes) == blob


def test_threads_change_nothing(prior):
    planes = planes_of(natural(90, 70))
    blob = prior.encode(planes)
    torch.set_num_threads(2)
    assert prior.encode(planes) == blob and np.array_equal(prior.decode(blob, planes.shape), planes)


def test_logarithm_is_the_top_of_the_float():
    x = torch.arange(1, 70000, dtype=torch.float32)
    steps = log_steps(x)
    assert (torch.diff(steps) >= 0).all() and ((steps / 8 - torch.log2(x)).abs() < 0.22).all()
    assert steps[2**10 - 1] == 80


def test_rows_stay_in_their_shape():
    location = np.arange(-70000, 70000, 7, dtype=np.int32)
    for scale in (0, 20, 45, 90, 150, 207):
        chosen = choose(location, np.full_like(location, scale))
        assert chosen.row.min() >= 0 and chosen.row.max() < PER_SHAPE
        assert np.abs((chosen.base << 4) - location).max() <= 16 + (16 << chosen.low.max())


@pytest.mark.parametrize("size, octaves", [((1, 1), 0), ((8, 8), 0), ((9, 1), 1), ((768, 512), 7)])
def test_octaves(size, octaves):
    assert octaves_of(size) == octaves


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_damage_ends_in_a_typed_error_or_other_planes(prior, at, flip, cut):
    planes = planes_of(natural(24, 24))
    blob = bytearray(prior.encode(planes))
    if cut:
        del blob[at % len(blob) :]
    else:
        blob[at % len(blob)] ^= flip
    try:
        found = prior.decode(bytes(blob), planes.shape)
    except LatentpressError:
        return
    assert found.shape == planes.shape and not np.array_equal(found, planes)
