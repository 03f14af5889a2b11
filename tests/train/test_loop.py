"""The training loop: schedules, crops, gradient averaging, resuming, and freezing what it made."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from latentpress.codecs.image_walloc import WallocRGB, WallocRGBConfig, WallocRGBModel, frozen_weights
from latentpress.codecs.presets import write_preset
from latentpress.datasets.photographs import photographs, split
from latentpress.train import freeze, loop
from latentpress.train.data import Crops

TINY = WallocRGBConfig(width=16, latents=16, analysis_blocks=1, synthesis_blocks=1, hyper=8, context=16, levels=3)


def smooth(seed: int, size: int = 96) -> torch.Tensor:
    """uint8 [3, size, size] with structure at several scales."""
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")[0].clamp(0, 1)
    return (image * 255).to(torch.uint8)


def test_the_rate_warms_up_stays_and_falls_to_a_hundredth() -> None:
    config = loop.LoopConfig(run="r", data="d", rate=1.0, warmup=100, constant=0.5)
    assert loop.learning_rate(config, 49, 0.0) == pytest.approx(0.5)
    assert loop.learning_rate(config, 1000, 0.49) == 1.0
    assert loop.learning_rate(config, 1000, 0.75) == pytest.approx(0.5)
    assert loop.learning_rate(config, 1000, 1.0) == pytest.approx(0.01)


def test_levels_stay_in_range_and_prefer_the_inner_ones() -> None:
    torch.manual_seed(0)
    levels = loop.sample_levels(4000, 8)
    assert levels.min() >= 0 and levels.max() <= 7
    outer = float(((levels < 1) | (levels > 6)).float().mean())
    assert 0.02 < outer < 0.08  # a uniform draw would give 0.29


def test_crops_are_parts_of_the_photographs_in_all_orientations() -> None:
    image = torch.arange(3 * 32 * 40).reshape(3, 32, 40).remainder(251).to(torch.uint8)
    crops = Crops([image], crop=32, batch=64, seed=3)
    batch = crops.next()
    assert batch.shape == (64, 3, 32, 32) and batch.min() >= 0 and batch.max() <= 1
    starts = {tuple((b[0, 0, :2] * 255).round().int().tolist()) for b in batch}
    assert len(starts) > 8
    again = Crops([image], crop=32, batch=64, seed=3).next()
    assert torch.equal(batch, again)


def test_validation_photographs_are_not_trained_on(tmp_path: Path) -> None:
    for i in range(41):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i:03d}.png")
    training, validation = split(photographs(tmp_path))
    assert len(validation) == 3 and not set(training) & set(validation) and len(training) == 38
    with pytest.raises(FileNotFoundError, match="no photographs"):
        photographs(tmp_path / "none")


def test_gradients_that_are_not_finite_are_noticed() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1.0, math.nan, 0.0])
    assert not loop.average_gradients([parameter], 1)
    parameter.grad = torch.tensor([1.0, 2.0, 0.0])
    assert loop.average_gradients([parameter], 1) and parameter.grad.tolist() == [1, 2, 0]


_WORKER = """
import sys, torch
from torch import nn
from latentpress.train import loop
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
parameter = nn.Parameter(torch.zeros(2))
parameter.grad = torch.tensor([1.0, 10.0]) * (rank + 1)
loop.average_gradients([parameter], 2)
print(parameter.grad.tolist())
"""


def test_two_processes_get_the_mean_of_their_gradients(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", _WORKER]
    workers = [subprocess.Popen([*command, str(r), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True) for r in range(2)]
    assert [w.communicate(timeout=120)[0].strip() for w in workers] == ["[1.5, 15.0]"] * 2


@pytest.fixture(scope="module")
def trained() -> WallocRGBModel:
    """A tiny model after a few steps of the real loss through the integer prior."""
    torch.manual_seed(0)
    model = WallocRGBModel(TINY)
    model.prior.network.set_through(True)
    crops = Crops([smooth(i) for i in range(4)], crop=64, batch=2, seed=1)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    torch.manual_seed(1)
    costs = []
    for _ in range(60):
        cost, _, _ = model.loss(crops.next(), torch.rand(2) * 2)
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        costs.append(cost.item())
    assert np.mean(costs[-10:]) < 0.5 * np.mean(costs[:10])
    return model.eval().requires_grad_(False)


def test_a_frozen_model_counts_the_bits_that_the_trained_one_counts(trained: WallocRGBModel) -> None:
    """Same symbols through the straight-through network and the integer one; the tables are those of the densities."""
    core = freeze.core_of(trained, trained.prior.factorized.freeze(), freeze.GaussianConditional.freeze(), skip=0)
    x = smooth(9, 128)[None].float() / 255
    _, bits = trained(x, torch.tensor([1.0]), rounded=True)
    quantised = core.quantise(core.analyse(x), 128)
    assert core.bits(quantised) == pytest.approx(float(bits), rel=0.02)  # float16 transforms move a few latents


def test_tables_fitted_by_counting_code_what_they_counted_in_fewer_bits(trained: WallocRGBModel) -> None:
    images = [smooth(i, 128) for i in range(3)]
    plain = freeze.core_of(trained, trained.prior.factorized.freeze(), freeze.GaussianConditional.freeze(), skip=1)
    fitted = freeze.core_of(trained, *freeze.fit_tables(trained, images, 1, 2, 7), skip=1)
    total = {}
    for name, core in (("plain", plain), ("fitted", fitted)):
        total[name] = sum(core.bits(q) for q in freeze.coded_symbols(core, images, 2, 7))
    assert total["fitted"] < total["plain"]


def test_a_preset_written_and_loaded_gives_the_same_bytes(trained: WallocRGBModel, tmp_path: Path) -> None:
    from dataclasses import asdict

    from latentpress.codecs.base import Signal, Target

    z_tables, y_tables = trained.prior.factorized.freeze(), freeze.GaussianConditional.freeze()
    description = {"codec": "walloc-rgb", "config": asdict(TINY), "skip": 1}
    write_preset(tmp_path / "tiny", description, frozen_weights(trained, z_tables, y_tables))
    codec = WallocRGB.from_preset(tmp_path / "tiny", "tiny")
    core = freeze.core_of(trained, z_tables, y_tables, 1)
    data = smooth(5, 64).permute(1, 2, 0).contiguous().numpy()
    encoded = codec.encode(Signal(data=data, dims=("y", "x", "band")), Target(quality=50), effort=0)
    expected = core.pack(core.quantise(core.analyse(core.to_samples(data)), 128))
    assert encoded.chunks[0].payload == expected
