"""The contract: what holds for every codec and preset that is installed. A new codec joins by being registered."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from latentpress import api, container
from latentpress.codecs import registry
from latentpress.codecs.base import Codec, Signal, Target
from latentpress.codecs.presets import read_description
from latentpress.errors import MissingPresetError, UnsupportedError
from tests.helpers import deep, natural, psnr

NAMES = registry.names()
SIZES = [(1, 1), (1, 7), (16, 16), (63, 65), (130, 257), (8, 1031)]
DIMS = ("y", "x", "band")


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> Codec:
    codec = registry.load_codec(request.param)
    if codec.domain != "image":
        pytest.skip("this battery feeds images")
    return codec


def signal(data: np.ndarray) -> Signal:
    return Signal(data=data, dims=DIMS[: data.ndim])


def test_there_is_something_to_test() -> None:
    assert {"walloc-rgb", "walloc-rgb-16x", "walloc-rgb-4x"} <= set(NAMES)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_goes_through_bytes(codec: Codec, size: tuple[int, int]) -> None:
    image = natural(*size)
    decoded = api.decode(api.encode(image, codec=codec.name))
    assert decoded.data.shape == image.shape and decoded.data.dtype == image.dtype and decoded.dims == DIMS
    assert psnr(image, decoded.data) > 20


@pytest.mark.parametrize("kind", ["gray 2-D", "gray", "16 bits", "16-bit gray"])
def test_every_kind_of_samples_comes_back_as_it_was(codec: Codec, kind: str) -> None:
    image = natural(40, 56)
    gray = image.mean(2).astype(np.uint8)
    data = {"gray 2-D": gray, "gray": gray[:, :, None], "16 bits": deep(image), "16-bit gray": deep(gray)}[kind]
    decoded = api.decode(api.encode(data, codec=codec.name))
    assert decoded.data.shape == data.shape and decoded.data.dtype == data.dtype
    assert psnr(data, decoded.data) > 22


def test_what_it_cannot_keep_is_refused(codec: Codec) -> None:
    for bad in (
        Signal(data=np.zeros((8, 8, 3), np.float32), dims=DIMS),
        Signal(data=np.zeros((8, 8, 2), np.uint8), dims=DIMS),
        Signal(data=np.zeros((8, 8, 3), np.uint8), dims=("time", "x", "band")),
        Signal(data=np.zeros((0, 8, 3), np.uint8), dims=DIMS),
    ):
        with pytest.raises(UnsupportedError) as refusal:
            codec.encode(bad, Target(quality=50))
        assert codec.name.split("-")[0] in str(refusal.value) and "\n" not in str(refusal.value)


def test_symbols_coded_again_give_the_same_bytes(codec: Codec) -> None:
    encoded = codec.encode(signal(natural(72, 100)), Target(quality=60))
    symbols = codec.symbols(encoded)
    assert all(s.dtype == np.int32 and s.ndim == 1 for s in symbols) and sum(len(s) for s in symbols) > 50
    assert codec.recode(encoded, symbols) == encoded


def test_order_and_company_do_not_matter(codec: Codec) -> None:
    images = [natural(40, 50), natural(64, 64, top=0, left=0), natural(33, 20)]
    together = [api.encode(i, codec=codec.name) for i in images]
    assert [api.encode(i, codec=codec.name) for i in reversed(images)] == together[::-1]
    first = [api.decode(b).data for b in together]
    again = [api.decode(b).data for b in reversed(together)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_estimated_and_real_bits_agree(codec: Codec) -> None:
    core = getattr(codec, "core", None)
    if core is None or not hasattr(core, "bits"):
        pytest.skip("no estimate")
    image = natural(448, 512, top=0, left=0)
    level = getattr(core, "max_level", 0)
    samples = core.to_samples(image)
    import torch

    with torch.no_grad():
        quantised = core.quantise(core.analyse(samples), level)
        real = 8 * len(core.pack(quantised))
    assert real > 8 * 10_000
    assert core.bits(quantised) == pytest.approx(real, rel=0.01)


def test_better_quality_costs_more_and_is_better() -> None:
    image = natural(128, 160)
    blobs = [api.encode(image, quality=q) for q in (0, 12.5, 30, 55, 80, 100)]
    sizes, qualities = [len(b) for b in blobs], [psnr(image, api.decode(b).data) for b in blobs]
    assert sizes == sorted(set(sizes)) and qualities == sorted(set(qualities))


def test_the_config_in_the_preset_is_the_config_that_loads(codec: Codec) -> None:
    directory = registry.preset_directories().get(codec.name)
    if directory is None:
        pytest.skip("no preset")
    description = read_description(directory)
    assert description["codec"] == codec.id
    core = getattr(codec, "core", None)
    if core is not None and hasattr(core, "config"):
        config = core.config
        assert type(config)(**dataclasses.asdict(config)) == config


def test_other_weights_are_refused_by_name(codec: Codec) -> None:
    encoded = codec.encode(signal(natural(16, 16)), Target(quality=50))
    blob = container.write(dataclasses.replace(encoded, digest=b"\1\2\3\4\5\6\7\x08"))
    with pytest.raises(MissingPresetError, match="0102030405060708"):
        api.decode(blob)


def test_facts_are_told(codec: Codec) -> None:
    if not codec.digest:
        pytest.skip("no weights")
    facts = codec.describe()
    assert facts["parameters"] > 0 and facts["weight_bytes"] < 5_000_000 and facts["licence"] == "Apache-2.0"


def test_an_unknown_name_hints_at_the_nearest() -> None:
    with pytest.raises(MissingPresetError, match="did you mean 'walloc-rgb'"):
        registry.load_codec("waloc-rgb")


@pytest.mark.parametrize("target", [{"max_bytes": 1500}, {"bpp": 0.5}])
def test_files_stay_within_what_was_asked_and_use_it(target: dict[str, float]) -> None:
    image = natural(128, 160)
    budget = target.get("max_bytes") or target["bpp"] * 128 * 160 / 8
    size = len(api.encode(image, **target))  # type: ignore[arg-type]
    assert 0.95 * budget < size <= budget


def test_psnr_that_was_asked_is_reached_at_little_more() -> None:
    image = natural(128, 160)
    got = psnr(image, api.decode(api.encode(image, psnr=36)).data)
    assert 36 <= got < 36.3


@pytest.mark.parametrize("target", [{"max_bytes": 60}, {"psnr": 70}, {"bpp": 0.001}])
def test_targets_out_of_reach_say_so(target: dict[str, float]) -> None:
    with pytest.raises(UnsupportedError, match=r"out of reach|cannot hold"):
        api.encode(natural(64, 64), **target)  # type: ignore[arg-type]
