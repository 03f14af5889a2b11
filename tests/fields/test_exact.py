"""Values that no codec touches, and attributes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from latentpress.errors import FormatError, InputError, LatentpressError
from latentpress.fields.attributes import attribute_json, attribute_of
from latentpress.fields.exact import dtype_of, exact_array, exact_bytes

TYPES = ["<f4", ">f8", "|u1", "<i8", ">i2", "|b1", "|S1", "|S5", "<M8[ns]", "<m8[s]", "<c16", "<f2"]


@given(data=st.sampled_from(TYPES).flatmap(lambda t: hnp.arrays(t, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))))
@settings(deadline=None, max_examples=80)
def test_numbers_come_back_bit_for_bit(data: np.ndarray[Any, Any]) -> None:
    back = exact_array(exact_bytes(data), dtype_of(data), data.shape)
    assert back.dtype == data.dtype.newbyteorder("=") and back.shape == data.shape
    assert back.tobytes() == data.astype(data.dtype.newbyteorder("=")).tobytes()


@given(texts=st.lists(st.text(max_size=20), max_size=12))
@settings(deadline=None, max_examples=40)
def test_texts_come_back(texts: list[str]) -> None:
    data = np.empty(len(texts), object)
    data[:] = texts
    assert list(exact_array(exact_bytes(data), "text", data.shape)) == texts


@pytest.mark.parametrize("data", [np.array([1, "a", None], object), np.array([b"x"], object), np.zeros(2, "V4"), np.zeros(2, "S0")], ids=str)
def test_other_values_are_refused(data: np.ndarray[Any, Any]) -> None:
    if data.dtype.itemsize and data.dtype != "S1":
        with pytest.raises(InputError):
            dtype_of(data)


@given(noise=st.binary(max_size=60), shape=st.sampled_from([(), (3,), (2, 0), (4, 4)]),
       dtype=st.sampled_from(["<f4", "text", "<M8[ns]", "O", "V9", "<f5", ">f4"]))  # fmt: skip
@settings(deadline=None, max_examples=80)
def test_noise_is_a_typed_error(noise: bytes, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(FormatError):
        exact_array(noise, dtype, shape)


@pytest.mark.parametrize("value", [
    "K", "", "Å", 3, True, None, ["a", "b"], [], np.float32(0.1), np.float64("nan"), np.array([1.5, -np.inf, -0.0]), np.int16(-32768),
    np.array([2**63], np.uint64), {"a": [1, {"b": None}]}, b"\xff\0", np.array(["x", "y"]),
], ids=repr)  # fmt: skip
def test_attributes_come_back_with_their_types(value: Any) -> None:
    back = attribute_of(json.loads(json.dumps(attribute_json(value, "a"), allow_nan=False)), "a")
    np.testing.assert_equal(np.asarray(back).tolist(), np.asarray(value).tolist())
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind != "U":
        assert back.dtype == value.dtype


@given(stored=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                           lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "value", "a"]), x, max_size=3),
                           max_leaves=6))  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_hostile_attributes_are_values_or_typed_errors(stored: Any) -> None:
    with suppress(LatentpressError):
        attribute_of(stored, "a")
