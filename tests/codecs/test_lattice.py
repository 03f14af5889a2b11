"""The bounded codec of fields: whatever the array, the bound holds, masks are exact, lossless means bit for bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress import container
from latentpress.codecs import lattice_map
from latentpress.codecs.base import Encoded, Signal, Target
from latentpress.codecs.lattice_planes import Bounds, prepare
from latentpress.codecs.registry import load_codec
from latentpress.errors import FormatError, InputError, LatentpressError, UnsupportedError

CODEC: Any = load_codec("lattice")
FLOATS = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True), st.floats(-100, 100, width=32), st.sampled_from([0.0, -0.0, np.nan, 273.15, 1e-42])
)


def named(data: np.ndarray, **meta: Any) -> Signal:
    return Signal(data=data, dims=tuple(f"d{i}" for i in range(data.ndim)), meta=meta)


def through(signal: Signal, **target: Any) -> np.ndarray:
    """By way of bytes."""
    blob = container.write(CODEC.encode(signal, Target(**target)))
    back = CODEC.decode(container.read(blob).encoded)
    assert back.dims == signal.dims and back.data.dtype == signal.data.dtype and back.data.shape == signal.data.shape
    return back.data  # type: ignore[no-any-return]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def waves(*shape: int, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Something like a field: smooth, a little rough, the planes alike."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    smooth = np.sin(y / 9) * 10 + np.cos(x / 13 + y / 31) * 7 + 280
    drift = np.arange(int(np.prod(shape[:-2])) or 1).reshape(*shape[:-2], 1, 1) * 0.3
    return (smooth + drift + np.random.default_rng(seed).normal(0, noise, shape)).astype(np.float32)


def misses(x: np.ndarray, back: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.abs(back.astype(np.float64) - x.astype(np.float64))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7), elements=FLOATS))
def test_lossless_gives_back_every_bit_of_any_floats(x: np.ndarray) -> None:
    back = through(named(x), max_error=0.0)
    assert same_bits(back, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("largest", [1e-320, 1e-40, 1.0, 6e16, 3e38, 1e300])
def test_no_magnitude_is_too_large_or_too_small(dtype: str, largest: float) -> None:
    if largest > np.finfo(dtype).max:
        return
    x = np.array([[0.0, largest, largest / 2, -largest, largest / 3, 1.0 if largest > 1 else 0.0]], dtype)
    for bound in (0.0, largest / 10, largest / 1e5, largest * 2):
        back = through(named(x), max_error=bound)
        assert same_bits(back, x) if bound == 0 else (misses(x, back) <= bound).all()


@settings(max_examples=15, deadline=None)
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6), elements=st.floats(width=64)))
def test_lossless_gives_back_every_bit_of_any_doubles(x: np.ndarray) -> None:
    assert same_bits(through(named(x), max_error=0.0), x)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_integers_of_any_range_are_kept(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.random.default_rng(1).integers(info.min, info.max, (2, 9, 11), dtype, endpoint=True)
    assert same_bits(through(named(x), max_error=0.0), x)
    flat = np.full((3, 5), info.max, dtype)
    assert same_bits(through(named(flat), max_error=3.0), flat)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9), elements=FLOATS),
    st.floats(1e-6, 1e6, allow_nan=False),
)
def test_the_bound_holds_everywhere_and_what_is_not_finite_is_exact(x: np.ndarray, bound: float) -> None:
    back = through(named(x), max_error=bound)
    finite = np.isfinite(x)
    assert same_bits(back[~finite], x[~finite])
    assert (misses(x, back)[finite] <= bound).all()


@settings(max_examples=20, deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9), elements=FLOATS), st.floats(1e-6, 0.5))
def test_a_relative_bound_holds_at_every_point(x: np.ndarray, bound: float) -> None:
    back = through(named(x), max_rel_error=bound)
    finite = np.isfinite(x)
    assert same_bits(back[~finite], x[~finite])
    assert (misses(x, back)[finite] <= bound * np.abs(x[finite].astype(np.float64))).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(20, 30), (3, 17, 9), (1, 1)]))
def test_a_bound_for_each_point_holds_at_each_point(seed: int, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    x = waves(*shape, noise=1.0, seed=seed)
    bound = 10.0 ** random.uniform(-4, 1, shape) * (random.random(shape) > 0.05)
    back = through(named(x), max_error=bound)
    assert (misses(x, back) <= bound).all()


def test_a_bound_that_grows_across_the_field_takes_fewer_bytes_than_its_least() -> None:
    x, bound = waves(64, 96, noise=0.3), np.broadcast_to(10.0 ** np.linspace(-3, 0, 96), (64, 96))
    sizes = [len(container.write(CODEC.encode(named(x), Target(max_error=b)))) for b in (bound, float(bound.min()))]
    assert sizes[0] < 0.75 * sizes[1]


def test_effort_changes_how_much_is_checked_and_then_how_much_is_tried() -> None:
    x = waves(4, 20, 30)
    x[:, 3:6] = np.nan
    for target in (Target(max_error=0.05), Target(max_error=0.0), Target(max_rel_error=0.01)):
        checked, tried = (CODEC.encode(named(x), target, effort=e) for e in (3, 5))
        assert CODEC.encode(named(x), target, effort=0) == checked
        assert len(container.write(tried)) <= len(container.write(checked))


def test_a_bound_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="one for each point"):
        CODEC.encode(named(waves(8, 9)), Target(max_error=np.ones((3, 3))))


def test_fill_values_are_exact_and_outside_the_bound() -> None:
    x = np.round(waves(40, 50) * 10).astype(np.int16)
    x[5:9, 7:20] = -32768
    back = through(named(x, fill=-32768), max_error=4.0)
    assert ((back == -32768) == (x == -32768)).all() and np.abs(back.astype(int) - x).max() <= 4
    assert np.abs(back.astype(int) - x).max() > 1  # the bound is used


def test_a_land_mask_costs_little_and_is_exact() -> None:
    x = waves(3, 60, 80)
    masked = x.copy()
    masked[:, 20:50, 10:40] = np.nan
    back = through(named(masked), max_error=0.05)
    assert (np.isnan(back) == np.isnan(masked)).all()
    sizes = [len(container.write(CODEC.encode(named(a), Target(max_error=0.05)))) for a in (x, masked)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(("reference", "step"), [(202.7560920715332, 2.0**-9), (-12.8443, 0.0015727049), (0.0, 0.01), (95206.1875, 0.25)])
def test_a_packing_lattice_is_found_and_gives_back_every_bit(reference: float, step: float) -> None:
    k = np.round((waves(40, 60, noise=0.3).astype(np.float64) - 250) * 37).astype(np.int64)
    x = (reference + step * k).astype(np.float32)
    found = lattice_map.packing_lattice(x.ravel())
    assert found is not None and abs(found[1] / step - 1) < 1e-5
    assert lattice_map.lossless_map(x.ravel()).kind == lattice_map.LINEAR
    assert same_bits(through(named(x), max_error=0.0), x)


def test_a_lattice_is_found_though_no_two_values_are_one_step_apart() -> None:
    k = np.cumsum(np.tile([16, 17, 16, 33, 48, 17, 50], 60))
    x = (-17.125 + 0.0004778199963376671 * k).astype(np.float32)
    found = lattice_map.packing_lattice(np.repeat(x, 3))
    assert found is not None and abs(found[1] / 0.0004778199963376671 - 1) < 1e-5


def test_on_a_packing_lattice_a_bound_takes_the_largest_odd_multiple_that_keeps_it() -> None:
    x = (np.round(waves(40, 60, noise=2.0).astype(np.float64) * 4) / 4).astype(np.float32)
    chosen = lattice_map.bounded_map(x.ravel(), 0.5)
    assert chosen.multiple == 5 and chosen.step == 0.25
    assert misses(x, through(named(x), max_error=0.5)).max() <= 0.5


def test_data_on_no_lattice_have_none() -> None:
    assert lattice_map.packing_lattice(np.random.default_rng(0).normal(size=4000).astype(np.float32)) is None


@pytest.mark.parametrize(("scale", "bound"), [(20000.0, 27.0), (20000.0, 400.0), (1.0, 0.02)])
def test_smooth_planes_are_coded_as_steps_from_predictions_packed_or_not(scale: float, bound: float) -> None:
    y, x = np.mgrid[:90, :120]
    smooth = scale * np.sin(x / 31 + y / 47)
    data = smooth.round().astype(np.int16) if scale > 1 else smooth.astype(np.float32)
    encoded = CODEC.encode(named(data), Target(max_error=bound))
    fixed = CODEC._coded(prepare(data[None], Bounds(bound), None, closed=False))[1]
    assert misses(data, CODEC.decode(encoded).data).max() <= bound
    assert len(encoded.chunks[0].payload) < 0.7 * len(fixed)


def test_alike_planes_are_coded_as_differences() -> None:
    still = waves(1, 40, 50, noise=3.0)
    x = np.repeat(still, 6, 0)
    one, six = (len(container.write(CODEC.encode(named(a), Target(max_error=0.01)))) for a in (still, x))
    assert six < 1.2 * one and misses(x, through(named(x), max_error=0.01)).max() <= 0.01


def test_a_region_is_decoded_from_its_chunks_alone() -> None:
    x = waves(7, 2, 30, 40)
    encoded = CODEC.encode(named(x), Target(max_error=0.01))
    small = dataclasses.replace(encoded, parameters={"planes": 3, "rows": 30, "columns": 40})
    assert CODEC.places(encoded) == len(encoded.chunks) and CODEC.places(small) == 5
    region = (slice(2, 5), slice(1, 2), slice(3, 9), slice(0, 40))
    wanted = set(CODEC.chunks_of(encoded, region))
    some = dataclasses.replace(encoded, chunks=tuple(c for c in encoded.chunks if c.position in wanted))
    np.testing.assert_array_equal(CODEC.decode_region(some, region).data, CODEC.decode(encoded).data[region])


def test_large_planes_are_cut_and_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentpress.codecs import lattice_chunks

    monkeypatch.setattr(lattice_chunks, "LARGEST", 1000)
    monkeypatch.setattr(lattice_chunks, "TILE", 32)
    x = waves(4, 50, 70)
    encoded = CODEC.encode(named(x), Target(max_error=0.01))
    assert len(encoded.chunks) == 2 * 3
    assert misses(x, CODEC.decode(encoded).data).max() <= 0.01
    region = (slice(3, 4), slice(20, 45), slice(20, 21))
    some = dataclasses.replace(encoded, chunks=tuple(c for c in encoded.chunks if c.position in set(CODEC.chunks_of(encoded, region))))
    assert len(some.chunks) == 2
    np.testing.assert_array_equal(CODEC.decode_region(some, region).data, CODEC.decode(encoded).data[region])


def test_missing_chunks_leave_nothing_there_and_empty_arrays_are_refused() -> None:
    encoded = CODEC.encode(named(waves(5, 6)), Target(quality=50))
    assert np.isnan(CODEC.decode(dataclasses.replace(encoded, chunks=())).data).all()
    with pytest.raises(UnsupportedError, match="have points"):
        CODEC.encode(named(np.zeros((3, 0), np.float32)), Target(max_error=0.1))


def test_symbols_coded_again_give_the_same_bytes() -> None:
    x = waves(4, 20, 30)
    x[:, 3:6] = np.nan
    for target in (Target(max_error=0.05), Target(max_error=0.0), Target(max_error=np.where(x > 280, 0.1, 0.01))):
        encoded = CODEC.encode(named(x), target)
        assert CODEC.recode(encoded, CODEC.symbols(encoded)) == encoded


@pytest.mark.parametrize("bound", [0.05, 0.0])
def test_fits_save_bytes_and_are_coded_again_alike(bound: float) -> None:
    """A wave that the network has never seen: what lies between neighbours is not their mean."""
    y, x = np.mgrid[:150, :160]
    ripples = 280 + 20 * np.sin(y * 1.9 + x * 0.4) + np.random.default_rng(1).normal(0, 0.02, (2, 150, 160))
    field = np.round(ripples * 64) / 64
    fitted, plain = (CODEC.encode(named(field.astype(np.float32)), Target(max_error=bound), effort=e) for e in (2, 0))
    sizes = [sum(len(c.payload) for c in e.chunks) for e in (fitted, plain)]
    assert sizes[0] < 0.95 * sizes[1]
    for encoded in (fitted, plain):
        assert misses(field, CODEC.decode(encoded).data).max() <= bound
        assert CODEC.recode(encoded, CODEC.symbols(encoded)) == encoded


def test_better_quality_is_closer_and_larger() -> None:
    x, sizes, errors = waves(40, 60), [], []
    for quality in (0, 30, 60, 100):
        encoded = CODEC.encode(named(x), Target(quality=quality))
        sizes.append(len(container.write(encoded)))
        errors.append(misses(x, CODEC.decode(encoded).data).max())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("dtype", ["complex64", "bool", "int64", "<U3"])
def test_other_dtypes_are_refused_by_name(dtype: str) -> None:
    with pytest.raises(UnsupportedError, match="float32, float64"):
        CODEC.encode(named(np.zeros((2, 2), dtype)), Target(max_error=1.0))


def test_other_targets_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="max_error"):
        CODEC.encode(named(waves(4, 4)), Target(psnr=40.0))


def damaged(encoded: Encoded, seed: int) -> Encoded:
    random = np.random.default_rng(seed)
    payload = bytearray(encoded.chunks[0].payload)
    for _ in range(int(random.integers(1, 4))):
        payload[int(random.integers(len(payload) if random.random() < 0.5 else min(90, len(payload))))] = int(random.integers(256))
    if random.random() < 0.3:
        payload = payload[: int(random.integers(len(payload)))]
    return dataclasses.replace(encoded, chunks=(dataclasses.replace(encoded.chunks[0], payload=bytes(payload)),))


def test_damaged_payloads_end_in_a_typed_error_or_in_an_array() -> None:
    x = waves(4, 12, 14)
    x[:, 2:4] = np.nan
    outcomes = set()
    for target in (Target(max_error=0.05), Target(max_error=0.0), Target(max_error=np.where(x > 280, 0.1, 0.01))):
        encoded = CODEC.encode(named(x), target)
        for seed in range(60):
            try:
                outcomes.add(CODEC.decode(damaged(encoded, seed)).data.shape)
            except LatentpressError as error:
                outcomes.add(type(error))
    assert FormatError in outcomes and outcomes <= {FormatError, x.shape}
