import json
import math
from pathlib import Path

import numpy as np
import pytest

from latentpress.errors import InputError
from latentpress.eval.bd import METHODS, Curve, bd_psnr, bd_rate
from latentpress.eval.quality import qualities

DATA = json.loads((Path(__file__).parent / "data" / "kodak_curves.json").read_text("utf-8"))


def stored(name: str) -> Curve:
    return Curve(name=name, rate=DATA["curves"][name]["bpp"], quality=DATA["curves"][name]["psnr"])


@pytest.mark.parametrize("anchor, test, percent", DATA["bd_rate"])
def test_bd_rate_gives_the_reference_figures_of_the_stored_curves(anchor, test, percent):
    assert bd_rate(stored(anchor), stored(test)).value == pytest.approx(percent, abs=0.03)


@pytest.mark.parametrize("anchor, test, decibel", DATA["bd_psnr"])
def test_bd_psnr_gives_the_reference_figures_of_the_stored_curves(anchor, test, decibel):
    assert bd_psnr(stored(anchor), stored(test)).value == pytest.approx(decibel, abs=0.002)


@pytest.mark.parametrize("anchor, test, percent", DATA["bd_rate_akima"])
def test_akima_gives_the_reference_figures_of_the_stored_curves(anchor, test, percent):
    assert bd_rate(stored(anchor), stored(test), method="akima").value == pytest.approx(percent, abs=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("anchor, test", [("VTM", "WebP"), ("VTM", "JPEG"), ("VTM", "hyperprior"), ("VTM", "ELIC(paper)"), ("WebP", "hyperprior")])
def test_bd_agrees_with_the_bjontegaard_package(anchor, test, method):
    package = pytest.importorskip("bjontegaard")
    a, t = stored(anchor), stored(test)
    options = {"method": method, "require_matching_points": False, "min_overlap": 0}
    theirs = package.bd_rate(a.rate, a.quality, t.rate, t.quality, **options)
    assert bd_rate(a, t, method=method).value == pytest.approx(theirs, abs=1e-6)
    assert bd_psnr(a, t, method=method).value == pytest.approx(package.bd_psnr(a.rate, a.quality, t.rate, t.quality, **options), abs=1e-6)


def in_decibel(name: str, shift: float) -> Curve:
    """MS-SSIM of a stored curve in dB, each value moved by `shift` before."""
    rising, curve = qualities(["ms_ssim"])[1].rising, DATA["curves"][name]
    return Curve(name=name, rate=curve["bpp"], quality=[rising(v + shift) for v in curve["ms_ssim"]], unit="MS-SSIM in dB")


@pytest.mark.parametrize("anchor, test, percent", DATA["bd_rate_ms_ssim_db"])
def test_bd_rate_of_ms_ssim_in_decibel_is_the_reference_within_the_rounding_of_the_stored_values(anchor, test, percent):
    corners = [bd_rate(in_decibel(anchor, a), in_decibel(test, t)).value for a in (-5e-5, 5e-5) for t in (-5e-5, 5e-5)]
    assert min(corners) < percent < max(corners)
    assert bd_rate(in_decibel(anchor, 0), in_decibel(test, 0)).value == pytest.approx(percent, abs=0.35)


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match=r"cubic.*pchip, akima"):
        bd_rate(stored("VTM"), stored("HM"), method="cubic")


def test_a_refusal_names_the_unit_of_the_quality():
    low = Curve(name="low", rate=[0.1, 0.2], quality=[5, 8], unit="MS-SSIM in dB")
    with pytest.raises(InputError, match=r"no overlap.*more operating points") as refusal:
        bd_rate(low, Curve(name="high", rate=[1, 2], quality=[10, 12], unit="MS-SSIM in dB"))
    assert "(MS-SSIM in dB)" in str(refusal.value)


def test_a_constant_factor_in_rate_is_that_percentage_and_the_overlap_is_stated():
    anchor = stored("VTM")
    test = Curve(name="half", rate=[r / 2 for r in anchor.rate[2:]], quality=anchor.quality[2:])
    delta = bd_rate(anchor, test)
    assert delta.value == pytest.approx(-50, abs=0.2)  # the first slope of a cut curve differs a little
    assert (delta.low, delta.high) == (31.2, 46.592)
    assert delta.share == pytest.approx((46.592 - 31.2) / (46.592 - 26.145))


def test_a_constant_gain_in_quality_is_that_many_decibel_at_equal_rate():
    anchor = stored("WebP")
    delta = bd_psnr(anchor, Curve(name="better", rate=anchor.rate, quality=[q + 1.5 for q in anchor.quality]))
    assert delta.value == pytest.approx(1.5, abs=1e-9)
    assert (delta.low, delta.high) == (pytest.approx(anchor.rate[0]), pytest.approx(anchor.rate[-1]))
    assert delta.share == 1


def test_the_order_of_points_does_not_matter():
    anchor, test = stored("VTM"), stored("BPG")
    shuffled = Curve(name="BPG", rate=list(test.rate)[::-1], quality=list(test.quality)[::-1])
    assert bd_rate(anchor, shuffled) == bd_rate(anchor, test)


@pytest.mark.parametrize("delta, words", [(bd_rate, "dB"), (bd_psnr, "log rate")])
def test_curves_that_share_no_range_are_refused_and_both_are_named(delta, words):
    low = Curve(name="low", rate=[0.1, 0.2], quality=[20, 25])
    high = Curve(name="high", rate=[1.0, 2.0], quality=[25, 35])  # touching in one point is no range either
    with pytest.raises(InputError, match=f"low.*high.*{words}.*no overlap"):
        delta(low, high)


@pytest.mark.parametrize(
    "rate, quality, words",
    [
        ([0.1], [20], "two or more"),
        ([0.1, 0.2], [20, 25, 30], "two or more"),
        ([0.0, 0.2], [20, 25], "positive"),
        ([0.1, 0.2], [20, math.inf], "finite"),
        ([0.1, 0.2, 0.3], [20, 25, 24], "both rise"),
        ([0.1, 0.1, 0.3], [20, 25, 30], "both rise"),
    ],
)
def test_curves_without_a_meaning_are_refused(rate, quality, words):
    good = Curve(name="good", rate=[0.1, 0.2, 0.4], quality=[20, 25, 30])
    for delta in (bd_rate, bd_psnr):
        with pytest.raises(InputError, match=f"odd.*{words}"):
            delta(good, Curve(name="odd", rate=rate, quality=quality))


def test_numpy_arrays_are_taken_as_well():
    a, t = stored("VTM"), stored("HM")
    as_array = Curve(name="HM", rate=np.array(t.rate), quality=np.array(t.quality))
    assert bd_rate(a, as_array) == bd_rate(a, t)
