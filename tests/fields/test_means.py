"""--keep-mean: the mean of each plane is that of the source, weighted by area, and the bound holds all the same."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from typer.testing import CliRunner

import latentpress
from latentpress import container
from latentpress.cli import app
from latentpress.codecs.base import Signal, Target
from latentpress.errors import BoundError, FormatError, InputError, LatentpressError
from latentpress.fields.keeping import encode_keeping, row_weights
from latentpress.fields.means import Means, corrected, means_of, there
from latentpress.fields.reading import open_file
from tests.fields.datasets import FILL, packed, raw, smooth, weather, weather_file
from tests.fields.standin import StandIn


def mean_errors(before: Any, after: Any, weights: Any, missing: tuple[Any, ...] = ()) -> Any:
    """[planes], in float64."""
    known = there(before, missing).reshape(-1, *before.shape[-2:])
    share = np.where(known, np.asarray(weights)[:, None], 0.0)
    with np.errstate(invalid="ignore"):
        miss = np.where(known, before.astype(np.float64).reshape(known.shape) - after.astype(np.float64).reshape(known.shape), 0.0)
    return np.abs((miss * share).sum((1, 2)) / share.sum((1, 2)))


def cosines(dataset: Any) -> Any:
    return np.cos(np.deg2rad(dataset.lat.values))


def ulp(values: Any) -> float:
    return float(np.spacing(np.float32(np.nanmax(np.abs(values)))))


def test_means_come_back_by_area_and_bounds_hold(tmp_path: Path) -> None:
    source = weather_file(tmp_path)
    before = raw(source)
    for options in ({"max_error": 0.5}, {"quality": 20}):
        plain, kept = (latentpress.decode_dataset(latentpress.encode_dataset(source, **options, keep_mean=k), decode_cf=False) for k in (False, True))
        off = [mean_errors(before.t2m.values, d.t2m.values, cosines(before)) for d in (plain, kept)]
        assert off[1].max() <= ulp(before.t2m.values) / 50 and off[0].max() > 20 * off[1].max()
        off = [mean_errors(before.sst.values, d.sst.values, cosines(before), (FILL,)) for d in (plain, kept)]
        assert off[1].max() <= 0.02 and off[0].max() > off[1].max(), "packed integers: two hundredths of a step"
        assert ((kept.sst.values == FILL) == (before.sst.values == FILL)).all()
        if "max_error" in options:
            assert abs(before.t2m.values.astype(float) - kept.t2m.values).max() <= 0.5
            assert abs(before.sst.values.astype(int) - kept.sst.values).max() <= 50
        assert "cosine" in kept.t2m.attrs["latentpress_keeps_mean"] and "latentpress_keeps_mean" not in kept.land.attrs
        np.testing.assert_array_equal(kept.land.values, before.land.values)


def test_rows_that_are_no_latitudes_weigh_the_same() -> None:
    dataset = weather()
    assert row_weights(dataset, dataset.t2m.variable) == pytest.approx(np.clip(cosines(dataset), 0, None))
    dataset.lat.attrs.clear()
    assert row_weights(dataset, dataset.t2m.variable) == pytest.approx(np.clip(cosines(dataset), 0, None)), "by its name"
    metres = dataset.assign_coords(lat=dataset.lat * 1000)
    assert (row_weights(metres, metres.t2m.variable) == 1).all()
    bare = dataset.drop_vars("lat")
    assert (row_weights(bare, bare.t2m.variable) == 1).all()
    blob = latentpress.encode_dataset(bare, max_error=0.5, keep_mean=True)
    back = latentpress.decode_dataset(blob)
    assert mean_errors(dataset.t2m.values, back.t2m.values, np.ones(20)).max() <= ulp(dataset.t2m.values) / 50
    assert back.t2m.attrs["latentpress_keeps_mean"] == "of each plane"


def test_a_region_has_the_values_of_the_whole() -> None:
    blob = latentpress.encode_dataset(weather(), max_error=0.5, keep_mean=True)
    file = open_file(blob)
    assert file.description.variables[file.number("t2m")].means is not None
    whole = file.read("t2m")
    for region in ([slice(1, 3), slice(4, 9), slice(30, 36)], [slice(2, 3), slice(19, 20), slice(0, 36)]):
        np.testing.assert_array_equal(file.read("t2m", region), whole[tuple(region)])
    partial = open_file(blob, partial=True)
    np.testing.assert_array_equal(partial.read("t2m"), whole)


FLOATS = st.one_of(st.floats(-1000, 1000, width=32), st.sampled_from([0.0, -0.0, np.nan, np.inf, 273.15, 1e-42, 1e20]))
SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=9)


@settings(max_examples=80, deadline=None)
@given(st.one_of(hnp.arrays(np.float32, SHAPES, elements=FLOATS), hnp.arrays(np.float64, SHAPES, elements=FLOATS),
                 hnp.arrays(np.int16, SHAPES, elements=st.integers(-32768, 32767))), st.sampled_from([0.01, 1.0, 3.0, 1000.0]))  # fmt: skip
def test_whatever_the_values_the_bound_holds_and_means_are_within_half_a_step(x: np.ndarray, bound: float) -> None:
    weights = np.linspace(0.1, 1, x.shape[-2])
    signal = Signal(data=x, dims=("t", "y", "x")[-x.ndim :])
    encoded, means = encode_keeping(StandIn(), signal, Target(max_error=bound), effort=2, weights=weights, missing=[7])
    back = StandIn().decode(encoded).data
    if means is not None:
        back = corrected(back, means, region=tuple(slice(0, n) for n in x.shape), shape=x.shape, missing=[7])
        assert means_of(json.loads(json.dumps(means.json())), x.shape, x.dtype, "x") == means
    known = there(x, [7])
    assert back[~known].tobytes() == x[~known].tobytes() and (there(back, [7]) == known).all()
    with np.errstate(invalid="ignore"):
        assert (np.abs(back.astype(np.float64) - x)[known] <= bound).all()
    step = 1 if x.dtype.kind == "i" else np.spacing(np.abs(x[known], dtype=x.dtype).max(initial=0)) * (2**16 if x.dtype == np.float64 else 1)
    off = mean_errors(x, back, weights, (7,))
    assert (off[np.isfinite(off)] <= 1.01 * step).all()


def test_zeros_stay_zeros_and_signs_stay() -> None:
    x = np.maximum(smooth(2, 40, 50) - 285, 0).astype(np.float32)
    dataset = xarray.Dataset({"tp": (("t", "y", "x"), x)})
    back = latentpress.decode_dataset(latentpress.encode_dataset(dataset, max_error=0.3, keep_mean=True)).tp.values
    assert (back >= 0).all() and (back[x == 0] == 0).all() and mean_errors(x, back, np.ones(40)).max() <= ulp(x)
    assert np.abs(back - x).max() <= 0.3


def test_bounds_that_leave_no_room_for_a_shift_are_refused() -> None:
    for options in ({"max_rel_error": 0.01}, {"max_error": np.ones((20, 36))}):
        with pytest.raises(InputError, match="t2m: keep-mean"):
            latentpress.encode_dataset(weather()[["t2m"]], keep_mean=True, **options)
    assert latentpress.encode_dataset(weather(), lossless=True, keep_mean=True) == latentpress.encode_dataset(weather(), lossless=True)


def test_a_codec_that_cannot_be_corrected_says_so() -> None:
    class Wild(StandIn):
        def decode(self, encoded: Any) -> Signal:
            data = super().decode(encoded).data
            return Signal(data=np.where(data > 0, np.inf, data).astype(data.dtype), dims=encoded.dims)

    with pytest.raises(BoundError, match="mean cannot be kept"):
        encode_keeping(Wild(), Signal(data=smooth(8, 9), dims=("y", "x")), Target(quality=50), effort=2, weights=np.ones(8), missing=[])


# ---- the page


def by_the_page(x: Any, means: dict[str, list[Any]], missing: list[Any]) -> Any:
    """docs/FORMAT.md, section 17, point by point."""
    planes, out = x.reshape(-1, *x.shape[-2:]), np.array(x).reshape(-1, *x.shape[-2:])
    points = x.shape[-2] * x.shape[-1]
    for p, plane in enumerate(planes):
        for i, value in enumerate(plane.flat):
            if not math.isfinite(value) or value in missing or (x.dtype.kind == "f" and value == 0):
                continue
            more = (i + 1) * means["some"][p] // points - i * means["some"][p] // points
            by = means["step"][p] * (means["whole"][p] + more)
            if x.dtype.kind == "f":
                moved = float(value) + by
                out[p].flat[i] = moved if (moved < 0) == (value < 0) else 0
            else:
                limits = np.iinfo(x.dtype)
                out[p].flat[i] = min(max(int(value) + int(by), limits.min), limits.max)
    return out.reshape(x.shape)


def test_the_page_says_what_the_package_does() -> None:
    dataset = weather(times=2)
    dataset["packed"] = (dataset.sst.dims, packed(dataset.sst.values), {"_FillValue": FILL, "scale_factor": 0.01})
    blob = latentpress.encode_dataset(dataset, max_error=0.5, keep_mean=True)
    about = json.loads(zlib.decompress(container.read(blob).metadata["dataset"]))
    file = open_file(blob)
    bare = latentpress.decode_dataset(changed(blob, lambda v: v.pop("means", None)), decode_cf=False)
    seen = 0
    for v in about["variables"]:
        if "means" in v:
            seen += 1
            missing = [FILL] if v["name"] == "packed" else []
            np.testing.assert_array_equal(by_the_page(bare[v["name"]].values, v["means"], missing), file.read(v["name"]))
    assert seen == 3


# ---- damage


def changed(blob: bytes, change: Any) -> bytes:
    file = container.read(blob)
    plain = json.loads(zlib.decompress(file.metadata["dataset"]))
    for v in plain["variables"]:
        if "means" in v:
            change(v)
    return container.write(file.encoded, metadata={"dataset": zlib.compress(json.dumps(plain).encode())})


@pytest.mark.parametrize("change", [
    lambda m: m.pop("some"), lambda m: m["step"].pop(), lambda m: m.update(whole="text"), lambda m: m["some"].__setitem__(0, -1),
    lambda m: m["some"].__setitem__(0, 10**6), lambda m: m["some"].__setitem__(0, 0.5), lambda m: m["whole"].__setitem__(0, 2**70),
    lambda m: m["step"].__setitem__(0, True), lambda m: m["step"].__setitem__(0, 10**400), lambda m: m["step"].__setitem__(0, -1.0),
    lambda m: m.update(more=[1, 2, 3]),
], ids=range(11))  # fmt: skip
def test_means_that_make_no_sense_are_refused(change: Any) -> None:
    blob = latentpress.encode_dataset(weather()[["t2m"]], max_error=0.5, keep_mean=True)
    with pytest.raises(FormatError, match="means of 't2m'"):
        open_file(changed(blob, lambda v: change(v["means"])))


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1e300), st.integers(-(2**53), 2**53), st.integers(0, 80), st.sampled_from(["float32", "float64", "int16", "uint8", "int32"]))
def test_any_means_give_an_array(step: float, whole: int, some: int, dtype: str) -> None:
    x = np.arange(80).astype(dtype).reshape(8, 10)
    try:
        means = means_of({"step": [step], "whole": [whole], "some": [some]}, x.shape, x.dtype, "x")
    except LatentpressError:
        return
    back = corrected(x, means, region=(slice(0, 8), slice(0, 10)), shape=x.shape, missing=[3])
    assert back.shape == x.shape and back.dtype == x.dtype and back[0, 3] == 3
    assert isinstance(means, Means)


# ---- the command line


def test_the_command_line_keeps_means_and_stores_refuse(tmp_path: Path) -> None:
    source = weather_file(tmp_path)
    done = CliRunner().invoke(app, ["encode", str(source), "-o", str(tmp_path / "a.lpz"), "--max-error", "0.5", "--keep-mean"])
    assert done.exit_code == 0, done.output
    assert latentpress.open_dataset(tmp_path / "a.lpz").t2m.attrs["latentpress_keeps_mean"]
    for arguments in ([str(source), "-o", str(tmp_path / "a.zarr")], [str(tmp_path / "no.png"), "-o", str(tmp_path / "b.lpz")]):
        done = CliRunner().invoke(app, ["encode", *arguments, "--keep-mean"])
        assert isinstance(done.exception, InputError) and "--keep-mean" in str(done.exception)
