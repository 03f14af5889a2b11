"""The committed figures agree with themselves: each summary follows from the rows beside it."""

import json

import pytest

from latentpress.eval.bd import bd_rate
from latentpress.eval.curves import Point, as_curve
from latentpress.eval.figures import FOLDER

PIXELS = 768 * 512  # of every Kodak image


@pytest.fixture(scope="module")
def figures():
    return json.loads((FOLDER / "image.json").read_text("utf-8"))


def test_mean_rate_and_quality_are_those_of_the_images(figures):
    count = len(figures["images"])
    for points in figures["curves"].values():
        for point in points:
            assert len(point["bytes_by_image"]) == len(point["psnr_by_image"]) == count
            assert point["bpp"] == pytest.approx(8 * sum(point["bytes_by_image"]) / count / PIXELS, abs=2e-6)
            assert point["psnr"] == pytest.approx(sum(point["psnr_by_image"]) / count, abs=2e-4)


def test_bd_rates_follow_from_the_curves(figures):
    curves = {name: as_curve(name, [Point(**p) for p in points]) for name, points in figures["curves"].items()}
    checked = 0
    for codec, row in figures["bd_rate"].items():
        for anchor, entry in row.items():
            if "percent" in entry:
                delta = bd_rate(curves[anchor], curves[codec])
                assert entry["percent"] == pytest.approx(delta.value, abs=0.02)
                assert entry["overlap_db"] == pytest.approx([delta.low, delta.high], abs=0.002)
                checked += 1
    assert checked >= 3
