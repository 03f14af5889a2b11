from pathlib import Path

from typer.testing import CliRunner, Result

from latentpress import cli
from latentpress.eval.report.writing import Outputs, write_report
from tests.eval.report_bench import CODECS, all_rows, quantiser, write_bench
from tests.helpers import cli as fresh_cli


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


def test_the_page_lies_in_the_bench_folder_unless_told_otherwise(tmp_path):
    write_bench(tmp_path / "out")
    assert run(tmp_path / "out", "--pictures", 0).stdout == f"{tmp_path / 'out' / 'report.html'}\n"
    assert run(tmp_path / "out", "--pictures", 0, "-o", tmp_path / "new" / "page.html").exit_code == 0
    page = (tmp_path / "new" / "page.html").read_text()
    assert page == (tmp_path / "out" / "report.html").read_text() and "Rate and distortion, kodak" in page


def test_figures_and_tables_come_along_when_asked_for(tmp_path):
    write_bench(tmp_path, metrics=["psnr"])
    done = run(tmp_path, "--pictures", 0, "--static", "--csv", tmp_path / "rows.csv", "--json", tmp_path / "json", "--anchor", "jpeg")
    written = {Path(line).relative_to(tmp_path).as_posix() for line in done.stdout.splitlines()}
    assert written >= {"report.html", "rows.csv", "figures/rd-psnr.png", "figures/rd-psnr.svg", "figures/speed.svg", "json/jpeg.json"}
    assert all((tmp_path / name).stat().st_size > 0 for name in written)


def test_pictures_come_from_any_provider(tmp_path):
    write_bench(tmp_path)
    (page,) = write_report(tmp_path, Outputs(page=tmp_path / "p.html"), pictures=2, bpp=1, provider=quantiser)
    assert page.read_text().count("data:image/webp;base64,") == 2 * len(CODECS)  # the original in place of webp, which fails


def test_bad_folders_end_in_one_line_and_exit_code_1(tmp_path):
    done = fresh_cli("report", tmp_path)
    assert done.returncode == 1 and done.stdout == b""
    line = done.stderr.decode()
    assert line.startswith(f"latentpress: {tmp_path / 'bench.json'}: no such file") and line.count("\n") == 1


def test_an_unknown_anchor_is_refused_and_the_known_ones_are_listed(tmp_path):
    done = fresh_cli("report", write_bench(tmp_path), "--pictures", 0, "--anchor", "wepb")
    assert done.returncode == 1 and "--anchor 'wepb'" in done.stderr.decode() and "jpeg, webp, walloc-rgb, effort 2" in done.stderr.decode()


def test_the_usual_anchor_need_not_be_there(tmp_path):
    rows = [r for r in all_rows() if r["codec"] != "webp"]
    assert run(write_bench(tmp_path, rows), "--pictures", 0).exit_code == 0


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = fresh_cli("report", write_bench(tmp_path / "out"), "--pictures", 0, "-o", tmp_path / "file" / "page.html")
    assert done.returncode == 1 and "page.html" in done.stderr.decode() and done.stderr.decode().count("\n") == 1
