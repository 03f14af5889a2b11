"""Hostile and damaged files of datasets: a typed error, or what is whole."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
import xarray

import latentpress
from latentpress import container
from latentpress.codecs.base import Chunk, Encoded
from latentpress.container import Limits
from latentpress.errors import FormatError, InputError, LatentpressError, LimitError
from latentpress.fields.reading import open_file
from tests.fields.datasets import packed, weather
from tests.hostile import mutations, parts_of, reseal, time_limit

LIMITS = Limits(samples=1 << 14, metadata_bytes=1 << 16, file_bytes=1 << 20)


def small() -> bytes:
    dataset = weather(times=2, rows=9, columns=17)
    dataset["packed"] = (dataset.sst.dims, packed(dataset.sst.values), {"_FillValue": np.int16(-32768), "scale_factor": 0.01})
    return latentpress.encode_dataset(dataset, lossless=True)


def everything(blob: bytes, **options: Any) -> None:
    with time_limit(8):
        file = open_file(blob, limits=LIMITS, **options)
        for v in file.description.variables:
            data = file.read(v.name)
            assert data.shape == v.shape
            if data.size and data.ndim:
                file.read(v.name, [slice(n // 3, n // 3 + 1) for n in v.shape])


@pytest.mark.parametrize("partial", [False, True])
def test_mutants_are_typed_errors_or_datasets_of_their_own_shape(partial: bool) -> None:
    refused = 0
    for bad in mutations(small(), 200, seed=5):
        try:
            everything(bad, partial=partial)
        except LatentpressError:
            refused += 1
    assert refused > 50


def described(change: Any, *, blob: bytes | None = None) -> bytes:
    """A file whose description was changed by hand."""
    file = container.read(blob or small())
    plain = json.loads(zlib.decompress(file.metadata["dataset"]))
    raw = change(plain)
    raw = raw if isinstance(raw, bytes) else json.dumps(plain).encode()
    return container.write(file.encoded, metadata={"dataset": zlib.compress(raw)})


def variable(plain: dict[str, Any], name: str = "t2m") -> dict[str, Any]:
    return next(v for v in plain["variables"] if v["name"] == name)


CHANGES: dict[str, Any] = {
    "two variables of one name": lambda p: variable(p).update(name="sst"),
    "an unknown dimension": lambda p: variable(p).update(dims=["time", "lat", "nowhere"]),
    "a dimension twice": lambda p: variable(p).update(dims=["lat", "lat", "lon"]),
    "another shape": lambda p: p["dims"].update(lat=8),
    "a negative size": lambda p: p["dims"].update(lat=-1),
    "a size of a fraction": lambda p: p["dims"].update(lat=8.5),
    "an endless size": lambda p: p["dims"].update(lat=2**63),
    "another type": lambda p: variable(p).update(dtype="<f8"),
    "an object": lambda p: variable(p, "station").update(dtype="|O"),
    "no type": lambda p: variable(p).update(dtype="nothing"),
    "a structure": lambda p: variable(p, "level").update(dtype="<f8,<f8"),
    "a codec of images": lambda p: variable(p).update(codec="walloc-rgb"),
    "a codec that is a path": lambda p: variable(p).update(codec="../../tmp"),
    "weights that are no number": lambda p: variable(p).update(digest="xyz"),
    "parameters that are texts": lambda p: variable(p).update(parameters={"side": "8"}),
    "parameters of another codec": lambda p: variable(p).update(parameters={"side": 2**40}),
    "a rank that is too high": lambda p: variable(p).update(rank=9),
    "a rank that is too low": lambda p: variable(p).update(rank=1),
    "attributes that are a list": lambda p: variable(p).update(attrs=[1]),
    "numbers that are none": lambda p: variable(p).update(attrs={"a": {"dtype": "int8", "value": ["x"]}}),
    "numbers that do not fit": lambda p: variable(p).update(attrs={"a": {"dtype": "int8", "value": [1000]}}),
    "no variables": lambda p: p.pop("variables"),
    "a variable less": lambda p: p["variables"].pop(),
    "unknown dimensions without limit": lambda p: p.update(unlimited=["nowhere"]),
    "a list": lambda p: b"[]",
    "NaN": lambda p: b'{"dims": {"a": NaN}}',
    "a name twice": lambda p: b'{"dims": {}, "dims": {}}',
    "nested too deep": lambda p: b"[" * 60000,
    "no JSON": lambda p: b"\xff\xfe",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_descriptions_that_lie_are_refused(name: str) -> None:
    with pytest.raises(LatentpressError):
        everything(described(CHANGES[name]))


def test_sizes_are_compared_with_the_limits_before_anything_is_made() -> None:
    def large(plain: dict[str, Any]) -> None:
        plain["dims"]["lat"] = 1 << 30

    file = open_file(described(large), limits=LIMITS)
    for name in ("t2m", "lat"):
        with pytest.raises(LimitError):
            file.read(name)
    bomb = zlib.compress(bytes(1 << 20))
    with pytest.raises(LimitError):
        open_file(container.write(container.read(small()).encoded, metadata={"dataset": bomb}), limits=LIMITS)


def test_files_without_a_dataset_are_named() -> None:
    image = latentpress.encode(np.zeros((8, 8, 3), np.uint8), codec="grid-rgb")
    with pytest.raises(InputError, match=r"latentpress\.decode"):
        latentpress.open_dataset(image)
    with pytest.raises(InputError, match="open_dataset"):
        latentpress.decode(small())
    empty = Encoded(codec="dataset", digest=b"", shape=(), dtype="uint8", dims=(), parameters={}, chunks=(Chunk(payload=b""),))
    with pytest.raises(FormatError, match="missing"):
        open_file(container.write(empty))


def damaged(blob: bytes, variable: str, position: tuple[int, ...]) -> bytes:
    """One bit of one chunk of one variable is wrong."""
    file = open_file(blob)
    entry = file.entries[(file.number(variable), *position, *(0,) * (file.width - 1 - len(position)))]
    at = entry.offset + entry.length - 1
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


@pytest.mark.parametrize("name, lost", [("t2m", np.nan), ("packed", -32768)])
def test_a_damaged_chunk_costs_only_its_block(name: str, lost: float) -> None:
    blob = small()
    bad = damaged(blob, name, (1, 0, 1))
    whole = latentpress.decode_dataset(blob, decode_cf=False)
    with pytest.raises(FormatError, match=f"{name}: chunk"):
        latentpress.decode_dataset(bad)
    back = latentpress.decode_dataset(bad, partial=True, decode_cf=False)
    expected = whole[name].values.copy()
    expected[1, 0:8, 8:16] = lost
    np.testing.assert_array_equal(back[name].values, expected)
    assert len(back.encoding["latentpress_damage"]) == 1 and name in back.encoding["latentpress_damage"][0]
    xarray.testing.assert_identical(back.drop_vars(name), whole.drop_vars(name))
    part = latentpress.open_dataset(bad, decode_cf=False)[name][0]
    np.testing.assert_array_equal(part.values, whole[name].values[0])  # nothing else is read


def test_a_cut_file_gives_what_is_in_front_of_the_cut() -> None:
    blob = small()
    file = open_file(blob)
    cut = blob[: file.entries[(file.number("sst"), 1, 0, 0)].offset + 3]
    with pytest.raises(FormatError):
        latentpress.decode_dataset(cut)
    back, whole = open_file(cut, partial=True), open_file(blob)
    np.testing.assert_array_equal(back.read("t2m"), whole.read("t2m"))
    np.testing.assert_array_equal(back.read("sst")[0], whole.read("sst")[0])
    assert np.isnan(back.read("sst")[1]).all() and list(back.read("station")) == ["", "", ""]
    assert any("end mark" in line for line in back.damage) and any("sst: chunk (1, 0, 0)" in line for line in back.damage)


def test_resealed_damage_in_an_exact_variable_is_found() -> None:
    blob = small()
    parts = parts_of(blob)
    assert parts is not None
    for start, crc, stop in parts.chunks[1:]:
        bad = bytearray(blob)
        bad[stop - 5] ^= 0x10
        assert start < crc < stop
        try:
            everything(reseal(bad))
        except LatentpressError:
            continue
