"""latentpress as the serializer of Zarr 3 arrays, and as a numcodecs compressor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray
import zarr

from latentpress.errors import InputError, LatentpressError, UnsupportedError
from latentpress.plugins.numcodecs import Latentpress
from latentpress.plugins.zarr import LatentpressCodec
from tests.fields import standin
from tests.fields.datasets import packed, smooth, weather


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """By hand, for environments older than the tree."""
    zarr.registry.register_codec("latentpress", LatentpressCodec)
    numcodecs.register_codec(Latentpress)
    yield


def test_a_store_keeps_the_bound_and_opens_by_its_metadata_alone(tmp_path: Path) -> None:
    dataset = weather()[["t2m", "sst"]]
    codecs = {"t2m": LatentpressCodec(max_error=0.5), "sst": LatentpressCodec(max_rel_error=3e-3)}
    dataset.to_zarr(tmp_path / "a.zarr", consolidated=False,
                    encoding={k: {"serializer": c, "compressors": None, "chunks": (2, 20, 36)} for k, c in codecs.items()})  # fmt: skip
    back = xarray.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False).load()
    assert 0 < float(abs(back.t2m - dataset.t2m).max()) <= 0.5
    assert 0 < float((abs(back.sst - dataset.sst) / abs(dataset.sst)).max()) <= 3e-3
    assert (back.sst.isnull() == dataset.sst.isnull()).all()
    stored = json.loads((tmp_path / "a.zarr/t2m/zarr.json").read_text())["codecs"]
    assert stored == [{"name": "latentpress", "configuration": {"max_error": 0.5, "codec": "lattice"}}]
    assert (tmp_path / "a.zarr/t2m/c/0/0/0").read_bytes().startswith(b"LPZ")


@pytest.mark.parametrize("settings", [
    {}, {"max_error": 0.25}, {"max_rel_error": 1e-3, "effort": 4}, {"quality": 30.0, "fill": -32768},
    {"max_error": 1.0, "scale_factor": 0.01, "add_offset": 3.0},
], ids=str)  # fmt: skip
def test_a_configuration_survives_json(settings: dict[str, Any]) -> None:
    codec = LatentpressCodec(**settings)
    assert LatentpressCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    other = Latentpress(**settings)
    assert numcodecs.get_codec(json.loads(json.dumps(other.get_config()))) == other


def test_it_is_an_inner_codec_of_shards(tmp_path: Path) -> None:
    data = smooth(4, 16, 24)
    array = zarr.create_array(tmp_path / "s.zarr", shape=data.shape, chunks=(1, 8, 8), shards=(2, 16, 24), dtype="float32",
                              serializer=LatentpressCodec(max_error=0.25), compressors=None)  # fmt: skip
    array[:] = data
    standin.DECODED.clear()
    back = zarr.open_array(tmp_path / "s.zarr")
    part = back[1, 3:6, 9:15]
    assert sum(standin.DECODED.values()) == 1
    assert 0 < abs(part - data[1, 3:6, 9:15]).max() <= 0.25


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2", ">i2", "|u1", "<u4"])
def test_without_settings_every_bit_comes_back_whatever_the_byte_order(dtype: str, tmp_path: Path) -> None:
    data = (smooth(20, 30) * 0.9).astype(dtype)
    array = zarr.create_array(tmp_path / "a.zarr", shape=data.shape, chunks=(7, 30), dtype=dtype, serializer=LatentpressCodec())
    array[:] = data
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr")[:], data)


def test_packed_integers_are_bounded_in_their_units_and_keep_their_fill(tmp_path: Path) -> None:
    data = packed(weather().sst.values)
    codec = LatentpressCodec(max_error=0.05, scale_factor=0.01, add_offset=280.0, fill=-32768)
    array = zarr.create_array(tmp_path / "a.zarr", shape=data.shape, chunks=data.shape, dtype="int16", serializer=codec)
    array[:] = data
    back = array[:]
    assert abs(back.astype(int) - data).max() == 5 and ((back == -32768) == (data == -32768)).all()


def test_what_it_does_not_code_is_refused_when_the_array_is_made(tmp_path: Path) -> None:
    for number, (dtype, shape) in enumerate([("int64", (4, 4)), ("complex64", (4, 4)), ("float32", ())]):
        with pytest.raises(UnsupportedError, match="leave this array to another codec"):
            zarr.create_array(tmp_path / f"{number}.zarr", shape=shape, dtype=dtype, serializer=LatentpressCodec())


SENSELESS = [{"max_error": 1.0, "quality": 3.0}, {"max_error": float("nan")}, {"max_error": -1.0}, {"fill": "x"}, {"codec": ""}]


@pytest.mark.parametrize("settings", SENSELESS, ids=str)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    for cls in (LatentpressCodec, Latentpress):
        with pytest.raises(InputError):
            cls(**settings)
    with pytest.raises(InputError, match="unknown setting"):
        Latentpress.from_config({"id": "latentpress", "maxerror": 1.0})


# ---- numcodecs


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_zarr_2_array_keeps_its_shape_and_order(order: str, tmp_path: Path) -> None:
    data = smooth(3, 20, 30)
    array = zarr.create_array(tmp_path / "a.zarr", shape=data.shape, chunks=(2, 20, 30), dtype="float32", zarr_format=2, order=order,
                              filters=None, compressors=Latentpress(max_error=0.25))  # fmt: skip
    array[:] = data
    assert 0 < abs(zarr.open_array(tmp_path / "a.zarr")[:] - data).max() <= 0.25


def test_a_numcodecs_codec_gives_back_shape_type_and_order() -> None:
    data = smooth(3, 20, 30)
    codec = numcodecs.get_codec({"id": "latentpress", "max_error": 0.1})
    back = codec.decode(codec.encode(data))
    assert back.shape == data.shape and back.dtype == data.dtype and abs(back - data).max() <= 0.1
    out = np.empty_like(data)
    codec.decode(codec.encode(data), out=out)
    np.testing.assert_array_equal(out, back)
    assert codec.decode(codec.encode(np.asfortranarray(data))).flags.f_contiguous


def test_damaged_chunks_are_typed_errors(tmp_path: Path) -> None:
    codec = Latentpress()
    blob = codec.encode(smooth(20, 30))
    for at in range(0, len(blob), 7):
        with pytest.raises(LatentpressError):
            codec.decode(blob[:at] + bytes([blob[at] ^ 0x55]) + blob[at + 1 :])
