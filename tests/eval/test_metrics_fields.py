"""Metrics of gridded fields agree with a second way to compute them, and count what exceeds a bound exactly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentpress.errors import InputError, UnsupportedError
from latentpress.eval.fields import Field
from latentpress.eval.metrics import fields_points as points
from latentpress.eval.metrics import fields_structure as structure
from latentpress.eval.metrics.fields import FIELD

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def smooth(*shape: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=shape)
    return (280 + np.cumsum(np.cumsum(x, -1), -2)).astype(np.float32)


def holed(data: np.ndarray) -> np.ndarray:
    data = data.copy()
    data[..., 3:6, 2:9] = np.nan
    return data


def test_rmse_weighs_rows_by_the_cosine_of_their_latitude():
    a, latitude = smooth(5, 7), np.array([90, 45, 0, -45, -90.0])
    b = a + np.arange(5, dtype=np.float32)[:, None]
    w = [math.cos(math.radians(x)) for x in latitude]
    errors = np.abs(b.astype(np.float64) - a)
    expected = math.sqrt(sum(wi * e * e for wi, row in zip(w, errors, strict=True) for e in row) / (7 * sum(w)))
    assert points.rmse(a, b, latitude) == pytest.approx(expected)
    assert points.rmse(a, b) == pytest.approx(math.sqrt(np.mean(errors**2)))


def test_missing_points_do_not_count_in_errors():
    a = holed(smooth(12, 14))
    b = a + np.float32(0.5)
    assert points.rmse(a, b) == pytest.approx(0.5, rel=1e-4) and points.max_abs(a, b) == pytest.approx(0.5, rel=1e-4)
    assert points.mask_errors(a, b) == 0 and points.exceedances(a, b, 0.6) == 0


def test_r2_of_a_least_squares_fit_is_the_squared_correlation():
    x, y = np.random.default_rng(1).normal(size=(20, 30)), smooth(20, 30).astype(np.float64)
    slope, intercept = np.polyfit(x.ravel(), y.ravel(), 1)
    assert points.r2(y, intercept + slope * x) == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1] ** 2, rel=1e-6)


def test_relative_errors_by_hand():
    a = np.array([[1, 2, 0, -4]], np.float32)
    b = np.array([[1, 2.5, 0, -4.0002]], np.float32)
    assert points.max_rel(a, b) == 0.25
    assert points.spatial_relative_error(a, b) == 0.25 and points.spatial_relative_error(a, b, 1e-5) == 0.5
    assert points.max_rel(a, b + np.float32(1)) == math.inf


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([np.float32, np.float64]), st.data())
def test_exceedances_agree_with_rational_arithmetic(dtype, data):
    wide = st.floats(width=64, min_value=-1e300, max_value=1e300)
    values = hnp.arrays(dtype, (2, 3), elements=finite32 if dtype == np.float32 else wide)
    a, b = data.draw(values), data.draw(values)
    if data.draw(st.booleans()):
        b = np.nextafter(a, b)
    bound = data.draw(st.sampled_from([0.0, abs(float(a[0, 0]) - float(b[0, 0])), float(data.draw(st.floats(0, 1e10)))]))
    exact = sum(abs(Fraction(float(x)) - Fraction(float(y))) > Fraction(bound) for x, y in zip(a.flat, b.flat, strict=True))
    assert points.exceedances(a, b, bound) == exact


def test_a_bound_met_exactly_is_kept_and_the_next_float_is_not():
    a, b = np.zeros((1, 2)), np.array([[1.0, np.nextafter(1.0, 2)]])
    assert points.exceedances(a, b, 1.0) == 1
    far = np.array([[1e16, 1e16]])
    assert points.exceedances(far, np.array([[-1.0, 1.0]]), 1e16) == 1  # 1e16 + 1 rounds to 1e16


def test_bounds_may_differ_from_point_to_point():
    a, b = np.zeros((1, 3), np.float32), np.array([[1, 1, 1]], np.float32)
    assert points.exceedances(a, b, np.array([[0.5, 1, 2]])) == 1


def test_a_mask_or_an_infinity_that_changed_counts_as_beyond_the_bound():
    a = np.array([[np.nan, 1, np.inf, np.inf, np.nan]])
    b = np.array([[np.nan, np.nan, np.inf, -np.inf, 2]])
    assert points.exceedances(a, b, 1e30) == 3 and points.mask_errors(a, b) == 2


def test_lossless_means_every_bit():
    a = np.array([[0.0, 1.0, np.nan]], np.float32)
    assert points.changed(a, a.copy()) == 0 and points.changed(a, np.array([[-0.0, 1.0, np.nan]], np.float32)) == 1


def test_dssim_agrees_with_a_loop_over_windows():
    a = holed(smooth(16, 18))
    b = (a + np.random.default_rng(2).normal(size=a.shape) * 2).astype(np.float32)
    low, high = min(np.nanmin(a), np.nanmin(b)), max(np.nanmax(a), np.nanmax(b))
    x, y = (np.round((v.astype(np.float64) - low) / (float(high) - float(low)) * 255) / 255 for v in (a, b))
    offsets = np.arange(-5, 6)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    values = []
    for i in range(5, 11):
        for j in range(5, 13):
            if np.isnan(x[i, j]):
                continue
            u, v = x[i - 5 : i + 6, j - 5 : j + 6], y[i - 5 : i + 6, j - 5 : j + 6]
            w = np.where(np.isnan(u), 0, kernel)
            w, u, v = w / w.sum(), np.nan_to_num(u), np.nan_to_num(v)
            mu, nu = (w * u).sum(), (w * v).sum()
            s, t, c = (w * (u - mu) ** 2).sum(), (w * (v - nu) ** 2).sum(), (w * (u - mu) * (v - nu)).sum()
            values.append((2 * mu * nu + 1e-8) / (mu**2 + nu**2 + 1e-8) * (2 * c + 1e-8) / (s + t + 1e-8))
    assert structure.dssim(a, b) == pytest.approx(np.mean(values), rel=1e-9)
    assert structure.dssim(a, a) == pytest.approx(1) and structure.dssim(np.stack([a, a]), np.stack([a, b])) == pytest.approx(np.mean(values))


def test_dssim_of_small_planes_is_refused():
    with pytest.raises(UnsupportedError, match="at least 11"):
        structure.dssim(smooth(10, 20), smooth(10, 20))


@pytest.mark.parametrize("shape", [(12, 16), (13, 15)])
def test_the_spectrum_agrees_with_a_fourier_sum(shape):
    a = smooth(*shape).astype(np.float64)
    h, w = shape
    i, j = np.arange(h), np.arange(w)
    windowed = (a - a.mean()) * np.outer(np.sin(np.pi * (i + 0.5) / h) ** 2, np.sin(np.pi * (j + 0.5) / w) ** 2)
    count = min(h, w) // 2
    power, points_of = np.zeros(count), np.zeros(count)
    for m in range(h):
        for n in range(w):
            term = np.sum(windowed * np.exp(-2j * np.pi * (m * i[:, None] / h + n * j / w)))
            ring = int(math.hypot(min(m, h - m) / h, min(n, w - n) / w) * 2 * count)
            if ring < count:
                power[ring], points_of[ring] = power[ring] + abs(term) ** 2, points_of[ring] + 1
    assert np.allclose(structure.spectrum(a)[1], power / np.maximum(points_of, 1))


def test_half_of_the_detail_is_a_spectrum_ratio_of_a_quarter():
    base = np.outer(np.ones(32), np.cos(2 * np.pi * np.arange(32) * 2 / 32))
    detail = np.outer(np.ones(32), np.cos(2 * np.pi * np.arange(32) * 12 / 32))
    assert structure.spectrum_ratio(base + detail, base + detail / 2) == pytest.approx(0.25, rel=1e-3)


def test_gradient_error_by_hand():
    a = np.array([[0, 1, np.nan], [0, 3, 3]], np.float32)
    b = np.array([[0, 2, np.nan], [0, 3, 3]], np.float32)
    # differences: along x 1, 3, 0 (one is not there), along y 0, 2 (one is not there); of b: 2, 3, 0; 0, 1
    assert structure.gradient_error(a, b) == pytest.approx(math.sqrt((1 + 1) / (1 + 9 + 4)))


def test_every_registered_metric_is_best_for_identical_fields_and_worse_for_others():
    field = Field(name="f/x", data=holed(smooth(2, 20, 24)), dims=("time", "latitude", "longitude"), latitude=np.linspace(90, -90, 20))
    best = {"r2": 1, "dssim": 1, "spectrum_ratio": 1}
    noisy = (field.data + np.random.default_rng(3).normal(size=field.shape)).astype(np.float32)
    for metric in FIELD:
        assert metric.measure(field, field.data) == pytest.approx(best.get(metric.name, 0)), metric.name
        if metric.name != "mask_errors":
            assert metric.measure(field, noisy) != pytest.approx(best.get(metric.name, 0)), metric.name


@pytest.mark.parametrize("measure", [points.rmse, points.mask_errors, structure.dssim, structure.gradient_error])
def test_fields_of_other_shape_or_dtype_are_refused(measure):
    a = smooth(12, 14)
    for wrong in (a[:, :-1], a.astype(np.float64), a[0], a.astype(np.int32)):
        with pytest.raises(InputError):
            measure(a, wrong)
