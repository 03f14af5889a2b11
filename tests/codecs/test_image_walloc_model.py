"""walloc-rgb in training: its start, its levels, its tables, and the preset it freezes into."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs.base import Signal, Target
from latentpress.codecs.fit_tables import coded_symbols, core_of, fit_tables
from latentpress.codecs.image_walloc import WallocRGB, WallocRGBConfig, WallocRGBModel, frozen_weights, sample_levels
from latentpress.codecs.presets import read_description, write_preset
from latentpress.entropy.priors import GaussianConditional
from latentpress.errors import InputError
from tests.helpers import natural

TINY = WallocRGBConfig(width=16, latents=16, analysis_blocks=1, synthesis_blocks=1, hyper=8, context=16, levels=3)


def smooth(seed: int, size: int = 96) -> torch.Tensor:
    """uint8 [3, size, size] with structure at several scales."""
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")[0].clamp(0, 1)
    return (image * 255).to(torch.uint8)


def batch(seed: int, items: int = 2, size: int = 64) -> torch.Tensor:
    return torch.stack([smooth(seed * items + i, size) for i in range(items)]).float() / 255


def photograph(top: int, size: int = 192) -> torch.Tensor:
    return torch.from_numpy(natural(size, size, top=top)).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def trained() -> WallocRGBModel:
    """A tiny model after a few steps of the real loss through the integer prior."""
    torch.manual_seed(0)
    model = WallocRGBModel.from_options(TINY)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    torch.manual_seed(1)
    costs = []
    for step in range(60):
        losses = model(batch(step % 4))
        optimiser.zero_grad()
        losses.main.backward()
        optimiser.step()
        costs.append(losses.main.item())
    assert np.mean(costs[-10:]) < 0.5 * np.mean(costs[:10])
    return model.eval().requires_grad_(False)


def test_levels_cover_the_range_and_its_ends_evenly() -> None:
    torch.manual_seed(0)
    levels = sample_levels(4000, 8)
    assert levels.min() >= 0 and levels.max() <= 7
    parts = [float((levels.round() == k).float().mean()) for k in range(8)]
    assert all(0.08 < p < 0.16 for p in parts) and 0.03 < float((levels == 7).float().mean()) < 0.06


def test_what_the_log_shows_is_measured_on_the_batch(trained: WallocRGBModel) -> None:
    x = batch(3)
    torch.manual_seed(5)
    losses = trained(x)
    torch.manual_seed(5)
    cost, bpp, error = trained.loss(x, sample_levels(2, 3))
    assert losses.main == cost and losses.scalars["bpp"] == bpp.mean()
    assert float(losses.scalars["psnr"]) == pytest.approx(float((10 * torch.log10(255**2 / error)).mean()))


def test_a_fresh_model_starts_as_a_block_transform_codec() -> None:
    """The KLT puts the energy first: photographs survive analysis and synthesis before the first step, and not without a start."""
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, width=64, latents=128)
    plain, started = WallocRGBModel.from_options(config), WallocRGBModel.from_options(config)
    started.load_state_dict(plain.state_dict())
    started.start([photograph(0), photograph(150)])
    x = photograph(60)[None].float() / 255
    errors = [float((m.synthesis(m.analysis(x)) - x).detach().pow(2).mean()) for m in (plain, started)]
    assert 10 * np.log10(1 / errors[1]) > 29 and errors[0] > 20 * errors[1]
    energy = started.analysis(x).var((0, 2, 3))
    assert energy[:16].sum() > 20 * energy[64:].sum()


def test_only_the_blocks_are_autocast(trained: WallocRGBModel) -> None:
    """In bfloat16 the integers of the prior would be others; a block that starts near the identity hardly moves."""
    x, level = batch(1), torch.tensor([1.0, 2.0])
    exact = trained.code(x, level, rounded=True)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = trained.code(x, level, rounded=True)
    assert mixed[0].dtype == mixed[1].dtype == torch.float32
    # a latent that rounds to the other side moves some samples further
    assert float((mixed[0] - exact[0]).abs().mean()) < 0.01 and torch.allclose(mixed[1], exact[1], rtol=0.05)


def test_there_are_no_variants() -> None:
    with pytest.raises(InputError, match="no variant 'large'"):
        WallocRGBModel.from_options(TINY, "large")


def test_a_frozen_model_counts_the_bits_that_the_trained_one_counts(trained: WallocRGBModel) -> None:
    """Same symbols through the straight-through network and the integer one; the tables are those of the densities."""
    core = core_of(trained, trained.prior.factorized.freeze(), GaussianConditional.freeze(), skip=0)
    x = smooth(9, 128)[None].float() / 255
    _, bits = trained.code(x, torch.tensor([1.0]), rounded=True)
    quantised = core.quantise(core.analyse(x), 128)
    assert core.bits(quantised) == pytest.approx(float(bits), rel=0.02)  # float16 transforms move a few latents


def test_tables_fitted_by_counting_code_what_they_counted_in_fewer_bits(trained: WallocRGBModel) -> None:
    images = [smooth(i, 128) for i in range(3)]
    plain = core_of(trained, trained.prior.factorized.freeze(), GaussianConditional.freeze(), skip=1)
    fitted = core_of(trained, *fit_tables(trained, images, per_image=2, seed=7))
    total = {}
    for name, core in (("plain", plain), ("fitted", fitted)):
        total[name] = sum(core.bits(q) for q in coded_symbols(core, images, 2, 7))
    assert total["fitted"] < total["plain"]


def test_photographs_too_small_to_count_are_left_out(trained: WallocRGBModel) -> None:
    core = core_of(trained, trained.prior.factorized.freeze(), GaussianConditional.freeze())
    assert len(list(coded_symbols(core, [smooth(0, 63), smooth(1, 64)], 2, 7))) == 2


def test_a_preset_written_and_loaded_gives_the_same_bytes(trained: WallocRGBModel, tmp_path: Path) -> None:
    z_tables, y_tables = trained.prior.factorized.freeze(), GaussianConditional.freeze()
    description = {"codec": "walloc-rgb", "config": dataclasses.asdict(TINY), "skip": 1}
    write_preset(tmp_path / "tiny", description, frozen_weights(trained, z_tables, y_tables))
    codec = WallocRGB.from_preset(tmp_path / "tiny", "tiny")
    core = core_of(trained, z_tables, y_tables, 1)
    data = smooth(5, 64).permute(1, 2, 0).contiguous().numpy()
    encoded = codec.encode(Signal(data=data, dims=("y", "x", "band")), Target(quality=50), effort=0)
    expected = core.pack(core.quantise(core.analyse(core.to_samples(data)), 128))
    assert encoded.chunks[0].payload == expected


def test_freezing_leaves_the_model_as_it_was_and_keeps_provenance(trained: WallocRGBModel, tmp_path: Path) -> None:
    model = copy.deepcopy(trained).train().requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    model.freeze(tmp_path / "mine", [smooth(1, 64)], {"run": "a", "licence": "MIT"})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and all(p.requires_grad for p in model.parameters())
    description = read_description(tmp_path / "mine")
    assert description["provenance"]["run"] == "a" and description["about"]["licence"] == "MIT"
    assert WallocRGB.from_preset(tmp_path / "mine", "mine").digest
