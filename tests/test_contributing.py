"""The codec that CONTRIBUTING.md shows is taken from the page, installed as a package of its own, and kept to the contract of all codecs."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.helpers import python

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROUND_TRIP = """
import numpy as np
import latentpress
image = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
blob = latentpress.encode(image, codec="zlib-raw")
assert np.array_equal(latentpress.decode(blob).data, image)
damaged = blob[:-10] + bytes([blob[-10] ^ 1]) + blob[-9:]
try:
    latentpress.decode(damaged)
except latentpress.ChecksumError:
    print("ok")
"""
BATTERY = "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/codecs/test_contract.py', '-k', 'zlib-raw', '-n', '0']))"


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A folder that holds the page's codec as an installed package would."""
    points = tomllib.loads(block("toml"))["project"]["entry-points"]
    ((group, names),) = points.items()
    ((name, value),) = names.items()
    (tmp_path / f"{value.partition(':')[0]}.py").write_text(block("python"))
    info = tmp_path / "zlib_raw-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zlib-raw\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))}


def test_the_codec_of_the_page_codes_through_files(environment: dict[str, str]) -> None:
    assert python(ROUND_TRIP, env=environment, check=True).stdout.decode().strip() == "ok"


def test_the_codec_of_the_page_keeps_the_contract(environment: dict[str, str]) -> None:
    done = python(BATTERY, env=environment, cwd=ROOT)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert int(re.search(r"(\d+) passed", text)[1]) >= 12  # type: ignore[index]


def test_names_on_the_page_exist() -> None:
    words = re.findall(r"`([\w/]+\.(?:py|md|toml))`", PAGE)
    assert len(words) > 8
    for word in set(words) - {"zlib_raw.py"}:
        assert (ROOT / word).exists(), word
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z][a-z-]+)", PAGE):
        assert re.search(rf"^{target}:", makefile, re.M), target
