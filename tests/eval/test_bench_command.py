"""`latentpress bench`: words to options, exit codes, one line an error."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from latentpress.cli import app
from latentpress.commands.bench import spread
from latentpress.errors import InputError
from tests.eval.fakes import photograph


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in (1, 2):
        Image.fromarray(photograph(seed=i)).save(folder / f"p{i}.png")
    return folder


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_one_option_takes_many_words():
    assert spread(["D", "--peers", "a", "b", "-o", "out", "--jobs", "2", "--codecs", "c@q=1"]) == [
        "D", "--peers", "a", "--peers", "b", "-o", "out", "--jobs", "2", "--codecs", "c@q=1",
    ]  # fmt: skip


def test_a_bench_says_how_many_rows_and_what_the_harness_cost(photos, tmp_path):
    out = tmp_path / "out"
    done = bench(photos, "--peers", "jpeg@q=10:90:40", "webp@q=50", "-o", out, "--metrics", "psnr")
    assert done.exit_code == 0, done.output
    assert f"8 rows in {out} (8 new)" in done.stdout and "harness overhead" in done.stdout
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [(r["item"], r["codec"]) for r in rows] == [(i, c) for i in ("p1", "p2") for c in ("jpeg", "jpeg", "jpeg", "webp")]
    assert "(0 new)" in bench(photos, "--peers", "jpeg@q=10:90:40", "webp@q=50", "-o", out, "--metrics", "psnr").stdout


def test_a_row_that_failed_makes_exit_code_1_and_one_line(photos, tmp_path):
    (photos / "p2.png").write_bytes(b"no image")
    done = bench(photos, "--peers", "jpeg@q=10,90", "-o", tmp_path / "out", "--metrics", "psnr")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("latentpress: 2 of 4 rows failed: jpeg on p2: ")
    assert "p2.png: no readable image" in done.stderr


@pytest.mark.parametrize(
    "mode, words",
    [("I;16", "8-bit RGB"), ("CMYK", "8-bit RGB"), ("RGBA", "has opacity")],
)
def test_images_that_8_bit_rgb_cannot_hold_are_not_bent(photos, tmp_path, mode, words):
    Image.new(mode, (8, 8)).save(photos / "p3.tif")
    done = bench(photos, "--peers", "jpeg@q=10", "-o", tmp_path / "out", "--metrics", "psnr")
    assert done.exit_code == 1 and "1 of 3 rows failed" in done.stderr and words in done.stderr


def test_opaque_alpha_is_no_opacity(photos, tmp_path):
    Image.fromarray(photograph()).convert("RGBA").save(photos / "p3.png")
    assert bench(photos, "--peers", "jpeg@q=10", "-o", tmp_path / "out", "--metrics", "psnr").exit_code == 0


def test_what_makes_no_bench_is_one_error(tmp_path):
    done = bench(tmp_path / "none", "--peers", "jpeg", "-o", tmp_path / "out")
    assert isinstance(done.exception, InputError) and "none: no such file or folder" in str(done.exception)
