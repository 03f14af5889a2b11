"""Fields as training data, and a lattice codec of one's own made from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress.codecs.base import Signal, Target
from latentpress.codecs.grid_narrow import narrowed
from latentpress.codecs.lattice_train import LatticeConfig, LatticeModel, blurred, closed_targets, on_lattice
from latentpress.codecs.registry import load_codec
from latentpress.datasets.fields import FieldStacks, filled, mirrored
from latentpress.entropy.grid_network import GridConfig, GridNetwork
from latentpress.errors import InputError
from latentpress.train.data import Crops, open_source
from latentpress.train.validate import measure

SMALL = LatticeConfig(width=8, blocks=1, expansion=1, head=8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two variables, four times, one of them with land; and a scalar nobody trains on."""
    xarray = pytest.importorskip("xarray")
    y, x = np.mgrid[:40, :50]
    t2m = np.stack([280 + 10 * np.sin(y / 7 + t / 3) + np.cos(x / 5) for t in range(4)]).astype(np.float32)
    sst = t2m - 270
    sst[:, :10, :20] = np.nan
    dims = ("time", "y", "x")
    xarray.Dataset({"t2m": (dims, t2m), "sst": (dims, sst), "count": ((), 3)}).to_netcdf(tmp_path / "a.nc")
    return tmp_path


def test_triples_are_neighbours_in_time_variables_side_by_side_and_planes_alone(archive: Path) -> None:
    stacks = FieldStacks(archive)
    present = [sum(p is not None for p in places) for _, places in stacks.entries]
    assert present.count(1) == 8 and present.count(2) == 8 and present.count(3) == 2 * 2 * 2
    for size, index in zip(stacks.sizes, range(len(present)), strict=True):
        planes = stacks.load(index)
        assert planes.shape == (3, *size) and planes.dtype == torch.float32 and bool(planes.isfinite().all())
        assert [bool(p.abs().max() > 0) for p in planes] == [k < present[index] for k in range(3)]


def test_crops_of_fields_keep_their_unit(archive: Path) -> None:
    source = open_source(str(archive), "field")
    batch = Crops(source, range(len(source.sizes)), crop=64, batch=3, seed=1).make(0)
    assert batch.shape == (3, 3, 64, 64) and 0.1 < float(batch[:, 0].std()) < 3


def test_what_is_missing_takes_the_value_before_it() -> None:
    x = np.array([[np.nan, 1.0, np.nan], [2.0, np.nan, 3.0]])
    np.testing.assert_array_equal(filled(x, np.isfinite(x)), [[1, 1, 1], [2, 2, 3]])


def test_small_planes_are_continued_by_their_mirror_image() -> None:
    big = mirrored(np.arange(12.0).reshape(3, 4), 9)
    assert big.shape == (9, 9) and (big[0] == [0, 1, 2, 3, 2, 1, 0, 1, 2]).all()


def test_a_folder_without_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no NetCDF file.*\.nc files"):
        FieldStacks(tmp_path)


def test_a_step_is_drawn_evenly_in_its_logarithm() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 3, 16, 16)
    units = on_lattice(x, 0.3, 3e-5)
    steps = x[:, 0].std((1, 2)) / units[:, 0].std((1, 2))
    assert 0.001 < float(steps.median()) < 0.009 and 3e-5 < float(steps.min()) < float(steps.max()) < 0.3


def test_steps_from_predictions_are_finer_where_a_field_is_smoother() -> None:
    torch.manual_seed(0)
    rough = torch.randn(200, 3, 32, 32)
    smooth = blurred(rough, 3.0)
    assert torch.allclose(smooth.std((2, 3), correction=0), torch.ones(200, 3), atol=1e-4)
    assert blurred(torch.zeros(1, 3, 32, 32), 2.0).abs().max() == 0
    reach = [float(closed_targets(x).abs().amax((1, 2, 3)).median()) for x in (rough, smooth)]
    assert reach[1] > 2 * reach[0]


@pytest.mark.parametrize("modes", [1, 2])
def test_training_lowers_the_bits_and_freezes_into_a_codec_that_keeps_the_bound(archive: Path, tmp_path: Path, modes: int) -> None:
    source = open_source(str(archive), "field")
    torch.manual_seed(1)
    model = LatticeModel.from_options(dataclasses.replace(SMALL, modes=modes))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    batch = Crops(source, range(len(source.sizes)), crop=64, batch=4, seed=1).make(0)
    rates = []
    for _ in range(12):
        torch.manual_seed(2)
        losses = model(batch)
        optimiser.zero_grad()
        losses.main.backward()
        optimiser.step()
        rates.append(float(losses.scalars["bpp"]))
    assert rates[-1] < rates[0]
    model.freeze(tmp_path / "mine", [source.load(0), source.load(8)], {})
    codec = load_codec(tmp_path / "mine")
    data = source.load(9).numpy()[:1]
    back = codec.decode(codec.encode(Signal(data=data, dims=("plane", "y", "x")), Target(max_error=0.01))).data
    assert np.abs(back.astype(float) - data).max() <= 0.01
    points = measure(tmp_path / "mine", [source.load(0)], (0, 50), 0)
    assert points[0]["bpp"] < points[1]["bpp"] and points[0]["psnr"] < points[1]["psnr"]


def test_a_narrower_network_has_half_the_features_inside_its_blocks_and_starts_near_the_old_one() -> None:
    torch.manual_seed(3)
    network = GridNetwork(GridConfig(width=8, blocks=1, head=8))
    x = (torch.randn(1, 3, 32, 32).cumsum(2) * 5).round()
    small = narrowed(network, [x])
    assert small.config.expansion == 1 and sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    with torch.no_grad():
        before, after = (float(torch.stack(n(x, octaves=2)).sum()) for n in (network, small))
    assert abs(after / before - 1) < 0.2
