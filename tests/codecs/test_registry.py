"""Codecs of other packages: found by entry point, used by name, refused when two claim one name; presets by path."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import latentpress
from latentpress import container
from latentpress.codecs import registry
from latentpress.codecs.base import Codec
from latentpress.errors import FormatError, MissingPresetError, UnsupportedError
from tests.helpers import cli, natural, psnr, python

GROUP = "latentpress.codecs"

# A whole codec package: raw samples, one chunk.
MODULE = '''
import dataclasses
import numpy as np
from latentpress.codecs.base import Chunk, Codec, Encoded, Signal


class Plain(Codec):
    id, domain, dims, lossless = "plain-bytes", "image", ("y", "x", "band"), True

    def encode(self, signal, target, *, effort=2):
        data = np.ascontiguousarray(signal.data)
        return Encoded(codec=self.name, digest=b"", shape=data.shape, dtype=str(data.dtype), dims=signal.dims,
                       parameters={}, chunks=(Chunk(payload=data.tobytes()),))

    def decode(self, encoded):
        data = np.frombuffer(encoded.chunks[0].payload, encoded.dtype).reshape(encoded.shape)
        return Signal(data=data, dims=encoded.dims)

    def symbols(self, encoded):
        return tuple(np.frombuffer(c.payload, np.uint8).astype(np.int32) for c in encoded.chunks)

    def recode(self, encoded, symbols):
        chunks = tuple(dataclasses.replace(c, payload=s.astype(np.uint8).tobytes()) for c, s in zip(encoded.chunks, symbols))
        return dataclasses.replace(encoded, chunks=chunks)

    def describe(self):
        return {"licence": "MIT", "parameters": 0}
'''

USE = """
import sys
import numpy as np
import latentpress
assert "plain_bytes" not in sys.modules
image = np.random.default_rng(1).integers(0, 256, (9, 13, 3)).astype(np.uint8)
blob = latentpress.encode(image, codec="plain-bytes")
assert "plain_bytes" in sys.modules
back = latentpress.decode(blob)
assert np.array_equal(back.data, image) and back.dims == ("y", "x", "band")
alpha = np.dstack([image, image[:, :, 0]])
assert np.array_equal(latentpress.decode(latentpress.encode(alpha, codec="plain-bytes")).data, alpha)
sys.stdout.buffer.write(blob)
"""


def install(folder: Path, *, value: str = "plain_bytes:Plain", name: str = "plain-bytes", project: str = "lp-plain", module: str = MODULE) -> None:
    """A package as pip leaves it on disk: the module, METADATA and entry points."""
    info = folder / f"{project.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value}\n")
    (folder / "plain_bytes.py").write_text(module)


def with_path(folder: Path) -> dict[str, str]:
    import os

    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))}


def test_a_codec_of_another_package_is_found_and_used(tmp_path: Path) -> None:
    install(tmp_path)
    used = python(USE, env=with_path(tmp_path), check=True)
    listed = cli("codecs", "--json", env=with_path(tmp_path), check=True)
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["plain-bytes"]["codec"] == "plain-bytes" and rows["plain-bytes"]["lossless"] and rows["plain-bytes"]["licence"] == "MIT"
    assert "walloc-rgb" in rows
    with pytest.raises(MissingPresetError, match="plain-bytes"):  # here it is not installed
        latentpress.decode(used.stdout)
    assert container.read_header(used.stdout).codec == "plain-bytes"


def test_two_packages_with_one_name_are_refused_in_one_line(tmp_path: Path) -> None:
    install(tmp_path, name="walloc-rgb")
    done = cli("codecs", env=with_path(tmp_path))
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
    assert b"walloc-rgb" in done.stderr and b"plain_bytes:Plain" in done.stderr


def points(monkeypatch: pytest.MonkeyPatch, *more: EntryPoint) -> None:
    real = registry.entry_points

    def patched(group: str) -> list[EntryPoint]:
        return [*real(group=group), *(p for p in more if p.group == group)]

    monkeypatch.setattr(registry, "entry_points", patched)


def test_one_class_registered_twice_is_one_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.codec_entry_points()
    points(monkeypatch, EntryPoint("walloc-rgb", known["walloc-rgb"].value, GROUP))
    assert registry.codec_entry_points().keys() == known.keys()
    points(monkeypatch, EntryPoint("walloc-rgb", "elsewhere:Walloc", GROUP))
    with pytest.raises(UnsupportedError, match="elsewhere:Walloc"):
        registry.codec_entry_points()


@pytest.mark.parametrize("value", ["no_such_module:Codec", "json:NoSuchClass", "json:JSONDecoder"])
def test_a_codec_that_does_not_load_is_said(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, EntryPoint("broken", value, GROUP))
    with pytest.raises(UnsupportedError, match=value.partition(":")[0]):
        registry.load_codec("broken")


def test_a_preset_folder_is_given_by_path(tmp_path: Path) -> None:
    own = tmp_path / "walloc-rgb-16x"
    shutil.copytree(registry.preset_directories()["walloc-rgb-16x"], own)
    image = natural(24, 40)
    blob = latentpress.encode(image, codec=own)
    assert blob == latentpress.encode(image, codec="walloc-rgb-16x") == latentpress.encode(image, codec=str(own))
    assert psnr(image, latentpress.decode(blob).data) > 20
    named = registry.load_codec(own.rename(tmp_path / "mine"))
    assert named.name == "mine" and named.id == "walloc-classic"
    blob = latentpress.encode(image, codec=tmp_path / "mine")
    with pytest.raises(MissingPresetError, match="mine"):
        latentpress.decode(blob)


def test_presets_of_another_package_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lp_more_presets"
    shutil.copytree(registry.preset_directories()["walloc-rgb-16x"], package / "other-16x")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    points(monkeypatch, EntryPoint("other-16x", "lp_more_presets", "latentpress.presets"))
    assert registry.preset_directories()["other-16x"] == package / "other-16x"
    assert "other-16x" in registry.names()
    registry.load_installed.cache_clear()
    try:
        assert latentpress.decode(latentpress.encode(natural(16, 16), codec="other-16x")).data.shape == (16, 16, 3)
    finally:
        registry.load_installed.cache_clear()


def test_two_presets_with_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lp_same_presets"
    shutil.copytree(registry.preset_directories()["walloc-rgb-16x"], package / "walloc-rgb")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    points(monkeypatch, EntryPoint("walloc-rgb", "lp_same_presets", "latentpress.presets"))
    with pytest.raises(UnsupportedError, match="lp_same_presets"):
        registry.preset_directories()


def test_damaged_preset_folders_are_said(tmp_path: Path) -> None:
    (tmp_path / "preset.json").write_text("{}")
    with pytest.raises(FormatError, match="codec"):
        registry.load_codec(tmp_path)
    (tmp_path / "preset.json").write_text('{"codec": "nobodys"}')
    with pytest.raises(MissingPresetError, match="nobodys"):
        registry.load_codec(tmp_path)
    (tmp_path / "preset.json").write_text('{"codec": "walloc-classic"}')
    with pytest.raises(FormatError, match="weights"):
        registry.load_codec(tmp_path)


def test_a_codec_that_needs_a_preset_says_so() -> None:
    with pytest.raises(MissingPresetError, match="preset"):
        registry.load_codec("walloc-classic")
    assert np.isin(["walloc-rgb", "walloc-rgb-4x"], registry.names()).all() and "walloc-classic" not in registry.names()


class Named(Codec):
    """Knows names after a slash; `fetched` says which were asked for by a person."""

    id, domain, dims, lossless = "named", "image", ("y", "x", "band"), True
    fetched: ClassVar[list[str]] = []

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> Named:
        raise FormatError(f"{directory}: none")

    @classmethod
    def from_name(cls, rest: str) -> Named:
        cls.fetched.append(rest)
        return cls.from_cache(rest)

    @classmethod
    def from_cache(cls, rest: str) -> Named:
        if rest not in cls.fetched:
            raise MissingPresetError(f"{rest}: fetch it first")
        codec = cls()
        codec.name = f"named/{rest}"
        return codec

    encode = decode = symbols = recode = lambda *given, **more: None  # type: ignore[assignment]


def test_names_with_a_slash_are_for_the_class_and_only_people_make_it_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, EntryPoint("named", f"{__name__}:Named", GROUP))
    monkeypatch.setattr(registry, "_load_class", lambda point: Named)
    Named.fetched.clear()
    with pytest.raises(MissingPresetError, match="fetch it first"):
        registry.load_installed("named/net@q=1")
    assert registry.load_codec("named/net@q=1").name == "named/net@q=1" and Named.fetched == ["net@q=1"]
    assert registry.load_installed("named/net@q=1").name == "named/net@q=1" and Named.fetched == ["net@q=1"]
    registry.load_installed.cache_clear()


def test_names_with_a_slash_that_nobody_knows_are_unknown() -> None:
    for name in ("walloc-rgb/x", "nobody/x", "/walloc-rgb", "walloc-classic/../walloc-rgb"):
        with pytest.raises(MissingPresetError, match="no codec or preset"):
            registry.load_codec(name)
