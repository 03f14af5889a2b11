"""The circuit codec: whatever integers come, the same come back; damage is found; a model may travel in its file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from latentpress import api, container
from latentpress.codecs import registry
from latentpress.codecs.base import Signal, Target
from latentpress.codecs.circuit import DTYPES, Circuit, Columns
from latentpress.codecs.presets import read_preset, write_preset
from latentpress.container import Limits
from latentpress.entropy.circuit_pack import pack
from latentpress.errors import ChecksumError, FormatError, InputError, LatentpressError, UnsupportedError
from latentpress.inspect import symbols_sha256
from tests.circuits import random_mixture, register_circuit
from tests.helpers import python
from tests.hostile import mutations, time_limit

QUALITY = Target(quality=50)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register_circuit(monkeypatch)


def write(
    folder: Path, columns: int, *, low: int = 0, digits: int = 1, values: int = 7, states: int = 3, block: int = 16, clusters: int = 1
) -> Path:
    """An untrained preset: it codes badly, and exactly."""
    weights = pack(random_mixture(clusters, columns * digits, values, states, 1), bits=12)
    weights |= {"low": np.full(columns, low, np.int64), "digits": np.full(columns, digits, np.uint8)}
    if clusters > 1:
        weights["centres"] = np.random.default_rng(1).integers(0, values, (clusters, columns * digits)).astype(np.uint8)
    write_preset(folder, {"codec": "circuit", "sample_shape": [columns], "block": block, "licence": "Apache-2.0"}, weights)
    return folder


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("presets") / "twelve", 12, clusters=3)


@pytest.fixture(scope="module")
def codec(preset: Path) -> Circuit:
    return Circuit.from_preset(preset, "twelve")


def rows(count: int, columns: int = 12, high: int = 7, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, high, (count, columns)).astype(np.uint8)


def samples(data: NDArray[np.integer]) -> Signal:
    return api.as_samples(data)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_integers_come_back(data: st.DataObject, codec: Circuit) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(sorted(DTYPES))))
    info = np.iinfo(dtype)
    count = data.draw(st.sampled_from([0, 1, 2, 15, 16, 17, 40]))
    shape = data.draw(st.sampled_from([(12,), (3, 4), (1, 12), (2, 2, 3), (12, 1)]))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    wild = draw.integers(info.min, info.max, (count, *shape), dtype=dtype, endpoint=True)
    tame = draw.integers(0, 7, (count, *shape)).astype(dtype)
    array = np.where(draw.random(tame.shape) < data.draw(st.sampled_from([0.0, 0.05, 1.0])), wild, tame)
    encoded = codec.encode(samples(array), QUALITY)
    again = container.read(container.write(encoded)).encoded
    decoded = codec.decode(again)
    assert decoded.data.dtype == dtype and decoded.data.shape == array.shape and decoded.dims == samples(array).dims
    np.testing.assert_array_equal(decoded.data, array)
    assert codec.recode(again, codec.symbols(again)) == again


@pytest.mark.parametrize(
    ("low", "digits", "values", "dtype"), [(-300, 2, 30, np.int16), (10**12, 3, 10, np.int64), (-5, 8, 2, np.int8), (0, 4, 256, np.uint32)]
)
def test_wide_columns_are_coded_in_digits(tmp_path: Path, low: int, digits: int, values: int, dtype: type) -> None:
    codec = Circuit.from_preset(write(tmp_path / "wide", 3, low=low, digits=digits, values=values), "wide")
    edges = [low, low + 1, low + values**digits - 1, low + values**digits, low - 1]
    fit = [v for v in edges if np.iinfo(dtype).min <= v <= np.iinfo(dtype).max]
    array = np.random.default_rng(0).choice(np.array(fit, dtype), (50, 3))
    np.testing.assert_array_equal(codec.decode(codec.encode(samples(array), QUALITY)).data, array)


def test_columns_fit_their_data() -> None:
    images = Columns.fitting(rows(50, 4, 200), (2, 2))
    assert images.values == 256 and (images.low == 0).all() and (images.digits == 1).all()
    table = Columns.fitting(np.array([[-3, 0, 70_000], [4, 1, 0]]), (3,))
    assert table.values == 256 and table.low.tolist() == [-3, 0, 0] and table.digits.tolist() == [1, 1, 3]
    small = Columns.fitting(np.array([[5, 0], [9, 1]]), (2,))
    assert small.values == 5 and small.digits.tolist() == [1, 1]
    wide = np.array([[-(2**54), 1], [2**54, 1]])
    symbols, outside = Columns.fitting(wide, (2,)).symbols(wide)
    assert len(outside) == 0 and (Columns.fitting(wide, (2,)).integers(symbols) == wide).all()
    widest = np.array([[-(2**63)], [2**63 - 1]])
    assert len(Columns.fitting(widest, (1,)).symbols(widest)[1]) > 0  # left to patches


def test_a_block_alone_gives_what_the_whole_gives(preset: Path, tmp_path: Path, registered: None) -> None:
    array = rows(70)
    path = tmp_path / "file.lpz"
    path.write_bytes(api.encode(array, codec=preset, embed_model=True))
    for start, stop in ((0, 70), (0, 1), (15, 17), (16, 32), (33, 33), (69, 70), (70, 70)):
        np.testing.assert_array_equal(api.decode_samples(path, start, stop), array[start:stop])
    for start, stop in ((0, 71), (-1, 3), (5, 4)):
        with pytest.raises(InputError, match="the file holds 70"):
            api.decode_samples(path, start, stop)


def test_reading_a_block_reads_no_other(codec: Circuit) -> None:
    array = rows(70)
    encoded = codec.encode(samples(array), QUALITY)
    one = dataclasses.replace(encoded, chunks=encoded.chunks[2:3])
    np.testing.assert_array_equal(codec.decode_samples(one, 33, 47), array[33:47])


def test_missing_blocks_leave_zeros(codec: Circuit) -> None:
    array = rows(50) + 1
    encoded = codec.encode(samples(array), QUALITY)
    left = codec.decode(dataclasses.replace(encoded, chunks=(encoded.chunks[0], *encoded.chunks[2:]))).data
    np.testing.assert_array_equal(left[:16], array[:16])
    assert (left[16:32] == 0).all() and (left[32:] == array[32:]).all()


def test_samples_go_to_the_nearest_cluster_and_the_choice_is_kept(codec: Circuit) -> None:
    """The choice is free: a file that chose otherwise decodes to the same samples, and keeps its choice when it is coded again."""
    array = rows(40)
    encoded = codec.encode(samples(array), QUALITY)
    head = [int(flat[0]) for flat in codec.symbols(encoded)]
    assert head == [0, 0, 0]  # no patches: clusters follow
    chosen = np.concatenate([flat[1 : 1 + size] for flat, size in zip(codec.symbols(encoded), (16, 16, 8), strict=True)])
    distances = np.square(array[:, None].astype(int) - codec.centres[None].astype(int)).sum(2)
    assert (distances[np.arange(40), chosen] == distances.min(1)).all() and len(set(chosen.tolist())) == 3
    others = tuple(np.concatenate([flat[:1], (flat[1 : 1 + size] + 1) % 3, flat[1 + size :]]).astype(np.int32)
                   for flat, size in zip(codec.symbols(encoded), (16, 16, 8), strict=True))  # fmt: skip
    again = codec.recode(encoded, others)
    assert again != encoded and codec.recode(again, codec.symbols(again)) == again
    np.testing.assert_array_equal(codec.decode(again).data, array)


def test_threads_do_not_matter(codec: Circuit) -> None:
    array = rows(100)
    one = codec.encode(samples(array), QUALITY)
    torch.set_num_threads(2)
    assert codec.encode(samples(array), QUALITY) == one
    np.testing.assert_array_equal(codec.decode(one).data, array)
    assert torch.get_num_threads() == 2


def test_what_it_cannot_keep_is_refused_in_one_line(codec: Circuit, preset: Path) -> None:
    bad = [
        Signal(data=np.zeros((5, 12), np.float32), dims=("sample", "variable")),
        Signal(data=np.zeros((5, 12), np.uint64), dims=("sample", "variable")),
        Signal(data=np.zeros((5, 11), np.uint8), dims=("sample", "variable")), Signal(data=np.zeros((5, 3, 5), np.uint8), dims=("sample", "y", "x")),
        Signal(data=np.zeros((5, 12), np.uint8), dims=("y", "x")),
    ]  # fmt: skip
    for signal in bad:
        with pytest.raises(UnsupportedError, match="twelve") as refusal:
            codec.encode(signal, QUALITY)
        assert "\n" not in str(refusal.value)
    with pytest.raises(UnsupportedError, match="samples of 12 values, these have 11; train"):
        api.encode(rows(5, 11), codec=preset)
    with pytest.raises(UnsupportedError, match="lossless"):
        api.encode(rows(5), codec=preset, max_bytes=100)
    with pytest.raises(InputError, match="float32"):
        api.encode(np.zeros((5, 12), np.float32), codec=preset)
    with pytest.raises(UnsupportedError, match="embed-model"):
        api.encode(np.zeros((16, 16, 3), np.uint8), embed_model=True)


def test_a_block_that_decodes_to_anything_else_is_found(codec: Circuit) -> None:
    """Even where every checksum of the container is right."""
    encoded = codec.encode(samples(rows(30)), QUALITY)
    payload = bytearray(encoded.chunks[1].payload)
    payload[0] ^= 1
    bad = dataclasses.replace(encoded, chunks=(encoded.chunks[0], dataclasses.replace(encoded.chunks[1], payload=bytes(payload))))
    with pytest.raises(ChecksumError, match="SHA-256"):
        codec.decode(bad)


@pytest.mark.parametrize(
    "parameters", [{}, {"block": 0}, {"block": 1 << 30}, {"block": 16, "other": 1}, {"block": 16, "empty": 2}, {"block": 16, "empty": 1}]
)
def test_headers_that_do_not_fit_are_refused(codec: Circuit, parameters: dict[str, int]) -> None:
    encoded = dataclasses.replace(codec.encode(samples(rows(5)), QUALITY), parameters=parameters)
    with pytest.raises(FormatError, match="do not fit"):
        codec.places(encoded)


def test_a_model_travels_in_its_file(preset: Path) -> None:
    array = rows(20)
    alone, whole = api.encode(array, codec=preset), api.encode(array, codec=preset, embed_model=True)
    assert len(whole) > len(alone) + (preset / "weights.safetensors").stat().st_size
    np.testing.assert_array_equal(api.decode(whole).data, array)
    assert "model" not in api.decode(whole).meta and len(symbols_sha256(whole)) == 64
    with pytest.raises(LatentpressError, match="twelve"):
        api.decode(alone)  # a path is no installed name
    np.testing.assert_array_equal(api.decode(alone, codec=preset).data, array)
    header = container.read(whole)
    broken = container.write(header.encoded, metadata={"model": header.metadata["model"][:-1] + b"\1"})
    with pytest.raises(LatentpressError):
        api.decode(broken)
    other = container.write(dataclasses.replace(header.encoded, digest=b"12345678"), metadata=header.metadata)
    with pytest.raises(LatentpressError, match="needs the weights"):
        api.decode(other)


def test_broken_files_give_the_same_samples_or_an_error(preset: Path) -> None:
    array = rows(40)
    blob = api.encode(array, codec=preset, embed_model=True)
    good = 0
    for bad in mutations(blob, 250, seed=5):
        try:
            with time_limit(5):
                decoded = api.decode(bad, limits=Limits(samples=1 << 16)).data
        except LatentpressError:
            continue
        assert decoded.shape[1:] in ((12,), ()) or decoded.size == array.size
        good += bool(decoded.size == array.size and (decoded.ravel() == array.ravel()).all())
    assert good < 100


def test_wrong_weights_do_not_load(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", 4)
    preset = read_preset(folder, "p")
    changes = ({"low": np.zeros(3, np.int64)}, {"digits": np.zeros(4, np.uint8)}, {"low": np.full(4, 2**62)}, {"centres": np.zeros((2, 4), np.uint8)})
    for change in changes:
        with pytest.raises(FormatError):
            Circuit.from_parts(dataclasses.replace(preset, weights={**preset.weights, **change}))
    with pytest.raises(FormatError, match="no weights of a circuit"):
        Circuit.from_parts(dataclasses.replace(preset, weights={}))
    assert registry.load_codec(folder).describe()["parameters"] > 0


FRESH = """
import sys, hashlib, torch
sys.path.append(sys.argv[3])
import pytest
from tests.circuits import register_circuit
register_circuit(pytest.MonkeyPatch())
torch.set_num_threads(int(sys.argv[2]))
from latentpress import api, container
from latentpress.inspect import symbols_sha256
blob = open(sys.argv[1], "rb").read()
file = container.read(blob)
codec = api.codec_of(file.encoded, model=file.metadata["model"])
print(symbols_sha256(blob), codec.recode(file.encoded, codec.symbols(file.encoded)) == file.encoded, torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.parametrize("environment", [{}, {"ATEN_CPU_CAPABILITY": "default"}, {"MKL_CBWR": "COMPATIBLE"}], ids=lambda e: "-".join(e) or "plain")
def test_other_instruction_sets_in_a_fresh_process_do_not_matter(environment: dict[str, str], tmp_path: Path) -> None:
    preset = write(tmp_path / "big", 40, values=60, states=24, block=64)
    path = tmp_path / "file.lpz"
    path.write_bytes(api.encode(rows(150, 40, 60), codec=preset, embed_model=True))
    root = str(Path(__file__).parent.parent.parent)
    words = python(FRESH, str(path), "2", root, env=environment, check=True).stdout.decode().split()
    assert words[:2] == [symbols_sha256(path.read_bytes()), "True"]
    assert "ATEN_CPU_CAPABILITY" not in environment or words[2] in ("DEFAULT", "NO")
