import json
import re

import numpy as np
import pytest

from latentpress.errors import InputError
from latentpress.eval.report.load import load_bench
from latentpress.eval.report.page import render
from latentpress.eval.report.palette import DARK, LIGHT, looks
from latentpress.eval.report.pictures import PAGE_BYTES, Coded, data_uri, make_pictures, spread, window
from latentpress.eval.report.provider import ManifestProvider
from latentpress.eval.report.summary import summarise
from tests.eval.fakes import ShiftFamily, photograph
from tests.eval.report_bench import CODECS, ITEMS, RATES, all_rows, failed, quantiser, row, write_bench

OURS = "walloc-rgb, effort 2"


def summary_of(folder, rows=None, **changes):
    return summarise(load_bench(write_bench(folder, rows, **changes)))


def model_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_bd_rates_on_the_page_are_the_factors_the_rows_were_made_with(tmp_path):
    model = model_of(render(summary_of(tmp_path), [], anchor="webp"))
    for key in ("psnr", "ms_ssim", "ms_ssim_db", "lpips"):
        for method in ("pchip", "akima"):
            table = model["bd"][key][method]
            assert table[OURS]["jpeg"]["value"] == pytest.approx(-50, abs=0.01)
            assert table["jpeg"][OURS]["value"] == pytest.approx(100, abs=0.01)
            assert table["webp"]["jpeg"]["value"] == pytest.approx(-30, abs=0.01)
            assert OURS not in table[OURS]
    assert model["bd"]["lpips"]["pchip"][OURS]["jpeg"]["low"] == pytest.approx(0.05 / 0.8)
    assert model["anchors"] == ["webp", "jpeg", OURS]


def test_curves_without_common_quality_are_refused_with_the_reason(tmp_path):
    far = [row("avif", r, i, psnr=60 + r) for r in RATES for i in ITEMS]
    cell = model_of(render(summary_of(tmp_path, [*all_rows(), *far]), [], anchor="webp"))["bd"]["psnr"]["pchip"]["avif"]["webp"]
    assert set(cell) == {"why"} and "no overlap" in cell["why"]


def test_points_hold_means_and_megapixels_a_second(tmp_path):
    model = model_of(render(summary_of(tmp_path), [], anchor="webp"))
    point = model["curves"][OURS][0]
    assert point["bpp"] == pytest.approx(0.12) and point["q"]["psnr"] == pytest.approx(28)
    assert point["encode"] == pytest.approx(48 * 64 / 1e6 / 0.002, rel=1e-3) and point["encode_entropy"] == pytest.approx(0.25)
    assert model["curves"]["jpeg"][0]["encode_entropy"] is None
    assert model["items"][0]["points"]["jpeg"][0][1:3] == [round(0.22 * 48 * 64 / 8), "rate=0.1"]


def test_the_page_says_what_was_measured_what_failed_and_what_is_left_out(tmp_path):
    rows = [r for r in all_rows() if (r["codec"], r["item"]) != ("webp", "kodim02")]
    page = render(summary_of(tmp_path, [*rows, failed()]), [], anchor="webp")
    for words in ("data/kodak", "latentpress bench kodak -o out", "Some CPU, 2 cores, Linux, x86_64", "1 thread", "medians of 3 runs", "jpeg 1.0"):
        assert words in page, words
    assert "OSError: &lt;encoder&gt; refused" in page and "not measured at every setting: kodim02" in page


def test_no_name_in_the_rows_can_leave_its_place_in_the_page(tmp_path):
    evil = "</script><script>alert(1)</script>"
    rows = [*all_rows(), *(row(evil, r, i) for r in RATES for i in ITEMS), failed(codec=evil, error=evil, setting="<b>")]
    page = render(summary_of(tmp_path, rows, data="<img src=x>", command=evil), [], anchor=evil)
    assert "<script>alert" not in page and "<img src=x>" not in page
    assert model_of(page)["anchors"][0] == evil


def test_the_page_forbids_the_network_and_names_no_outside_file(tmp_path):
    page = render(summary_of(tmp_path), [], anchor="webp")
    assert "default-src 'none'; img-src data: blob:" in page
    ours = page[: page.index("plotly.js v")] + page[page.index('id="data"') :]
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)[^"']+""", ours)
    assert "http" not in ours.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_own_codecs_take_the_first_colours_and_no_two_codecs_look_alike():
    names = [f"c{i}" for i in range(12)]
    found = looks(names, {"c7"})
    assert found["c7"].light == LIGHT[0] and found["c7"].dark == DARK[0] and found["c7"].own
    assert len({(v.light, v.symbol, v.dash) for v in found.values()}) == 12


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette, paper", [(LIGHT, "#ffffff"), (DARK, "#14171b")])
def test_lines_stand_out_from_the_paper(palette, paper):
    for colour in palette:
        low, high = sorted((luminance(colour), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3, colour  # WCAG's bound for graphics


# ---- pictures


def entries(folder):
    return [{"item": i, "path": str(folder / f"{i}.png")} for i in ITEMS]


def test_captions_state_real_bytes_rate_and_psnr_and_pictures_are_what_was_decoded(tmp_path):
    import base64
    import io

    from PIL import Image

    from latentpress.eval.metrics import psnr

    write_bench(tmp_path)
    picture = make_pictures(entries(tmp_path)[:1], list(CODECS), quantiser, bpp=2)[0]
    image = photograph(48, 64, seed=0)
    budget = 2 * 48 * 64 // 8
    sides = {s.name: s for s in picture.sides}
    assert list(sides) == ["original", *CODECS] and f"at most {budget:,} bytes" in picture.note
    decoded = quantiser("jpeg", image, budget).decoded
    assert sides["jpeg"].caption == f"{budget - 64:,} bytes, {8 * (budget - 64) / 48 / 64:.3f} bpp, {psnr(image, decoded):.2f} dB (step=64)"
    for name, expected in (("original", image), ("jpeg", decoded)):
        blob = base64.b64decode(sides[name].source.removeprefix("data:image/webp;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")), expected)
    assert sides["webp"].source == "" and sides["webp"].missing == "encoder is gone"


def test_a_file_that_is_gone_and_a_codec_that_breaks_are_said_and_the_rest_is_made(tmp_path):
    write_bench(tmp_path)
    (tmp_path / "kodim02.png").unlink()

    def broken(codec, image, budget):
        raise ZeroDivisionError("strange\nerror")

    pictures = make_pictures(entries(tmp_path)[:2], ["jpeg"], broken, bpp=1)
    assert pictures[0].sides[1].missing == "ZeroDivisionError: strange" and pictures[0].sides[0].source
    assert "kodim02.png" in pictures[1].note and pictures[1].sides == ()
    page = render(summarise(load_bench(tmp_path)), pictures, anchor="webp")
    assert "ZeroDivisionError: strange" in page and "kodim02.png" in page


def test_large_images_show_their_middle_and_quality_is_of_the_whole(tmp_path):
    assert window((480, 640, 3)) == (0, 0, 480, 640)
    assert window((1000, 2000, 3)) == (116, 616, 768, 768)


def test_pictures_stop_before_the_page_becomes_too_large(tmp_path, monkeypatch):
    write_bench(tmp_path)
    monkeypatch.setattr("latentpress.eval.report.pictures.PAGE_BYTES", 20_000)
    pictures = make_pictures(entries(tmp_path), ["jpeg"], quantiser, bpp=1)
    assert pictures[0].sides and not pictures[2].sides and "too large" in pictures[2].note
    assert PAGE_BYTES < 25_000_000 - 5_000_000  # what plotly.js takes


def test_pictures_are_spread_over_the_items():
    items = [{"item": str(i)} for i in range(24)]
    assert [e["item"] for e in spread(items, 3)] == ["0", "8", "16"]
    assert spread(items[:2], 3) == items[:2] and spread(items, 0) == []


def test_an_embedded_picture_is_lossless():
    assert data_uri(photograph()).startswith("data:image/webp;base64,UklGR")


# ---- the codecs of a manifest


def test_a_family_gives_the_best_file_that_fits():
    image = photograph()
    provider = ManifestProvider(codecs=[{"codec": "shift", "own": False, "spec": "shift"}], families={"shift": ShiftFamily()})
    budget = len(ShiftFamily().at(5).encode(image))
    coded = provider("shift", image, budget)
    assert (coded.bytes, coded.setting) == (budget, "bits=5")
    np.testing.assert_array_equal(coded.decoded, ShiftFamily().at(5).decode(ShiftFamily().at(5).encode(image)))


def test_other_codecs_give_the_largest_of_their_settings_that_fits():
    image = photograph()
    entry = {"codec": "thing", "own": True, "spec": "thing=./a thing=./b"}
    provider = ManifestProvider(codecs=[entry], families={}, resolve=lambda e: [ShiftFamily().at(b) for b in (6, 2, 4)] if e is entry else [])
    budget = len(ShiftFamily().at(5).encode(image))
    assert provider("thing", image, budget).setting == "bits=4"
    with pytest.raises(InputError, match=r"bytes at its smallest setting, 10 allowed"):
        provider("thing", image, 10)


def test_our_presets_are_asked_for_their_bytes(photo):
    provider = ManifestProvider(codecs=[{"codec": "walloc-rgb, effort 0", "own": True, "spec": "walloc-rgb@effort=0"}])
    coded = provider("walloc-rgb, effort 0", photo, 400)
    assert isinstance(coded, Coded) and 200 < coded.bytes <= 400 and coded.decoded.shape == photo.shape


@pytest.mark.parametrize("codec, words", [("absent", "not in the bench's last run"), ("odd", "does not know how to run 'odd@q=1'")])
def test_codecs_that_cannot_be_run_again_are_named(codec, words):
    provider = ManifestProvider(codecs=[{"codec": "odd", "own": False, "spec": "odd@q=1"}])
    with pytest.raises(InputError, match=f"{codec}: .*{words}"):
        provider(codec, photograph(), 1000)
