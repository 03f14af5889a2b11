import json

import pytest

from latentpress.errors import FormatError, InputError, UnsupportedError
from latentpress.eval.report.load import load_bench
from latentpress.eval.report.select import comparable
from tests.eval.report_bench import CODECS, ITEMS, RATES, all_rows, failed, row, write_bench


def test_rows_and_manifest_come_back(tmp_path):
    bench = load_bench(write_bench(tmp_path))
    assert len(bench.rows) == len(CODECS) * len(RATES) * len(ITEMS) and bench.errors == () and bench.notes == ()
    assert bench.codecs == list(CODECS) and bench.own == {"walloc-rgb, effort 2"}
    assert bench.metrics == ["psnr", "ms_ssim", "lpips"]


def test_the_last_row_of_a_key_wins_and_a_retried_error_is_gone(tmp_path):
    bench = load_bench(write_bench(tmp_path, [failed(), *all_rows(), row("jpeg", 0.1, "kodim01", psnr=11.0)]))
    assert bench.errors == ()
    assert [r["psnr"] for r in bench.rows if (r["codec"], r["setting"], r["item"]) == ("jpeg", "rate=0.1", "kodim01")] == [11.0]


def test_rows_of_older_weights_are_left_out_and_counted(tmp_path):
    old = [row("walloc-rgb, effort 2", r, i, digest="d0", psnr=1.0) for r in RATES for i in ITEMS]
    bench = load_bench(write_bench(tmp_path, [*all_rows(), *old]))
    assert min(r["psnr"] for r in bench.rows) > 20
    assert bench.notes == ("12 rows of older weights or library versions are left out",)


def test_several_presets_may_make_one_curve(tmp_path):
    rows = [row("jpeg", r, i, digest=f"preset {r}") for r in RATES for i in ITEMS]
    codecs = [{"codec": "jpeg", "own": True, "spec": "jpeg=./a jpeg=./b", "settings": [], "digests": [f"preset {r}" for r in RATES]}]
    assert len(load_bench(write_bench(tmp_path, rows, codecs=codecs)).rows) == len(rows)


def test_rows_of_earlier_runs_join_those_of_the_last(tmp_path):
    bench = load_bench(write_bench(tmp_path, [*all_rows(), *(row("avif", 0.1, i) for i in ITEMS)]))
    assert bench.codecs == [*CODECS, "avif"]


def test_a_row_that_was_cut_short_is_left_out_said_and_kept_in_the_file(tmp_path):
    path = write_bench(tmp_path) / "rows.jsonl"
    whole = path.read_text() + json.dumps(row("avif", 0.1, "kodim01"))[:40]
    path.write_text(whole)
    assert load_bench(tmp_path).notes == ("the last row was cut short and is left out",)
    assert path.read_text() == whole


@pytest.mark.parametrize("name", ["bench.json", "rows.jsonl"])
def test_a_missing_file_is_named_with_what_to_do(tmp_path, name):
    (write_bench(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file.*latentpress bench"):
        load_bench(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder.*latentpress bench"):
        load_bench(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "line, words",
    [
        ("{broken", "damaged"),
        ("[1, 2]", "a JSON object expected"),
        (json.dumps(row("jpeg", 0.1, "kodim01") | {"codec": 3}), "'codec' is missing or wrong"),
        (json.dumps({k: v for k, v in row("jpeg", 0.1, "kodim01").items() if k != "bytes"}), "'bytes' is missing or wrong"),
        (json.dumps(row("jpeg", 0.1, "kodim01", bpp=0)), "'bpp' is missing or wrong"),
        (json.dumps(row("jpeg", 0.1, "kodim01", bytes="many")), "'bytes' is missing or wrong"),
        (json.dumps(row("jpeg", 0.1, "kodim01", shape=[])), "'shape' is missing or wrong"),
        (json.dumps(row("jpeg", 0.1, "kodim01", psnr="36")), "'psnr' is missing or wrong"),
        (json.dumps(row("jpeg", 0.1, "kodim01", status="perhaps")), "'status' is missing or wrong"),
    ],
)
def test_a_damaged_row_is_named_by_file_and_line_with_the_remedy(tmp_path, line, words):
    path = write_bench(tmp_path) / "rows.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[4:]]) + "\n")
    with pytest.raises(FormatError, match=rf"rows.jsonl line 5: {words}") as error:
        load_bench(tmp_path)
    assert "\n" not in str(error.value) and ("delete that line" in str(error.value) or "run the bench again" in str(error.value))


def test_rows_of_another_schema_are_refused(tmp_path):
    with pytest.raises(UnsupportedError, match=r"rows.jsonl line 1: schema 2, this version reads 1.*again"):
        load_bench(write_bench(tmp_path, [row("jpeg", 0.1, "kodim01", schema=2)]))


@pytest.mark.parametrize(
    "text, error, words",
    [
        ("{", FormatError, "damaged"),
        ("[]", FormatError, "a JSON object expected"),
        ('{"schema": 7}', UnsupportedError, "schema 7"),
        ('{"schema": 1, "codecs": [{"name": "x"}], "items": []}', FormatError, "'codecs' is no list"),
        ('{"schema": 1, "codecs": [], "items": 3}', FormatError, "'items' is no list"),
        ('{"schema": 1, "domain": "audio", "codecs": [], "items": []}', UnsupportedError, "'audio'"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, error, words):
    (write_bench(tmp_path) / "bench.json").write_text(text)
    with pytest.raises(error, match=rf"bench.json: .*{words}"):
        load_bench(tmp_path)


@pytest.mark.parametrize("rows", [[], [failed()]])
def test_a_bench_without_one_measurement_is_refused(tmp_path, rows):
    with pytest.raises(InputError, match=r"rows.jsonl: no measurement"):
        load_bench(write_bench(tmp_path, rows))


def test_a_bench_of_lossless_rows_alone_is_refused(tmp_path):
    with pytest.raises(InputError, match="no row has a finite quality"):
        load_bench(write_bench(tmp_path, [r | dict.fromkeys(("psnr", "ms_ssim", "lpips")) for r in all_rows()]))


def without(missing) -> list[dict]:
    return [r for r in all_rows() if not missing(r)]


def test_an_item_that_a_whole_codec_failed_on_leaves_all_curves():
    chosen = comparable(without(lambda r: r["codec"] == "webp" and r["item"] == "kodim02"), ITEMS)
    assert chosen.items == ("kodim01", "kodim03") and len(chosen.rows) == 2 * len(CODECS) * len(RATES)
    assert chosen.notes == ("curves are means over 2 of 3 items; not measured at every setting: kodim02",)


def test_a_setting_that_failed_on_one_item_leaves_and_all_items_stay():
    chosen = comparable(without(lambda r: (r["codec"], r["setting"], r["item"]) == ("webp", "rate=0.1", "kodim01")), ITEMS)
    assert chosen.items == ITEMS and len(chosen.rows) == len(all_rows()) - 3
    assert chosen.notes == ("webp rate=0.1: measured on 2 of 3 items, left out of the curves",)


def test_of_a_run_that_goes_on_the_finished_items_are_shown():
    chosen = comparable(without(lambda r: r["item"] == "kodim03" and not (r["codec"] == "jpeg" and r["setting"] == "rate=0.1")), ITEMS)
    assert chosen.items == ("kodim01", "kodim02") and {r["codec"] for r in chosen.rows} == set(CODECS)


def test_items_that_no_setting_shares_still_give_the_curves_of_one_item():
    rows = [row("jpeg", r, "kodim01") for r in RATES] + [row("webp", r, "kodim02") for r in RATES[:2]]
    chosen = comparable(rows, ITEMS)
    assert chosen.items == ("kodim01",) and {r["codec"] for r in chosen.rows} == {"jpeg"}
    assert any("webp" in n for n in chosen.notes)
