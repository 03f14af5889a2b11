"""walloc-classic over a tiny preset made here: bytes and back, sizes, tiles, threads, refusals."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs import wavelet
from latentpress.codecs.base import Signal, Target
from latentpress.codecs.image_walloc_classic import WallocClassic
from latentpress.codecs.presets import write_preset
from latentpress.codecs.walloc import WallocConfig, WallocModel
from latentpress.errors import FormatError, UnsupportedError
from latentpress.train.fit_planes import fit
from latentpress.train.walloc_classic import frozen_weights

QUALITY = Target(quality=50)


def picture(h: int, w: int, bands: int = 3, seed: int = 1) -> np.ndarray:
    """uint8 [h, w, bands]: a smooth field with edges and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    field = np.stack([np.sin(x / (9 + 4 * b)) + np.cos(y / 13) + (x + 2 * y > 90 + 10 * b) for b in range(bands)], -1)
    return np.clip(110 + 40 * field + rng.normal(0, 4, field.shape), 0, 255).astype(np.uint8)


def as_signal(data: np.ndarray) -> Signal:
    return Signal(data=data, dims=("y", "x", "band")[: data.ndim])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    config = WallocConfig(latents=6, width=16, blocks=2)
    model = WallocModel(config).eval()
    samples = [torch.from_numpy(picture(200, 240, seed=s)).permute(2, 0, 1)[None].float() / 255 - 0.5 for s in range(3)]
    with torch.no_grad():
        model.start_from(torch.cat([wavelet.analysis(x, 3)[0].flatten(1).T for x in samples]))
        prior = fit([model.encode(x)[0].numpy().astype(np.int32) for x in samples], 127)
    out = tmp_path_factory.mktemp("presets") / "tiny"
    write_preset(out, {"codec": "walloc-classic", "config": asdict(config)}, frozen_weights(model, prior))
    return out


@pytest.fixture(scope="module")
def codec(folder) -> WallocClassic:
    return WallocClassic.from_preset(folder, "tiny")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (7, 23), (64, 40), (65, 129)], ids=str)
@pytest.mark.parametrize("bands", [1, 3])
def test_round_trip(codec, size, bands):
    data = picture(*size, bands)
    encoded = codec.encode(as_signal(data), QUALITY)
    back = codec.decode(encoded)
    assert back.data.shape == data.shape and back.data.dtype == data.dtype and back.dims == ("y", "x", "band")
    assert codec.recode(encoded, codec.symbols(encoded)) == encoded
    if min(size) >= 40 and bands == 3:
        assert np.abs(back.data.astype(int) - data).mean() < 12


def test_gray_without_a_band_axis_and_16_bits(codec):
    data = picture(30, 40, 1)[:, :, 0].astype(np.uint16) * 257
    back = codec.decode(codec.encode(as_signal(data), QUALITY))
    assert back.data.shape == data.shape and back.data.dtype == np.uint16
    assert np.abs(back.data.astype(int) - data).mean() < 12 * 257


def test_tiles_leave_no_seams(codec, folder):
    """The tiled transform gives the integers of the whole one, and samples that differ by rounding at most."""
    tiled = WallocClassic.from_preset(folder, "tiny")
    tiled.tile = 64
    for size in ((150, 203), (64, 200)):
        data = picture(*size)
        whole, parts = codec.encode(as_signal(data), QUALITY), tiled.encode(as_signal(data), QUALITY)
        assert len(parts.chunks) > 1
        apart = (codec.latents(whole) - tiled.latents(parts)).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 1e-3  # a sum may round to the other side of a half
        difference = np.abs(codec.decode(whole).data.astype(int) - tiled.decode(parts).data)
        assert difference.max() <= 2 and difference.mean() < 0.01
        assert np.array_equal(codec.decode(parts).data, tiled.decode(parts).data)


def test_one_and_two_threads_give_the_same_symbols(codec):
    encoded = codec.encode(as_signal(picture(120, 200)), QUALITY)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seen.append(codec.symbols(encoded))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*seen, strict=True))


def test_bits_are_those_of_the_bytes(codec):
    data = picture(512, 700)
    encoded = codec.encode(as_signal(data), QUALITY)
    real = 8 * sum(len(c.payload) for c in encoded.chunks)
    planes = codec.latents(encoded)[0].numpy().astype(np.int32)
    assert real > 80_000 and abs(real / codec.core.prior.bits(planes) - 1) < 0.01


def test_quality_changes_nothing_and_other_targets_are_refused(codec):
    data = as_signal(picture(40, 40))
    assert codec.encode(data, Target(quality=3), effort=0) == codec.encode(data, Target(quality=90), effort=7)
    for target in (Target(bpp=1.0), Target(psnr=30.0), Target(max_bytes=100)):
        with pytest.raises(UnsupportedError, match="one fixed rate"):
            codec.encode(data, target)


def test_signals_it_cannot_keep_are_refused(codec):
    for data in (picture(9, 9, 2), picture(9, 9).astype(np.float32)):
        with pytest.raises(UnsupportedError, match="walloc-classic codes"):
            codec.encode(as_signal(data), QUALITY)


def test_a_damaged_header_is_refused(codec):
    encoded = codec.encode(as_signal(picture(40, 40)), QUALITY)
    with pytest.raises(FormatError):
        codec.decode(replace(encoded, parameters={"level": 1}))
    with pytest.raises(FormatError):
        codec.decode(replace(encoded, shape=(80, 40, 3)))


def test_a_preset_that_does_not_fit_is_refused(folder, tmp_path):
    for name in ("preset.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    text = (tmp_path / "preset.json").read_text()
    (tmp_path / "preset.json").write_text(text.replace('"latents": 6', '"latents": 7'))
    with pytest.raises(FormatError, match="does not fit"):
        WallocClassic.from_preset(tmp_path, "broken")
