"""CompressAI's models as codecs: their symbols, their rates and pixels, our files. One file, as importing CompressAI takes 10 s or more."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import pickle
import shutil
import urllib.error
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentpress import api, container
from latentpress.codecs import registry
from latentpress.codecs.base import Chunk, Encoded, Signal, Target
from latentpress.codecs.compressai import CompressAICodec
from latentpress.codecs.compressai_zoo import ARCHITECTURES
from latentpress.codecs.presets import read_description, read_preset, write_preset
from latentpress.errors import FormatError, InputError, LatentpressError, LimitError, MissingPresetError, UnsupportedError
from tests.helpers import deep, natural, psnr

pytestmark = pytest.mark.skipif(importlib.util.find_spec("compressai") is None, reason="CompressAI is not installed (make peers-env)")
DIMS = ("y", "x", "band")
AUTOREGRESSIVE = ("mbt2018", "cheng2020-anchor", "cheng2020-attn")
MEAN, FACTORIZED = "mbt2018-mean", "bmshj2018-factorized"


def signal(data: np.ndarray) -> Signal:
    return Signal(data=data, dims=DIMS[: data.ndim])


@cache
def model(architecture: str, seed: int = 0) -> Any:
    """Random weights; the last layers are scaled so that latents, scales and pixels spread as those of a trained model. Not to be changed."""
    from latentpress.codecs.compressai_zoo import model_class

    torch.manual_seed(seed)
    sizes = {"N": 16} if architecture.startswith("cheng2020") else {"N": 16, "M": 24}
    made = model_class(architecture)(**sizes).eval()
    with torch.no_grad():
        y = made.g_a(torch.from_numpy(natural(64, 128)).permute(2, 0, 1)[None] / 255)
        scale(last_layer(made.g_a), 3 / y.std())
        if hasattr(made, "h_s"):
            last = made.entropy_parameters[-1] if architecture in AUTOREGRESSIVE else last_layer(made.h_s)
            last.bias[: y.shape[1]] = torch.linspace(1, 5, y.shape[1])  # standard deviations
        pixels = made.g_s(torch.round(3 * y / y.std()))
        scale(last_layer(made.g_s), 0.2 / pixels.std())
        last_layer(made.g_s).bias += 0.5
        made.entropy_bottleneck.quantiles[:, 0, 1] += torch.linspace(-0.4, 0.4, len(made.entropy_bottleneck.quantiles))
    made.update()
    return made


def last_layer(network: Any) -> Any:
    """The last convolution that stands in a line with the others, not inside an attention block."""
    from compressai.layers import AttentionBlock

    inside = {id(m) for block in network.modules() if isinstance(block, AttentionBlock) for m in block.modules()}
    return [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d) and id(m) not in inside][-1]


def scale(layer: Any, factor: Any) -> None:
    layer.weight.mul_(factor)
    layer.bias.mul_(factor)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Preset folders of `model`, made once."""
    from latentpress.codecs.compressai_preset import freeze_model

    root = tmp_path_factory.mktemp("presets")

    def made(architecture: str, seed: int = 0) -> Path:
        directory = root / f"{architecture}-{seed}"
        if not directory.exists():
            freeze_model(model(architecture, seed), directory, lmbda=0.01 * (seed + 1))
        return directory

    return made


@pytest.fixture(scope="module")
def codec(preset: Callable[..., Path]) -> Callable[[str], CompressAICodec]:
    return cache(lambda architecture: CompressAICodec.from_preset(preset(architecture), "mine"))


def encode(codec: CompressAICodec, image: np.ndarray) -> Encoded:
    """Through the bytes of a file."""
    return container.read(container.write(codec.encode(signal(image), Target(quality=50)))).encoded


# ---- the same as CompressAI


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_gives_here_the_pixels_and_the_rate_that_it_gives_in_compressai(architecture: str, codec: Any) -> None:
    own, image = codec(architecture), natural(128, 128)
    encoded = encode(own, image)
    (symbols,) = own.symbols(encoded)
    assert np.abs(symbols).max() > 2 and (symbols != 0).mean() > 0.2

    samples = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        packed = model(architecture).compress(samples)
        theirs = model(architecture).decompress(**packed)["x_hat"]
        ours = own.coding(0).synthesise(own.latents(encoded)).clamp(0, 1)
    assert theirs.std() > 0.01 and (ours - theirs).abs().max() < 1e-4
    size = sum(len(string[0]) for string in packed["strings"])
    assert size > 300 and len(encoded.chunks[0].payload) == pytest.approx(size, rel=0.02)

    decoded = own.decode(encoded)
    assert decoded.data.shape == image.shape and decoded.data.dtype == np.uint8
    assert np.abs(decoded.data - theirs[0].permute(1, 2, 0).numpy() * 255).max() < 0.53
    assert own.recode(encoded, (symbols,)) == encoded
    assert own.latents(encoded).shape == (1, 16 if architecture.startswith("cheng2020") else 24, 8, 8)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 3), (33, 130)], ids=str)
@pytest.mark.parametrize("architecture", [FACTORIZED, MEAN, "mbt2018"])
def test_every_size_goes_through_bytes(architecture: str, size: tuple[int, int], codec: Any) -> None:
    own, image = codec(architecture), natural(*size)
    encoded = encode(own, image)
    assert own.places(encoded) == 1 and own.decode(encoded).data.shape == image.shape
    assert own.recode(encoded, own.symbols(encoded)) == encoded


def test_padding_repeats_the_edge(codec: Any) -> None:
    image = natural(50, 100)
    whole = np.pad(image, ((0, 14), (0, 28), (0, 0)), mode="edge")
    assert encode(codec(MEAN), image).chunks == encode(codec(MEAN), whole).chunks
    assert np.array_equal(codec(MEAN).decode(encode(codec(MEAN), image)).data, codec(MEAN).decode(encode(codec(MEAN), whole)).data[:50, :100])


@pytest.mark.parametrize("kind", ["gray 2-D", "gray", "16 bits", "16-bit gray"])
def test_every_kind_of_samples_comes_back_as_it_was(kind: str, codec: Any) -> None:
    image = natural(40, 56)
    gray = image.mean(2).astype(np.uint8)
    data = {"gray 2-D": gray, "gray": gray[:, :, None], "16 bits": deep(image), "16-bit gray": deep(gray)}[kind]
    decoded = codec(FACTORIZED).decode(encode(codec(FACTORIZED), data))
    assert decoded.data.shape == data.shape and decoded.data.dtype == data.dtype and decoded.data.std() > 0


def test_symbols_do_not_depend_on_the_number_of_threads(codec: Any) -> None:
    image = natural(64, 64)
    for architecture in (MEAN, "mbt2018"):
        encoded = encode(codec(architecture), image)
        one = codec(architecture).symbols(encoded)
        torch.set_num_threads(2)
        assert np.array_equal(codec(architecture).symbols(encoded)[0], one[0]) and torch.get_num_threads() == 2
        torch.set_num_threads(1)
    assert not CompressAICodec.exact and codec(MEAN).describe()["exact"] is False
    assert "slow" in codec("mbt2018").describe() and "slow" not in codec(MEAN).describe()


def test_waves_visit_every_position_once_and_after_all_that_it_sees(codec: Any) -> None:
    coding, (h, w) = codec("mbt2018").coding(0), (5, 7)
    wave_of = {(int(i), int(j)): n for n, (y, x) in enumerate(coding.waves((h, w))) for i, j in zip(y, x, strict=True)}
    assert len(wave_of) == h * w == sum(len(y) for y, _ in coding.waves((h, w)))
    for (y, x), wave in wave_of.items():
        for dy, dx in zip(*(axis.tolist() for axis in coding.taps), strict=True):
            seen = (y + dy - coding.reach, x + dx - coding.reach)
            assert seen not in wave_of or wave_of[seen] < wave


# ---- bad bytes


def broken(payload: bytes) -> Iterator[bytes]:
    random = np.random.default_rng(5)
    yield from (b"", b"\0" * 8, payload[:-4], payload[:-3], payload[4:], payload[: len(payload) // 8 * 4])
    yield from (payload + b"\1\0\0\0", b"\xff" * len(payload))
    for _ in range(12):
        flipped = bytearray(payload)
        flipped[random.integers(len(payload))] ^= 1 << random.integers(8)
        yield bytes(flipped)


@pytest.mark.parametrize("architecture", [FACTORIZED, MEAN, "mbt2018"])
def test_damaged_payloads_are_said_or_decode_to_something(architecture: str, codec: Any) -> None:
    own = codec(architecture)
    encoded = encode(own, natural(40, 64))
    said = 0
    for payload in broken(encoded.chunks[0].payload):
        damaged = dataclasses.replace(encoded, chunks=(Chunk(payload=payload),))
        try:
            assert own.decode(damaged).data.shape == (40, 64, 3)
        except FormatError as error:
            said += "\n" not in str(error)
    assert said >= 6  # a flipped bit may give other symbols that end where they should


def test_headers_that_do_not_fit_are_refused(codec: Any) -> None:
    own = codec(FACTORIZED)
    encoded = encode(own, natural(16, 16))
    for change in (
        {"parameters": {"level": 1}}, {"parameters": {}}, {"parameters": {"level": 0, "tile": 64}}, {"dims": ("y", "band", "x")},
        {"chunks": encoded.chunks * 2}, {"chunks": (Chunk(payload=b"", position=(0, 1)),)},
    ):  # fmt: skip
        with pytest.raises(FormatError):
            own.decode(dataclasses.replace(encoded, **change))
    with pytest.raises(LimitError, match="no tiles"):
        own.decode(dataclasses.replace(encoded, shape=(1, 1 << 21, 3)))
    with pytest.raises(LimitError, match="no tiles"):
        own.encode(signal(np.zeros((1, 1 << 21, 3), np.uint8)), Target(quality=50))
    with pytest.raises(UnsupportedError, match="float32"):
        own.decode(dataclasses.replace(encoded, dtype="float32"))
    gray = own.decode(dataclasses.replace(encoded, chunks=())).data
    assert gray.shape == (16, 16, 3) and (gray == 128).all()


def test_what_it_cannot_keep_is_refused(codec: Any) -> None:
    for bad in (
        Signal(data=np.zeros((8, 8, 3), np.float32), dims=DIMS),
        Signal(data=np.zeros((8, 8, 2), np.uint8), dims=DIMS),
        Signal(data=np.zeros((8, 8, 3), np.uint8), dims=("time", "x", "band")),
        Signal(data=np.zeros((0, 8, 3), np.uint8), dims=DIMS),
    ):
        with pytest.raises(UnsupportedError, match="mine"):
            codec(FACTORIZED).encode(bad, Target(quality=50))


# ---- one rate, and ladders of rates


@pytest.mark.parametrize("target", [{"quality": 80}, {"bpp": 1.0}, {"psnr": 30}, {"max_bytes": 1000}])
def test_one_model_has_one_rate_and_says_so(target: dict[str, Any], codec: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"one fixed .*ladder"):
        codec(FACTORIZED).encode(signal(natural(16, 16)), Target(**target))


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rungs whose latents are 1/4, 1 and 4 times as large."""
    from latentpress.codecs.compressai_ladder import combine
    from latentpress.codecs.compressai_preset import freeze_model

    root = tmp_path_factory.mktemp("ladder")
    for i in (2, 0, 1):
        rung = copy.deepcopy(model(FACTORIZED))
        with torch.no_grad():
            scale(rung.g_a[6], 4.0 ** (i - 1))
        freeze_model(rung, root / f"rung{i}", lmbda=0.01 * 4**i)
    combine(root / "whole", [root / f"rung{i}" for i in (2, 0, 1)])
    return root


def test_quality_picks_the_nearest_rung_in_the_order_of_lambda(ladder: Path) -> None:
    own, image = CompressAICodec.from_preset(ladder / "whole", "ladder"), signal(natural(64, 64))
    levels = [own.encode(image, Target(quality=q)).parameters["level"] for q in (0, 20, 30, 50, 70, 80, 100)]
    assert levels == [0, 0, 1, 1, 1, 2, 2]
    for i, quality in enumerate((0, 50, 100)):
        alone = CompressAICodec.from_preset(ladder / f"rung{i}", "alone").encode(image, Target(quality=50))
        encoded = own.encode(image, Target(quality=quality))
        assert encoded.chunks == alone.chunks and own.recode(encoded, own.symbols(encoded)) == encoded
    assert [r["lambda"] for r in read_description(ladder / "whole")["rungs"]] == [0.01, 0.04, 0.16]


def test_targets_search_the_rungs(ladder: Path) -> None:
    own, image = CompressAICodec.from_preset(ladder / "whole", "ladder"), natural(96, 96)
    sizes = [len(own.encode(signal(image), Target(quality=q)).chunks[0].payload) for q in (0, 50, 100)]
    assert sizes == sorted(set(sizes))
    for budget, level in ((sizes[2], 2), (sizes[2] - 50, 1), (sizes[1], 1), (sizes[0], 0)):
        assert own.encode(signal(image), Target(max_bytes=budget)).parameters["level"] == level
    with pytest.raises(UnsupportedError, match="out of reach"):
        own.encode(signal(image), Target(max_bytes=sizes[0] - 1))
    best = psnr(image, own.decode(own.encode(signal(image), Target(quality=100))).data)
    assert psnr(image, own.decode(own.encode(signal(image), Target(psnr=best - 1e-6))).data) >= best - 1e-6
    with pytest.raises(UnsupportedError, match="out of reach"):
        own.encode(signal(image), Target(psnr=best + 0.1))


def test_a_ladder_frozen_at_once_is_the_one_that_was_combined(ladder: Path, tmp_path: Path) -> None:
    from latentpress.codecs.compressai_ladder import combine
    from latentpress.codecs.compressai_preset import Rung, freeze_ladder, load_rung

    whole = read_preset(ladder / "whole", "whole")
    freeze_ladder([Rung(model=load_rung_with_tables(ladder / f"rung{i}"), lmbda=0.01 * 4**i) for i in range(3)], tmp_path / "frozen")
    assert read_preset(tmp_path / "frozen", "frozen").digest == whole.digest
    combine(tmp_path / "again", [ladder / "whole"])
    assert read_preset(tmp_path / "again", "again").digest == whole.digest
    assert load_rung(whole, 2)[0].g_a[6].weight.abs().max() > load_rung(whole, 0)[0].g_a[6].weight.abs().max() * 15


def load_rung_with_tables(directory: Path) -> Any:
    from latentpress.codecs.compressai_preset import load_rung

    made, _ = load_rung(read_preset(directory, "rung"), 0)
    made.update()
    return made


def test_rungs_that_do_not_belong_together_are_named(ladder: Path, preset: Any, tmp_path: Path) -> None:
    from latentpress.codecs.compressai_ladder import combine

    with pytest.raises(InputError, match=rf"{FACTORIZED}.*{MEAN}"):
        combine(tmp_path / "out", [ladder / "rung0", preset(MEAN)])
    with pytest.raises(InputError, match="walloc-rgb"):
        combine(tmp_path / "out", [ladder / "rung0", registry.preset_directories()["walloc-rgb"]])
    with pytest.raises(InputError, match="already"):
        combine(ladder / "whole", [ladder / "rung0"])
    assert not (tmp_path / "out").exists()


# ---- presets


def test_presets_that_do_not_fit_say_so(preset: Any, tmp_path: Path) -> None:
    good = read_preset(preset(FACTORIZED), "good")
    for change, words in (
        ({"rungs": []}, "rungs"), ({"rungs": [{"arguments": {"N": 8, "M": 24}}]}, "does not fit bmshj2018-factorized"),
        ({"architecture": MEAN}, "does not fit mbt2018-mean"), ({"rungs": [{"arguments": {"K": 1}}]}, "does not fit"),
    ):  # fmt: skip
        write_preset(tmp_path / "bad", {**good.description, **change}, good.weights)
        with pytest.raises(FormatError, match=words):
            CompressAICodec.from_preset(tmp_path / "bad", "bad").encode(signal(natural(16, 16)), Target(quality=50))
    write_preset(tmp_path / "bad", {**good.description, "architecture": "mbt2018-maen"}, good.weights)
    with pytest.raises(UnsupportedError, match="did you mean 'mbt2018-mean'"):
        CompressAICodec.from_preset(tmp_path / "bad", "bad").encode(signal(natural(16, 16)), Target(quality=50))


def test_weights_that_are_not_finite_are_not_frozen(tmp_path: Path) -> None:
    from latentpress.codecs.compressai_preset import freeze_model

    bad = copy.deepcopy(model(FACTORIZED))
    with torch.no_grad():
        bad.g_s[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"g_s\.0\.weight.*not finite"):
        freeze_model(bad, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_users_classes_are_coded_when_they_code_as_compressai_does(tmp_path: Path) -> None:
    from compressai.registry import register_model

    from latentpress.codecs.compressai_preset import freeze_model

    mean_scale = type(model(MEAN))

    class Narrow(mean_scale):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(N=8, M=12)

    freeze_model(Narrow().eval(), tmp_path / "narrow")
    assert read_description(tmp_path / "narrow")["architecture"] == MEAN

    class Other(mean_scale):  # type: ignore[misc, valid-type]
        def __init__(self, N: int, M: int, kernel: int = 3) -> None:
            super().__init__(N, M)
            self.g_s[6] = torch.nn.Sequential(self.g_s[6], torch.nn.Conv2d(3, 3, kernel, padding=kernel // 2))

    other = Other(8, 12, 7).eval()
    with pytest.raises(UnsupportedError, match=r"Other.*register"):
        freeze_model(other, tmp_path / "other")
    register_model("test-other")(Other)
    freeze_model(other, tmp_path / "other", arguments={"N": 8, "M": 12, "kernel": 7})
    own = CompressAICodec.from_preset(tmp_path / "other", "other")
    encoded = encode(own, natural(64, 64))
    with torch.no_grad():
        assert torch.allclose(other.g_s(own.latents(encoded)), own.coding(0).synthesise(own.latents(encoded)), atol=1e-5)

    class Another(mean_scale):  # type: ignore[misc, valid-type]
        def compress(self, x: Any) -> Any:
            return super().compress(x / 2)

    with pytest.raises(UnsupportedError, match=r"Another.*compress"):
        freeze_model(Another(8, 12).eval(), tmp_path / "another")


# ---- checkpoints


def checkpoint(path: Path, architecture: str, **more: Any) -> Path:
    """As CompressAI's training example writes it, with DataParallel."""
    state = {f"module.{k}": v for k, v in model(architecture).state_dict().items()}
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).state_dict()
    torch.save({"epoch": 3, "state_dict": state, "loss": 1.5, "optimizer": optimiser, **more}, path)
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_architecture_of_a_state_dict_is_told(architecture: str) -> None:
    from latentpress.codecs.compressai_zoo import guessed_architecture

    assert guessed_architecture(model(architecture).state_dict()) == architecture
    assert guessed_architecture({"weight": torch.zeros(1)}) is None


@pytest.mark.parametrize("name", [None, MEAN])
def test_a_checkpoint_becomes_a_preset(name: str | None, codec: Any, tmp_path: Path) -> None:
    from latentpress.codecs.compressai_checkpoint import freeze_checkpoint

    freeze_checkpoint(checkpoint(tmp_path / "best.pth.tar", MEAN), tmp_path / "preset", architecture=name)
    own = CompressAICodec.from_preset(tmp_path / "preset", "mine")
    image = natural(64, 64)
    assert encode(own, image).chunks == encode(codec(MEAN), image).chunks
    description = read_description(tmp_path / "preset")
    assert description["architecture"] == MEAN and description["rungs"][0]["arguments"] == {"N": 16, "M": 24}
    assert description["rungs"][0]["provenance"]["checkpoint"] == "best.pth.tar"


def test_tables_of_a_checkpoint_are_made_anew(codec: Any, tmp_path: Path) -> None:
    from latentpress.codecs.compressai_checkpoint import freeze_checkpoint

    stale = copy.deepcopy(model(FACTORIZED))
    with torch.no_grad():
        stale.entropy_bottleneck.quantiles[:, 0, 2] += 5
    torch.save(stale.state_dict(), tmp_path / "bare.pth")
    freeze_checkpoint(tmp_path / "bare.pth", tmp_path / "preset")
    tables = CompressAICodec.from_preset(tmp_path / "preset", "mine").coding(0).tables["y_tables"]
    assert (tables.high - codec(FACTORIZED).coding(0).tables["y_tables"].high == 5).all()


class Malicious:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_no_code_of_a_pickle_is_run(zipped: bool, tmp_path: Path) -> None:
    from latentpress.codecs.compressai_checkpoint import freeze_checkpoint

    mark, path = tmp_path / "ran", tmp_path / "evil.pth.tar"
    torch.save({"state_dict": dict(model(FACTORIZED).state_dict()), "extra": Malicious(str(mark))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"evil\.pth\.tar.*not run"):
        freeze_checkpoint(path, tmp_path / "preset")
    path.write_bytes(pickle.dumps(Malicious(str(mark))))
    with pytest.raises(InputError, match=r"evil\.pth\.tar"):
        freeze_checkpoint(path, tmp_path / "preset")
    assert not mark.exists() and not (tmp_path / "preset").exists()


def test_checkpoints_that_do_not_fit_name_file_and_architectures(tmp_path: Path) -> None:
    from latentpress.codecs.compressai_checkpoint import freeze_checkpoint

    path = checkpoint(tmp_path / "run7.pth.tar", FACTORIZED)
    for name in (MEAN, "mbt2018", "cheng2020-attn", "bmshj2018-factorized-relu"):
        with pytest.raises(InputError, match=rf"run7\.pth\.tar.*{name}.*look like {FACTORIZED} ") as refusal:
            freeze_checkpoint(path, tmp_path / "preset", architecture=name)
        assert "\n" not in str(refusal.value)
    (tmp_path / "noise.pth").write_bytes(b"no checkpoint at all")
    torch.save({"state_dict": {"weight": 3}}, tmp_path / "other.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "strange.pth")
    for file, words in (("noise.pth", "checkpoint|tensors"), ("other.pth", "state dict"), ("strange.pth", "architecture"), ("none.pth", "read")):
        with pytest.raises(InputError, match=rf"{file}.*({words})"):
            freeze_checkpoint(tmp_path / file, tmp_path / "preset")
    assert not (tmp_path / "preset").exists()


# ---- names


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The entry point, and torch hub's folder; downloads fail as they do without network."""
    real, point = registry.entry_points, EntryPoint("compressai", "latentpress.codecs.compressai:CompressAICodec", "latentpress.codecs")
    monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), *([point] if group == point.group else [])])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def download(*given: Any, **more: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    registry.load_installed.cache_clear()
    yield tmp_path / "hub"
    registry.load_installed.cache_clear()


def put_checkpoint(hub: Path, name: str, architecture: str) -> None:
    (hub / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(dict(model(architecture).state_dict()), hub / "checkpoints" / name)


def test_compressais_own_weights_are_used_by_name_and_files_find_them_again(registered: Path) -> None:
    put_checkpoint(registered, "bmshj2018-factorized-prior-3-5c6f152b.pth.tar", FACTORIZED)
    name, image = f"compressai/{FACTORIZED}@q=3", natural(48, 64)
    blob = api.encode(image, codec=name)
    assert container.read_header(blob).codec == name
    shutil.rmtree(registered / "checkpoints")  # frozen once, needed no more
    registry.load_installed.cache_clear()
    assert np.array_equal(api.decode(blob).data, registry.load_codec(name).decode(container.read(blob).encoded).data)
    (folder,) = (registered / "latentpress-compressai").iterdir()
    assert read_description(folder)["rungs"][0]["quality"] == 3
    write_preset(folder, read_description(folder), {**read_preset(folder, "x").weights, "0.model.g_s.6.bias": np.ones(3, np.float32)})
    registry.load_installed.cache_clear()
    with pytest.raises(MissingPresetError, match="needs the weights"):  # others under the same name
        api.decode(blob)


def test_a_files_header_fetches_nothing_and_opens_no_folder(registered: Path, preset: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *given, **more: asked.append(given))
    shutil.copytree(preset(FACTORIZED), tmp_path / "hub" / "latentpress-compressai" / "mine")
    chunk = Chunk(payload=b"1234")
    plain = Encoded(codec="", digest=b"12345678", shape=(8, 8, 3), dtype="uint8", dims=DIMS, parameters={"level": 0}, chunks=(chunk,))
    for name in (f"compressai/{FACTORIZED}@q=3", f"compressai/{FACTORIZED}", "compressai/mine", "compressai/../mine", "compressai/", "compressai"):
        with pytest.raises(MissingPresetError) as refusal:
            api.decode(container.write(dataclasses.replace(plain, codec=name)))
        assert "\n" not in str(refusal.value)
    assert asked == []


def test_names_that_cannot_be_had_say_what_to_do(registered: Path) -> None:
    for name, kind, words in (
        (f"{MEAN}@q=3", MissingPresetError, "cannot be downloaded.*latentpress export"),
        ("bmshj2018-factorized-relu@q=1", MissingPresetError, "no such"), ("cheng2020-attn@q=8", MissingPresetError, "no such"),
        (MEAN, InputError, "which quality"), ("mbt2018-maen@q=3", InputError, f"mean '{MEAN}'"),
        (f"{MEAN}@q=9", InputError, "a name like"), ("../x@q=3", InputError, "a name like"),
    ):  # fmt: skip
        with pytest.raises(kind, match=words) as refusal:
            registry.load_codec(f"compressai/{name}")
        assert "\n" not in str(refusal.value)
    assert "compressai" not in registry.names()
    with pytest.raises(MissingPresetError, match="needs a preset"):
        registry.load_codec("compressai")


def test_a_preset_folder_is_loaded_by_path(registered: Path, preset: Any) -> None:
    own = registry.load_codec(preset(MEAN))
    assert isinstance(own, CompressAICodec) and own.name == f"{MEAN}-0"
    assert container.read_header(api.encode(natural(16, 16), codec=preset(MEAN))).codec == own.name


# ---- training


def batch(side: int = 64) -> torch.Tensor:
    images = [natural(side, side, top=100 + 40 * i, left=100 + 60 * i) for i in range(2)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("architecture", [FACTORIZED, MEAN, "mbt2018"])
def test_training_lowers_the_loss_and_freezes_into_a_codec(architecture: str, tmp_path: Path) -> None:
    from latentpress.codecs.compressai_train import CompressAIOptions, CompressAITrainable

    torch.manual_seed(1)
    trained = CompressAITrainable.from_options(CompressAIOptions(N=8, M=12, lmbda=0.02), architecture)
    apart = {id(p) for p in trained.auxiliary_parameters()}
    assert len(apart) == 1
    optimiser = torch.optim.Adam([p for p in trained.parameters() if id(p) not in apart], 1e-3)
    auxiliary = torch.optim.Adam(trained.auxiliary_parameters(), 0.05)
    history = []
    for _ in range(20):
        losses = trained(batch())
        optimiser.zero_grad()
        auxiliary.zero_grad()
        losses.main.backward()
        assert losses.auxiliary is not None
        losses.auxiliary.backward()
        optimiser.step()
        auxiliary.step()
        history.append((losses.main.item(), losses.auxiliary.item()))
    assert history[-1][0] < 0.8 * history[0][0] and history[-1][1] < history[0][1]

    before = {k: v.clone() for k, v in trained.state_dict().items()}
    trained.freeze(tmp_path / "preset", [], {"steps": 20})
    assert trained.training and all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())
    (rung,) = read_description(tmp_path / "preset")["rungs"]
    assert rung["lambda"] == 0.02 and rung["provenance"] == {"steps": 20} and rung["arguments"] == {"N": 8, "M": 12}

    own = CompressAICodec.from_preset(tmp_path / "preset", "trained")
    pictures = trained.reconstruct(batch()[:1])
    assert pictures.shape == (1, 3, 64, 64) and trained.training
    trained.eval()
    expected = float(trained(batch()[:1]).scalars["psnr"])
    image = (batch()[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    encoded = encode(own, image)
    if architecture != "mbt2018":  # there CompressAI's forward rounds without means, its coder with them
        assert psnr(image, own.decode(encoded).data) == pytest.approx(expected, abs=0.05)
    copied = copy.deepcopy(trained.model)
    copied.update(force=True)
    with torch.no_grad():
        size = sum(len(string[0]) for string in copied.compress(batch()[:1])["strings"])
    assert 0.9 * size <= len(encoded.chunks[0].payload) <= 1.02 * size  # after so few steps much lies outside the tables: escapes cost less here


def test_the_loss_is_compressais() -> None:
    from compressai.losses import RateDistortionLoss

    from latentpress.codecs.compressai_train import CompressAIOptions, CompressAITrainable

    ours = CompressAITrainable(copy.deepcopy(model(MEAN)), CompressAIOptions(lmbda=0.03)).eval()
    with torch.no_grad():
        theirs = RateDistortionLoss(lmbda=0.03)(model(MEAN)(batch()), batch())
        losses = ours(batch())
        odd = ours(batch(50))
    assert float(losses.main) == pytest.approx(float(theirs["loss"]), rel=1e-5)
    assert float(losses.scalars["bpp"]) == pytest.approx(float(theirs["bpp_loss"]), rel=1e-5)
    assert float(losses.auxiliary) == pytest.approx(float(model(MEAN).aux_loss()), rel=1e-5)
    assert torch.isfinite(odd.main) and float(odd.scalars["bpp"]) > float(losses.scalars["bpp"])  # padding is paid for


def test_options_are_compressais() -> None:
    from latentpress.codecs.compressai_train import CompressAIOptions, CompressAITrainable

    made = CompressAITrainable.from_options(CompressAIOptions(quality=6), "mbt2018-mean")
    assert (made.model.N, made.model.M, made.settings.lmbda) == (192, 320, 0.0483)
    assert CompressAITrainable.from_options(CompressAIOptions(N=8), "cheng2020-anchor").model.M == 8
    for options, variant, words in (
        ({}, "mbt2018-maen", "did you mean"), ({}, "", "no architecture"), ({"quality": 7}, "cheng2020-attn", "1 to 6"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            CompressAITrainable.from_options(CompressAIOptions(**options), variant)
    for wrong in ({"N": 0}, {"lmbda": 0.0}, {"quality": 9}, {"lmbda": float("nan")}):
        with pytest.raises(InputError):
            CompressAIOptions(**wrong)  # type: ignore[arg-type]


def test_a_checkpoint_is_imported_by_the_trainable(tmp_path: Path) -> None:
    from latentpress.codecs.compressai_train import CompressAITrainable

    CompressAITrainable.import_checkpoint(checkpoint(tmp_path / "a.pth.tar", FACTORIZED), FACTORIZED, tmp_path / "preset")
    assert json.loads((tmp_path / "preset" / "preset.json").read_text())["architecture"] == FACTORIZED
    with pytest.raises(LatentpressError, match=rf"a\.pth\.tar.*{MEAN}"):
        CompressAITrainable.import_checkpoint(tmp_path / "a.pth.tar", MEAN, tmp_path / "other")
