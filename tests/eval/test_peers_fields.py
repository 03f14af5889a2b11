"""Peers of gridded fields: array and bound -> bytes -> array, missing points where they were, and what counts is what a chunk would hold."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.errors import FormatError, InputError, UnsupportedError
from latentpress.eval.metrics.fields_points import changed, exceedances, mask_errors
from latentpress.eval.peers.fields import BOUNDED, LOSSLESS, counted, not_available
from latentpress.eval.peers.fields_frame import frame, unframe

for module in ("h5py", "hdf5plugin", "numcodecs", "pcodec", "imagecodecs"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'latentpress[peers]'")


def field(*shape: int, dtype: type = np.float32, holes: bool = False) -> np.ndarray:
    x = np.random.default_rng(5).normal(size=shape)
    data = (250 + np.cumsum(np.cumsum(x, -1), -2) / 8).astype(dtype)
    if holes:
        data[..., 4:11, 6:20] = np.nan
    return data


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("shape", [(24, 40), (3, 24, 40), (2, 2, 16, 24)])
@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_peers_keep_shape_dtype_mask_and_bound(name, shape, holes):
    data = field(*shape, holes=holes)
    blob = BOUNDED[name].encode(data, 0.5)
    decoded = BOUNDED[name].decode(blob)
    assert decoded.shape == data.shape and decoded.dtype == data.dtype and mask_errors(data, decoded) == 0
    assert exceedances(data, decoded, 0.5 * 1.05) == 0  # SPERR may break its own bound by a few percent
    assert 0 < counted(blob) < data.nbytes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_peers_give_every_bit_back(name, dtype):
    data = field(3, 16, 24, dtype=dtype, holes=True)
    data[0, 0, :3] = (-0.0, np.nan, 1e-40)
    assert changed(data, LOSSLESS[name].decode(LOSSLESS[name].encode(data, 0))) == 0


def test_several_planes_are_coded_the_smaller_way():
    plane = field(32, 48)
    alike, unlike = np.stack([plane, plane, plane]), np.stack([plane, plane[::-1] * 3 + 500, field(48, 32).T - 900])
    assert BOUNDED["sz3"].about(BOUNDED["sz3"].encode(plane, 0.1)) == ""
    assert BOUNDED["sperr"].about(BOUNDED["sperr"].encode(alike, 0.1)) == "whole"
    for data in (alike, unlike):
        together = counted(BOUNDED["sz3"].encode(data, 0.1))
        assert together <= sum(counted(BOUNDED["sz3"].encode(p, 0.1)) for p in data)


def test_the_mask_is_counted_and_the_header_is_not():
    data = field(24, 40, holes=True)
    facts, (mask, payload) = unframe(BOUNDED["sz3"].encode(data, 0.5))
    assert facts["masked"] and counted(frame(facts, [mask, payload])) == len(mask) + len(payload)


def test_sz3_counts_the_bytes_of_one_hdf5_chunk(tmp_path):
    import h5py
    import hdf5plugin

    data = field(24, 40)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        size = file.create_dataset("d", data=data, chunks=data.shape, **hdf5plugin.SZ3(absolute=0.5)).id.get_chunk_info(0).size
    assert counted(BOUNDED["sz3"].encode(data, 0.5)) == size


@pytest.mark.parametrize("name", ["jpeg2000", "pcodec"])
def test_a_bound_that_asks_for_too_many_bits_is_refused(name):
    with pytest.raises(UnsupportedError, match="asks for more than"):
        BOUNDED[name].encode(field(24, 40), 1e-9)


def test_what_is_no_field_is_refused():
    peer = BOUNDED["sz3"]
    for data, bound in ((field(24, 40).astype(int), 1), (field(24, 40)[0], 1), (field(24, 40), -1), (field(24, 40), float("nan"))):
        with pytest.raises(InputError):
            peer.encode(data, bound)
    with pytest.raises(InputError, match="infinite"):
        peer.encode(np.where(field(24, 40) > 250, np.float32(np.inf), 0), 1)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40))
def test_damaged_frames_give_a_format_error(blob):
    with pytest.raises(FormatError):
        unframe(blob)


def test_frames_whose_sizes_are_wrong_give_a_format_error():
    whole = frame({"a": 1}, [b"one", b"two"])
    assert unframe(whole) == ({"a": 1}, [b"one", b"two"])
    head = json.dumps({"facts": {}, "sizes": [-1]}).encode()
    for damaged in (whole[:-1], whole + b"x", struct.pack("<I", len(head)) + head):
        with pytest.raises(FormatError):
            unframe(damaged)


def test_what_is_not_available_says_why():
    assert "ebcc" in not_available()
