"""What a codec is asked for, from what the caller asks for."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from latentpress.codecs.base import Target
from latentpress.errors import InputError
from latentpress.fields.bounds import Request, coordinates_of, is_field, plan
from tests.fields.datasets import packed, weather

FIELD = np.linspace(250, 300, 60, dtype=np.float32).reshape(3, 4, 5)
PACKED: dict[str, Any] = {"scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-32768)}


def test_floats_are_given_the_bound_as_it_is() -> None:
    todo = plan(FIELD, {}, Request(max_error=0.05))
    assert todo.target == Target(max_error=0.05) and todo.fill is None and todo.recorded == {"latentpress_max_error": 0.05}
    assert plan(FIELD, {}, Request(max_rel_error=0.01)).target == Target(max_rel_error=0.01)
    assert plan(FIELD, {}, Request(quality=30)).target == Target(quality=30)
    assert plan(FIELD, {}, Request()).target == Target(quality=50), "as images"
    assert plan(FIELD, {}, Request(lossless=True)).target == plan(FIELD, {}, Request(max_error=0)).target == Target(max_error=0)


@given(steps=st.integers(0, 1000), scale=st.sampled_from([0.01, 0.1, -0.25, 1e-7, 3.0, np.float32(0.001)]), part=st.floats(0, 0.999))
@settings(deadline=None, max_examples=60)
def test_packed_integers_are_given_as_many_whole_steps_as_fit(steps: int, scale: float, part: float) -> None:
    bound = (steps + part) * abs(float(scale))
    for given_bound in (bound, np.full(FIELD.shape, bound)):
        asked = np.max(plan(packed(FIELD), {"scale_factor": scale}, Request(max_error=given_bound)).target.max_error)
        assert asked == int(asked) and asked * abs(float(scale)) <= bound * (1 + 1e-15)
        assert (asked + 1) * abs(float(scale)) > bound * (1 - 1e-9)


def test_relative_bounds_of_packed_integers_are_those_of_the_decoded_values() -> None:
    data = packed(FIELD)
    asked = plan(data, PACKED, Request(max_rel_error=1e-3)).target.max_error
    decoded = data * 0.01 + 280
    assert isinstance(asked, np.ndarray) and (asked == np.floor(asked)).all()
    assert (asked * 0.01 <= decoded * 1e-3 + 1e-9).all() and ((asked + 1) * 0.01 > decoded * 1e-3 - 1e-9).all()


def test_fill_values_are_exact_the_second_one_by_its_bound() -> None:
    data = FIELD.copy()
    data[0, 0, 0], data[1, 1, 1] = 1e20, -999
    todo = plan(data, {"_FillValue": np.float32(1e20), "missing_value": np.float32(-999)}, Request(max_error=0.5))
    assert todo.fill == np.float32(1e20)
    assert isinstance(todo.target.max_error, np.ndarray) and todo.target.max_error[1, 1, 1] == 0 and todo.target.max_error[2, 2, 2] == 0.5
    assert plan(data, {"missing_value": "none"}, Request(max_error=0.5)).fill is None
    assert plan(data, {"_FillValue": np.float32("nan")}, Request(max_error=0.5)).fill is None, "NaN is exact without being named"


def test_flags_and_counts_stay_whole() -> None:
    assert plan(packed(FIELD), {"flag_meanings": "sea land"}, Request(max_error=5)).target == Target(max_error=0)
    assert plan(packed(FIELD), {}, Request(quality=10)).target == Target(max_error=0)


@pytest.mark.parametrize("settings", [{"max_error": 1, "quality": 2}, {"max_error": -1}, {"max_error": float("inf")}, {"quality": 101},
                                      {"max_rel_error": float("nan")}, {"lossless": True, "max_error": 1}], ids=str)  # fmt: skip
def test_requests_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Request(**settings)


def test_bounds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        plan(FIELD, {}, Request(max_error=np.ones((2, 5))))


def test_coordinates_are_known_by_index_by_attribute_and_by_units() -> None:
    dataset = weather().reset_coords("height")
    dataset["t2m"].attrs["coordinates"] = "height"
    dataset["nav_lat"] = (("lat", "lon"), np.zeros((20, 36)), {"units": "degrees_north"})
    dataset["time_bnds"] = (("time", "bnds"), np.zeros((3, 2)))
    dataset["t2m"].attrs["grid_mapping"] = "land"
    assert coordinates_of(dataset) == {"time", "lat", "lon", "height", "nav_lat", "time_bnds", "land"}


def test_fields_are_numbers_on_a_grid() -> None:
    yes = [((2, 2), "f4"), ((1, 3, 4), "f8"), ((5, 5), "i2"), ((5, 5), "u4")]
    no = [((5,), "f4"), ((), "f4"), ((4, 1), "f4"), ((1, 4), "f4"), ((5, 5), "i8"), ((5, 5), "S1"), ((0, 4, 4), "f4"), ((5, 5), "c8"), ((5, 5), "f2")]
    assert all(is_field(np.zeros(s, t)) for s, t in yes) and not any(is_field(np.zeros(s, t)) for s, t in no)
