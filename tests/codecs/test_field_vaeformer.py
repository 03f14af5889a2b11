"""vaeformer-field: training, freezing, fields of all shapes through bytes, targets, tiles, damage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.base import Chunk, Encoded, Signal, Target
from latentpress.codecs.field_vaeformer import FieldVAEformer
from latentpress.codecs.presets import read_preset
from latentpress.codecs.vaeformer_core import macs_per_value, reach, tiles
from latentpress.codecs.vaeformer_net import ALIGN, PLANES, STRIDE, Blocks, FieldConfig, patches, unpatched
from latentpress.codecs.vaeformer_train import VAEformerModel
from latentpress.errors import FormatError, InputError, LatentpressError, LimitError, UnsupportedError

TINY = FieldConfig(width=16, heads=2, latents=16, analysis_blocks=1, synthesis_blocks=2, hyper=8, hidden=16, context=16, levels=3)


def fields(planes: int, h: int, w: int, *, seed: int = 0) -> np.ndarray:
    """float64 [planes, h, w]: smooth, rough on small scales, alike from plane to plane; a ring along the last axis."""
    random = np.random.default_rng(seed)
    y, x = np.arange(h)[:, None] / max(h, 2), np.arange(w) / w
    out = np.zeros((planes, h, w))
    for k in range(1, 9):
        phase = random.uniform(0, 7, 2)
        for p in range(planes):
            out[p] += np.sin(2 * np.pi * k * x + phase[0] + p / 5) * np.cos(3 * k * y + phase[1]) / k**1.5
    return out


def triple(seed: int, size: int = 64) -> torch.Tensor:
    x = fields(PLANES, size, size + 30, seed=seed)[:, :, :size]
    x = (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)
    if seed % 3 == 0:
        x[1:] = 0
    return torch.from_numpy(x).float()


def signal(data: np.ndarray, **meta: object) -> Signal:
    return Signal(data=data, dims=("t", "level", "lat", "lon")[4 - data.ndim :], meta=meta)


@pytest.fixture(scope="module")
def trained() -> VAEformerModel:
    torch.manual_seed(0)
    model = VAEformerModel.from_options(TINY)
    model.start([triple(i) for i in range(6)])
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    costs = []
    for step in range(24):
        torch.manual_seed(step)
        losses = model(torch.stack([triple(10 + step % 5), triple(20 + step % 7)]))
        optimiser.zero_grad()
        losses.main.backward()
        optimiser.step()
        costs.append(float(losses.scalars["log_cost"]))
    assert np.mean(costs[-6:]) < np.mean(costs[:6]) - 0.1
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(trained: VAEformerModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("presets") / "mine"
    trained.freeze(target, [triple(i, 128) for i in range(4)], {"licence": "CC0"})
    return target


@pytest.fixture(scope="module")
def codec(folder: Path) -> FieldVAEformer:
    return FieldVAEformer.from_preset(folder, "mine")


def error_of(a: np.ndarray, b: np.ndarray) -> float:
    """Squared error in units of the variance."""
    return float(np.nanmean((a - b) ** 2) / np.nanvar(b))


# ---- start and training


def test_a_start_is_a_transform_codec_before_the_first_step() -> None:
    torch.manual_seed(0)
    model = VAEformerModel.from_options(TINY)
    model.start([triple(i) for i in range(6)])
    x = triple(11)[None]
    with torch.no_grad():
        decoded, bits = model.code(x, torch.ones(1, 3, dtype=torch.bool), torch.tensor([2.0]), rounded=True)
    assert float(((decoded - x) ** 2).mean()) < 0.05 and float(bits) / x.numel() < 0.5


def test_absent_planes_take_no_bits_and_stay_zero(trained: VAEformerModel) -> None:
    x, level = triple(11)[None], torch.tensor([1.0])
    lone = torch.tensor([[True, False, False]])
    decoded, bits = trained.code(x, lone, level, rounded=True)
    _, all_bits = trained.code(x, torch.ones_like(lone), level, rounded=True)
    assert not decoded[:, 1:].any() and float(bits) < 0.6 * float(all_bits)


def test_patches_are_undone() -> None:
    x = torch.randn(2, 16, 24, 3)
    assert torch.equal(unpatched(patches(x, 8), 8), x)


def test_parameters_of_the_preset_stay_below_six_million() -> None:
    assert sum(p.numel() for p in VAEformerModel.from_options(FieldConfig()).parameters()) < 6e6
    assert all(500 < n < 40_000 for n in macs_per_value(FieldConfig()).values())


def test_variants_are_refused() -> None:
    with pytest.raises(InputError, match="no variant"):
        VAEformerModel.from_options(TINY, "large")


def test_the_reconstruction_is_near(trained: VAEformerModel) -> None:
    x = triple(12)[None]
    assert float(((trained.reconstruct(x) - x) ** 2).mean()) < 0.2


# ---- fields through bytes


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (70, 130), (64, 64), (4, 20, 40), (2, 3, 33, 65), (1, 1, 8, 300)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fields_of_every_shape_come_back(codec: FieldVAEformer, shape: tuple[int, ...], dtype: str) -> None:
    data = (fields(int(np.prod(shape[:-2])), *shape[-2:]) * 7 + 280).reshape(shape).astype(dtype)
    encoded = codec.encode(signal(data), Target(quality=100))
    back = codec.decode(encoded)
    assert back.data.shape == shape and back.data.dtype == dtype and back.dims == signal(data).dims
    assert min(shape[-2:]) < 20 or error_of(back.data, data) < 0.15
    assert codec.places(encoded) == len(encoded.chunks)


def test_symbols_coded_again_give_the_same_bytes(codec: FieldVAEformer) -> None:
    data = fields(5, 70, 90)
    data[2], data[3, :9] = 4.0, np.nan
    encoded = codec.encode(signal(data), Target(quality=60))
    assert codec.recode(encoded, codec.symbols(encoded)) == encoded


def test_training_and_coding_agree_on_bits(trained: VAEformerModel, codec: FieldVAEformer) -> None:
    x = triple(11, 128)[None]
    counted = float(trained.code(x, torch.ones(1, 3, dtype=torch.bool), torch.tensor([1.0]), rounded=True)[1])
    quantised = codec.core.quantise(codec.core.analyse(x), 128)
    real = 8 * len(codec.core.pack(quantised))
    assert codec.core.bits(quantised) == pytest.approx(real, abs=80)
    assert real == pytest.approx(counted, rel=0.15)


def test_missing_points_are_missing_again_and_nothing_else(codec: FieldVAEformer) -> None:
    data = fields(3, 60, 80).astype(np.float32)
    data[0, 10:30, 5:40] = np.nan
    data[1] = data[0]
    data[2] = np.nan
    back = codec.decode(codec.encode(signal(data), Target(quality=90))).data
    assert np.array_equal(np.isnan(back), np.isnan(data)) and error_of(back[:2], data[:2]) < 0.2


def test_constant_and_empty_fields_are_exact(codec: FieldVAEformer) -> None:
    data = np.full((3, 20, 20), 273.25, np.float32)
    data[1] = np.nan
    data[2, 3:] = np.nan
    encoded = codec.encode(signal(data), Target(quality=50))
    assert np.array_equal(codec.decode(encoded).data, data, equal_nan=True)
    assert [len(s) for s in codec.symbols(encoded)] == [0] and len(encoded.chunks[0].payload) < 40


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_units_do_not_matter(codec: FieldVAEformer, dtype: str) -> None:
    """Kelvin, pascal, kilograms a square metre and second."""
    data = fields(1, 64, 64)[0]
    sizes = []
    for scale, offset in ((1.0, 0.0), (5e3, 101325.0), (1e-9, 0.0)):
        there = (data * scale + offset).astype(dtype)
        encoded = codec.encode(signal(there), Target(quality=70))
        assert error_of(codec.decode(encoded).data.astype(np.float64), there.astype(np.float64)) < 0.1
        sizes.append(len(encoded.chunks[0].payload))
    assert max(sizes) - min(sizes) <= 16


def test_rings_are_found_told_and_kept(codec: FieldVAEformer) -> None:
    ring, part = fields(1, 64, 160), fields(1, 64, 200)[:, :, :160]
    assert codec.encode(signal(ring), Target(quality=50)).parameters.get("wrap") == 1
    assert "wrap" not in codec.encode(signal(part), Target(quality=50)).parameters
    assert "wrap" not in codec.encode(signal(ring, wrap=False), Target(quality=50)).parameters
    assert codec.encode(signal(part, wrap=True), Target(quality=50)).parameters["wrap"] == 1


def test_better_quality_costs_more_and_is_better(codec: FieldVAEformer) -> None:
    data = fields(3, 96, 128)
    found = [codec.encode(signal(data), Target(quality=q)) for q in (0, 25, 50, 75, 100)]
    sizes = [sum(len(c.payload) for c in e.chunks) for e in found]
    errors = [error_of(codec.decode(e).data, data) for e in found]
    assert sizes == sorted(set(sizes)) and errors == sorted(errors, reverse=True)


def test_targets_are_met(codec: FieldVAEformer) -> None:
    data = fields(4, 96, 128)
    middle = codec.encode(signal(data), Target(quality=50))
    budget = sum(len(c.payload) for c in middle.chunks)
    for target in (Target(max_bytes=budget), Target(bpp=8 * budget / data.size)):
        found = codec.encode(signal(data), target)
        assert 0.6 * budget < sum(len(c.payload) for c in found.chunks) <= budget
    back = codec.decode(middle).data
    psnr = -10 * np.log10(np.mean([((a - b) ** 2).mean() / np.ptp(b) ** 2 for a, b in zip(back, data, strict=True)]))
    found = codec.encode(signal(data), Target(psnr=psnr - 0.5))
    assert 0 < found.parameters["level"] <= middle.parameters["level"]


def test_tiles_leave_no_seams(codec: FieldVAEformer) -> None:
    """Latents and decoded samples of parts are those of the whole, to a rounding, with the field a ring or not."""
    torch.manual_seed(1)
    core = codec.core
    x = torch.randn(1, 3, 192, 512)
    for ring in (False, True):
        whole, parts = core.analyse(x, ring=ring), core.analyse(x, ring=ring, side=4)
        assert torch.allclose(whole, parts, atol=1e-3 * float(whole.abs().max()))
        whole, parts = core.synthesise(whole, 100, [0, 2], ring=ring), core.synthesise(whole, 100, [0, 2], ring=ring, side=8)
        assert whole.shape == (2, 192, 512) and torch.allclose(whole, parts, atol=1e-3 * float(whole.abs().max()))


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_blocks_reach_no_further_than_said(blocks: int) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, width=4, heads=1)
    net = Blocks(config, blocks)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    around = reach(blocks) * 2
    x = torch.randn(1, 8, 2 * around + 24, 4)
    with torch.no_grad():
        full, part = net(x, False)[:, :, around + 8 : around + 16], net(x[:, :, 8:-8], False)[:, :, around : around + 8]
    assert torch.allclose(full, part, atol=1e-4) and around % 8 == 0


def test_a_tiled_field_loses_only_the_tile_that_is_damaged(folder: Path) -> None:
    codec = FieldVAEformer.from_preset(folder, "mine")
    codec.tile = 128
    data = fields(2, 150, 200)
    encoded = codec.encode(signal(data, wrap=False), Target(quality=80))
    assert len(encoded.chunks) == codec.places(encoded) == 4 and encoded.parameters["tile"] == 128
    whole = codec.decode(encoded).data
    assert error_of(whole, data) < 0.15
    back = codec.decode(dataclasses.replace(encoded, chunks=encoded.chunks[1:])).data
    assert np.isnan(back[:, :128, :128]).all() and np.isfinite(back[:, 128:]).all() and np.isfinite(back[:, :, 128:]).all()
    assert np.array_equal(back[:, 149:, 199:], whole[:, 149:, 199:]) or np.allclose(back[:, 149:, 199:], whole[:, 149:, 199:], atol=1)
    with pytest.raises(FormatError, match="outside"):
        codec.decode(dataclasses.replace(encoded, chunks=(encoded.chunks[0], encoded.chunks[0])))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 9))
def test_tiles_cover_the_map_once(h: int, w: int, side: int) -> None:
    covered = np.zeros((h, w), int)
    for tile in tiles(h, w, side):
        covered[tile.y0 : tile.y1, tile.x0 : tile.x1] += 1
    assert (covered == 1).all()


# ---- what is refused


@pytest.mark.parametrize("data", [np.zeros((8, 8), np.int16), np.zeros(8, np.float32), np.zeros((0, 8), np.float32), np.full((4, 4), 1e300)])
def test_what_it_cannot_keep_is_refused(codec: FieldVAEformer, data: np.ndarray) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        codec.encode(signal(data), Target(quality=50))
    assert "mine" in str(refusal.value) and "\n" not in str(refusal.value)


def test_infinities_bounds_and_needles_are_refused(codec: FieldVAEformer) -> None:
    with pytest.raises(InputError, match="infinite"):
        codec.encode(signal(np.array([[1.0, np.inf]])), Target(quality=50))
    with pytest.raises(UnsupportedError, match="lattice"):
        codec.encode(signal(np.ones((4, 4))), Target(max_error=0.1))
    with pytest.raises(LimitError, match="filled up"):
        codec.encode(signal(np.zeros((1, 1 << 20), np.float32)), Target(quality=50))
    with pytest.raises(UnsupportedError, match="out of reach"):
        codec.encode(signal(fields(1, 64, 64)), Target(max_bytes=10))


@pytest.fixture(scope="module")
def whole(codec: FieldVAEformer) -> Encoded:
    data = fields(3, 40, 70).astype(np.float32)
    data[1, :5, :5] = np.nan
    return codec.encode(signal(data), Target(quality=40))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_damaged_chunks_are_an_error_or_a_field(codec: FieldVAEformer, whole: Encoded, data: st.DataObject) -> None:
    payload = bytearray(whole.chunks[0].payload)
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "noise"]))
    if kind == "flip":
        at = data.draw(st.integers(0, min(len(payload) - 1, 200)))
        payload[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del payload[data.draw(st.integers(0, len(payload) - 1)) :]
    elif kind == "grow":
        payload += data.draw(st.binary(min_size=1, max_size=9))
    else:
        payload = bytearray(data.draw(st.binary(max_size=80)))
    damaged = dataclasses.replace(whole, chunks=(Chunk(payload=bytes(payload)),))
    try:
        assert codec.decode(damaged).data.shape == whole.shape
    except FormatError as error:
        assert "\n" not in str(error)


HEADERS = [
    {"parameters": {}}, {"parameters": {"level": 9999}}, {"parameters": {"level": 5, "wrap": 2}}, {"parameters": {"level": 5, "group": 4}},
    {"parameters": {"level": 5, "group": 0}}, {"parameters": {"level": 5, "tile": 100}}, {"parameters": {"level": 5, "tile": 1 << 20}},
    {"parameters": {"level": 5, "more": 1}}, {"dtype": "int16"}, {"shape": (7,), "dims": ("x",)}, {"shape": (3, 1, 1 << 24)},
    {"shape": (1, 5000, 5000)}, {"shape": (3, 40, 71)}, {"shape": (1, 40, 70), "parameters": {"level": 5, "group": 3}},
]  # fmt: skip


@pytest.mark.parametrize("change", HEADERS, ids=str)
def test_headers_that_do_not_fit_are_refused(codec: FieldVAEformer, whole: Encoded, change: dict) -> None:
    with pytest.raises(LatentpressError) as refusal:
        codec.decode(dataclasses.replace(whole, **change))
    assert "\n" not in str(refusal.value)


def test_presets_of_other_sizes_are_refused(folder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(folder, tmp_path / "other")
    description = json.loads((tmp_path / "other" / "preset.json").read_text())
    description["config"]["latents"] = 32
    (tmp_path / "other" / "preset.json").write_text(json.dumps(description))
    with pytest.raises(FormatError, match="does not fit vaeformer-field"):
        FieldVAEformer.from_preset(tmp_path / "other", "other")


def test_facts_of_a_preset(codec: FieldVAEformer, folder: Path) -> None:
    facts = codec.describe()
    assert facts["licence"] == "CC0" and facts["parameters"] > 10_000 and facts["weight_bytes"] > 10_000
    assert read_preset(folder, "mine").description["codec"] == FieldVAEformer.id == VAEformerModel.id
    assert ALIGN % STRIDE == 0 and FieldVAEformer.domain == VAEformerModel.domain == "field"
