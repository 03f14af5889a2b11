"""Arrays and tables through the command line: what goes in comes out, and what cannot is refused in one line."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest

from latentpress.codecs.presets import write_preset
from latentpress.entropy.circuit_pack import pack
from tests.circuits import random_circuit
from tests.helpers import python

RUN = """
import pytest
from tests.circuits import register_circuit
register_circuit(pytest.MonkeyPatch())
from latentpress.cli import main
main()
"""


def cli(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """With the codec registered, whatever the environment's age."""
    root = str(Path(__file__).parent.parent)
    return python(f"import sys; sys.path.append({root!r})\n{RUN}", *map(str, arguments), **options)  # type: ignore[arg-type]


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    weights = pack(random_circuit(6, 256, 3, 0), bits=12) | {"low": np.zeros(6, np.int64), "digits": np.ones(6, np.uint8)}
    write_preset(tmp_path / "six", {"codec": "circuit", "sample_shape": [2, 3], "licence": "Apache-2.0"}, weights)
    return tmp_path / "six"


def test_idx_to_lpz_to_npy(preset: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 3)).astype(np.uint8)
    source = tmp_path / "t10k-images-idx3-ubyte.gz"
    source.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in images.shape) + images.tobytes()))
    told = cli("encode", source, "-o", tmp_path / "t.lpz", "--codec", preset, "--embed-model", check=True).stdout.decode()
    assert "bits a value" in told
    cli("decode", tmp_path / "t.lpz", "-o", tmp_path / "t.npy", check=True)
    back = np.load(tmp_path / "t.npy")
    assert back.dtype == np.uint8 and (back == images).all()
    assert b": ok" in cli("verify", tmp_path / "t.lpz", check=True).stdout
    assert b"sample" in cli("info", tmp_path / "t.lpz", check=True).stdout


def test_a_folder_of_png_files_there_and_back(preset: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 3)).astype(np.uint8)
    for name, image in zip("cab", images, strict=True):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    cli("encode", tmp_path / "in", "-o", tmp_path / "f.lpz", "--codec", preset, "--embed-model", check=True)
    cli("decode", tmp_path / "f.lpz", "-o", tmp_path / "out", check=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    for name, image in zip("cab", images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{name}.png")), image)


def test_refusals_are_one_line(preset: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "seven.npy", np.zeros((4, 7), np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((4, 6)))
    for name, message in (("seven", "codes samples of 2x3 values, these have 7"), ("float", "float64")):
        done = cli("encode", tmp_path / f"{name}.npy", "-o", tmp_path / "x.lpz", "--codec", preset)
        line = done.stderr.decode().strip()
        assert done.returncode == 1 and message in line and f"{name}.npy" in line and "\n" not in line and not (tmp_path / "x.lpz").exists()


def test_a_circuit_is_trained_and_used_by_its_folder(tmp_path):
    data = np.random.default_rng(3).integers(0, 4, (300, 6)).astype(np.uint8)
    data[:, 1] = data[:, 0]
    np.save(tmp_path / "rows.npy", data)
    done = cli("train", "circuit", "--data", tmp_path / "rows.npy", "--run", tmp_path / "mine", "--set", "states=4", "--set", "epochs=2",
               "--set", "validation=50", "--set", "batch=50", check=True)  # fmt: skip
    assert b"--codec" in done.stdout
    cli("encode", tmp_path / "rows.npy", "-o", tmp_path / "rows.lpz", "--codec", tmp_path / "mine", check=True)
    cli("decode", tmp_path / "rows.lpz", "-o", tmp_path / "back.npy", "--codec", tmp_path / "mine", check=True)
    assert np.array_equal(np.load(tmp_path / "back.npy"), data)


def test_what_a_circuit_cannot_use_is_one_line(tmp_path):
    for options, words in ((["--minutes", "1"], b"--data"), (["--data", "x.npy"], b"--minutes"), (["--steps", "4"], b"--steps")):
        done = cli("train", "circuit", *options)
        assert done.returncode == 1 and words in done.stderr and done.stderr.count(b"\n") == 1
