import csv
import io
import json

import pytest

from latentpress.eval.report.export import compressai_files, csv_text, file_names
from latentpress.eval.report.load import load_bench
from latentpress.eval.report.static import split_bars, static_figures
from latentpress.eval.report.summary import summarise
from tests.eval.report_bench import CODECS, RATES, all_rows, failed, row, write_bench


def test_csv_holds_every_row_and_every_field(tmp_path):
    rows = [*all_rows(), failed("kodim09")]
    found = list(csv.DictReader(io.StringIO(csv_text(load_bench(write_bench(tmp_path, rows))))))
    assert len(found) == len(rows)
    assert set(found[0]) == (set().union(*rows) - {"shape"}) | {"height", "width", "bands"}
    for given, read in zip(rows[:-1], found, strict=False):
        assert float(read["bpp"]) == given["bpp"] and int(read["bytes"]) == given["bytes"] and read["setting"] == given["setting"]
        assert [int(read[k]) for k in ("height", "width", "bands")] == given["shape"] and json.loads(read["machine"]) == given["machine"]
    assert found[-1]["status"] == "error" and found[-1]["psnr"] == ""


def test_json_files_are_laid_out_as_those_of_compressai(tmp_path):
    summary = summarise(load_bench(write_bench(tmp_path)))
    files = compressai_files(summary)
    assert sorted(files) == ["jpeg.json", "walloc-rgb-effort-2.json", "webp.json"]
    found = json.loads(files["walloc-rgb-effort-2.json"])
    assert found["name"] == "walloc-rgb, effort 2" and "mean of 3 items" in found["description"]
    results = found["results"]
    assert set(results) == {"bpp", "psnr-rgb", "ms-ssim-rgb", "lpips", "encoding_time", "decoding_time"}
    assert results["bpp"] == pytest.approx([r * 1.2 for r in RATES]) and results["psnr-rgb"][0] == pytest.approx(28)
    assert results["ms-ssim-rgb"][0] == pytest.approx(1 - 0.02 / 0.1**0.5) and results["encoding_time"] == pytest.approx([0.002] * 4)


def test_a_metric_with_gaps_is_left_out_of_the_json(tmp_path):
    rows = [r | {"ms_ssim": None} if (r["codec"], r["setting"]) == ("jpeg", "rate=0.1") else r for r in all_rows()]
    files = compressai_files(summarise(load_bench(write_bench(tmp_path, rows))))
    assert "ms-ssim-rgb" not in json.loads(files["jpeg.json"])["results"] and "ms-ssim-rgb" in json.loads(files["webp.json"])["results"]


def test_file_names_are_safe_and_all_different():
    names = file_names(["a b", "a/b", "../..", "A B"])
    assert names == {"a b": "a-b", "a/b": "a-b-2", "../..": "codec", "A B": "A-B-3"}


def test_static_figures_are_whole_pngs_and_svgs_that_name_every_codec(tmp_path):
    from PIL import Image

    files = static_figures(summarise(load_bench(write_bench(tmp_path, metrics=["psnr", "lpips"]))))
    assert set(files) == {f"{s}.{kind}" for s in ("rd-psnr", "rd-lpips", "speed", "split") for kind in ("png", "svg")}
    for name, blob in files.items():
        if name.endswith("png"):
            with Image.open(io.BytesIO(blob)) as picture:
                assert picture.width >= 900 and len(picture.convert("RGB").getcolors(1 << 24)) > 50  # drawn on
        else:
            text = blob.decode()
            wanted = list(CODECS) if not name.startswith("split") else ["walloc-rgb, effort 2"]
            assert "<svg" in text and all(c in text for c in wanted), name
    assert "PSNR, dB" in files["rd-psnr.svg"].decode() and "lower is better" in files["rd-lpips.svg"].decode()


def test_without_split_times_there_is_no_split_figure_and_the_same_rows_give_the_same_files(tmp_path):
    rows = [row("jpeg", r, i) for r in RATES for i in ("kodim01", "kodim02")]
    summary = summarise(load_bench(write_bench(tmp_path, rows, metrics=["psnr"])))
    first = static_figures(summary)
    assert set(first) == {"rd-psnr.png", "rd-psnr.svg", "speed.png", "speed.svg"} and static_figures(summary) == first


def test_bars_add_up_to_the_measured_time(tmp_path):
    bars = split_bars(summarise(load_bench(write_bench(tmp_path))))
    megapixels = 48 * 64 / 1e6
    assert [(b[0], b[1]) for b in bars] == [("walloc-rgb, effort 2", "encode"), ("walloc-rgb, effort 2", "decode")]
    assert bars[0][2] + bars[0][3] == pytest.approx(0.002 / megapixels) and bars[0][3] == pytest.approx(0.0005 / megapixels)
