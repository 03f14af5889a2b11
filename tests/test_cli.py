"""The command line: what goes where, exit codes, one line an error. Most calls run in this process, as `main` does it."""

from __future__ import annotations

import io
import json
import re
import signal as signals
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import latentpress
from latentpress import api, container
from latentpress.codecs.base import Signal
from latentpress.formats.image import read_image
from tests.helpers import cli, natural, psnr, python


@dataclass
class Done:
    code: int
    out: bytes
    err: str


def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
    """`latentpress ARGUMENTS` without a new process."""
    from latentpress.cli import main

    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["latentpress", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    out.flush()
    return Done(code, out.buffer.getvalue(), err.getvalue())


def failed(done: Done, *words: object, code: int = 1) -> None:
    """One line that holds `words`."""
    assert done.code == code, done
    assert done.err.startswith("latentpress: ") and done.err.count("\n") == 1, done.err
    for word in words:
        assert str(word) in done.err


@pytest.fixture(scope="module")
def pngs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png, b.PNG, deep/c.png and a text file."""
    folder = tmp_path_factory.mktemp("pngs")
    (folder / "deep").mkdir()
    for i, name in enumerate(("a.png", "b.PNG", "deep/c.png")):
        blob = api.signal_bytes(Signal(data=natural(24, 32, left=100 + 90 * i), dims=("y", "x", "band")), ".png")
        (folder / name).write_bytes(blob)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def lpz(pngs: Path) -> bytes:
    return latentpress.encode(pngs / "a.png")


@pytest.fixture(scope="module")
def tiles() -> bytes:
    """A file of several chunks, one of them damaged."""
    blob = bytearray(latentpress.encode(natural(16, 1100), codec="walloc-rgb-16x"))
    table = [c for c in container.read(bytes(blob)).chunk_table if c.kind == "data"]
    assert len(table) > 1
    blob[table[-1].offset + table[-1].length // 2] ^= 255
    return bytes(blob)


def names(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


# ---- in and out


def test_one_file_there_and_back(pngs: Path, tmp_path: Path) -> None:
    done = run("encode", pngs / "a.png", "-o", tmp_path / "a.lpz")
    assert done.code == 0 and not done.err
    assert re.search(rf"a\.png -> .*a\.lpz  {(tmp_path / 'a.lpz').stat().st_size} bytes, [\d.]+ bpp", done.out.decode())
    for name in ("a.png", "a.jpg", "a.webp", "a.npy"):
        done = run("decode", tmp_path / "a.lpz", "-o", tmp_path / name)
        assert done.code == 0 and b"24 x 32 x 3 uint8" in done.out
    image = read_image(tmp_path / "a.png").data
    assert np.array_equal(np.load(tmp_path / "a.npy"), image)
    assert psnr(read_image(pngs / "a.png").data, image) > 22


def test_folders_keep_their_tree(pngs: Path, tmp_path: Path) -> None:
    assert run("encode", pngs, "-o", tmp_path / "coded").code == 0
    assert names(tmp_path / "coded") == ["a.lpz", "b.lpz", "deep/c.lpz"]
    assert run("decode", tmp_path / "coded", "-o", tmp_path / "images", "--format", "webp").code == 0
    assert names(tmp_path / "images") == ["a.webp", "b.webp", "deep/c.webp"]


def test_globs_and_lists_go_to_a_folder(pngs: Path, tmp_path: Path) -> None:
    assert run("encode", f"{pngs}/*.[pP][nN][gG]", "-o", tmp_path / "x").code == 0
    assert names(tmp_path / "x") == ["a.lpz", "b.lpz"]
    assert run("decode", tmp_path / "x/a.lpz", tmp_path / "x/b.lpz", "-o", tmp_path / "y").code == 0
    assert names(tmp_path / "y") == ["a.png", "b.png"]
    (tmp_path / "z").mkdir()
    assert run("decode", tmp_path / "x/a.lpz", "-o", tmp_path / "z").code == 0
    assert names(tmp_path / "z") == ["a.png"]


def test_standard_input_and_output_in_a_fresh_process(pngs: Path) -> None:
    image = (pngs / "a.png").read_bytes()
    coded = cli("encode", "-", "-o", "-", stdin=image, check=True)
    assert coded.stdout == latentpress.encode(image) and not coded.stderr
    done = run("decode", "-", "-o", "-", "--format", "npy", stdin=coded.stdout)
    assert np.array_equal(np.load(io.BytesIO(done.out)), latentpress.decode(coded.stdout).data)


def test_files_to_standard_output_and_standard_input_to_files(pngs: Path, tmp_path: Path) -> None:
    done = run("encode", pngs / "a.png", "-o", "-")
    assert done.out == latentpress.encode(pngs / "a.png")
    assert run("decode", "-", "-o", tmp_path / "a.png", stdin=done.out).code == 0
    assert names(tmp_path) == ["a.png"]
    failed(run("decode", "-", "-o", tmp_path / "a.png", stdin=done.out), "a.png")
    failed(run("encode", pngs, "-o", "-"), "standard output")
    failed(run("encode", pngs / "a.png", pngs / "b.PNG", "-o", "-"), "standard output")
    failed(run("encode", "-", pngs / "a.png", "-o", "-"), "alone", code=2)
    failed(run("decode", "-", "-", "-o", "-"), "alone", code=2)


def test_two_jobs_give_the_same_bytes_and_one_failure_stops_no_other(pngs: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.PNG"):
        (tmp_path / "in" / name).write_bytes((pngs / name).read_bytes())
    (tmp_path / "in/bad.png").write_bytes(b"no image")
    done = cli("encode", tmp_path / "in", "-o", tmp_path / "out", "--jobs", "2")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"bad.png" in done.stderr
    assert names(tmp_path / "out") == ["a.lpz", "b.lpz"]
    assert (tmp_path / "out/a.lpz").read_bytes() == latentpress.encode(pngs / "a.png")


# ---- exit codes and lines


def test_wrong_use_is_exit_code_2(pngs: Path, tmp_path: Path) -> None:
    a, out = pngs / "a.png", tmp_path / "a.lpz"
    failed(run("encode", a, "-o", out, "-q", "50", "--bpp", "1"), "one of", code=2)
    for arguments in (["encode", a], ["encode", a, "-o", out, "-q", "101"], ["encode", a, "-o", out, "--effort", "10"], ["nonsense"],
                      ["encode", a, "-o", out, "--max-bytes", "0"], ["encode", a, "-o", out, "--jobs", "0"], ["info"]):  # fmt: skip
        assert run(*arguments).code == 2
    assert not names(tmp_path)
    assert run("--version").out.decode().startswith("latentpress ") and run("--help").code == 0


def test_errors_are_one_line_that_names_the_file(pngs: Path, lpz: bytes, tmp_path: Path) -> None:
    a, out, text = pngs / "a.png", tmp_path / "a.lpz", pngs / "notes.txt"
    (tmp_path / "cut.lpz").write_bytes(lpz[:-9])
    (tmp_path / "good.lpz").write_bytes(lpz)
    (tmp_path / "empty").mkdir()
    failed(run("encode", tmp_path / "absent.png", "-o", out), "absent.png")
    failed(run("encode", text, "-o", out), text)
    failed(run("encode", tmp_path / "empty", "-o", tmp_path / "x"), "empty", ".png")
    failed(run("encode", f"{tmp_path}/*mpty", "-o", tmp_path / "x"), "*mpty")
    failed(run("encode", "x" * 300, "-o", out), "xxx")
    failed(run("encode", a, "-o", out, "--codec", "walloc-rbg"), a, "did you mean 'walloc-rgb'")
    failed(run("encode", a, "-o", out, "--bpp", "inf"), a, "bpp")
    failed(run("encode", a, "-o", out, "--max-bytes", "20"), a, "20 bytes")
    failed(run("encode", a, "-o", text / "b.lpz"), "notes.txt")
    failed(run("decode", a, "-o", tmp_path / "b.png"), a)
    failed(run("decode", tmp_path / "good.lpz", "-o", tmp_path / "b.xyz"), "good.lpz", ".xyz")
    for arguments in (["decode", "-o", tmp_path / "b.png"], ["info"], ["verify"], ["verify", "--symbols"]):
        failed(run(*arguments, tmp_path / "cut.lpz"), "cut.lpz")
    for command in ("info", "verify"):
        failed(run(command, tmp_path / "absent.lpz"), "absent.lpz")
        assert run(command, "-", stdin=b"junk").code == 1
    assert names(tmp_path) == ["cut.lpz", "good.lpz"]


def test_two_inputs_for_one_output_are_refused(pngs: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp"):
        (tmp_path / name).write_bytes((pngs / "a.png").read_bytes())
    failed(run("encode", tmp_path, "-o", tmp_path / "out"), "a.png", "a.bmp")
    assert not (tmp_path / "out").exists()


def test_existing_files_stay_without_overwrite(pngs: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.lpz"
    out.write_bytes(b"mine")
    failed(run("encode", pngs / "a.png", "-o", out), out, "--overwrite")
    assert out.read_bytes() == b"mine"
    assert run("encode", pngs / "a.png", "-o", out, "--overwrite").code == 0
    assert out.read_bytes() == latentpress.encode(pngs / "a.png")


def test_debug_shows_the_traceback(pngs: Path) -> None:
    with pytest.raises(latentpress.errors.LatentpressError):
        run("--debug", "info", pngs / "absent.lpz")
    failed(run("info", pngs / "absent.lpz"))
    done = run("--debug", "encode", pngs / "notes.txt", "-o", pngs / "x.lpz")
    assert done.code == 1 and "Traceback" in done.err


# ---- targets


@pytest.mark.parametrize("option, value", [("--max-bytes", 300), ("--bpp", 3.0), ("--psnr", 30.0)])
def test_targets_hold(option: str, value: float, pngs: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.lpz"
    assert run("encode", pngs / "a.png", "-o", out, option, value).code == 0
    size = out.stat().st_size
    if option == "--psnr":
        assert psnr(read_image(pngs / "a.png").data, latentpress.decode(out).data) >= value
    else:
        assert size <= (value if option == "--max-bytes" else value * 24 * 32 / 8)


# ---- facts


def test_info(lpz: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.lpz").write_bytes(lpz)
    facts = json.loads(run("info", "--json", tmp_path / "a.lpz").out)
    assert facts["codec"] == "walloc-rgb" and facts["shape"] == [24, 32, 3] and facts["dims"] == ["y", "x", "band"]
    assert facts["bytes"] == len(lpz) == facts["payload"] + facts["overhead"] + sum(facts["metadata"].values())
    assert facts["bpp"] == pytest.approx(8 * len(lpz) / (24 * 32), abs=1e-3)
    assert json.loads(run("info", "-", "--json", stdin=lpz).out) == facts
    text = run("info", tmp_path / "a.lpz").out.decode()
    assert "walloc-rgb" in text and "chunk" in text


def test_verify(lpz: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.lpz").write_bytes(lpz)
    assert run("verify", tmp_path / "a.lpz").out.decode() == f"{tmp_path / 'a.lpz'}: ok\n"
    symbols = run("verify", "--symbols", tmp_path / "a.lpz").out
    assert re.fullmatch(rb"[0-9a-f]{64}\n", symbols)
    assert run("verify", "--symbols", "-", stdin=lpz).out == symbols
    damaged = bytearray(lpz)
    damaged[len(lpz) // 2] ^= 1
    (tmp_path / "b.lpz").write_bytes(damaged)
    failed(run("verify", tmp_path / "b.lpz"), "b.lpz", "CRC")


def test_codecs() -> None:
    rows = {row["name"]: row for row in json.loads(run("codecs", "--json").out)}
    assert {"walloc-rgb", "walloc-rgb-4x", "walloc-rgb-16x"} <= set(rows)
    for row in rows.values():
        assert re.fullmatch("[0-9a-f]{16}", row["digest"]) and row["domain"] in ("image", "field", "array") and row["licence"]
    table = run("codecs").out.decode()
    assert all(name in table for name in rows)


# ---- damage


def test_partial_gives_what_is_whole_and_says_what_is_lost(tiles: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.lpz").write_bytes(tiles)
    failed(run("decode", tmp_path / "t.lpz", "-o", tmp_path / "t.npy"), "t.lpz", "--partial")
    done = run("decode", "--partial", tmp_path / "t.lpz", "-o", tmp_path / "t.npy")
    assert done.code == 0 and b"damaged: " in done.out
    data = np.load(tmp_path / "t.npy")
    assert data.shape == (16, 1100, 3)
    assert psnr(natural(16, 1100)[:, :900], data[:, :900]) > 20
    done = run("decode", "--partial", "-", "-o", "-", "--format", ".npy", stdin=tiles)
    assert done.code == 0 and "damaged: " in done.err
    assert np.array_equal(np.load(io.BytesIO(done.out)), data)


KILLED = """
import os, signal
real = os.write
def write(handle, data):
    if len(data) > 50 and handle > 2:
        real(handle, bytes(data[:50]))
        os.kill(os.getpid(), signal.SIGKILL)
    return real(handle, data)
os.write = write
from latentpress.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_encode_leaves_no_part_of_a_file(pngs: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.lpz"
    done = python(KILLED, "encode", str(pngs / "a.png"), "-o", str(out))
    assert done.returncode == -signals.SIGKILL
    assert not out.exists() and not list(tmp_path.glob("*.lpz"))
    assert run("encode", pngs / "a.png", "-o", out).code == 0
    assert run("verify", out).code == 0
