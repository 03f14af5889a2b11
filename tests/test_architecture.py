"""The house: imports run one way, the surface is light, training needs no coder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import latentpress
from tests.helpers import python

ROOT = Path(__file__).parent.parent
ROOMS = ("codecs", "entropy", "eval", "train", "datasets")
# who may import whom; a room may always import itself and latentpress.errors
ALLOWED = {
    "errors": set(),
    "datasets": set(),
    "entropy": set(),
    "codecs": {"entropy"},
    "container": {"codecs"},
    "formats": {"codecs"},
    "presets": set(),
    "api": {"codecs", "container", "formats"},
    "fields": {"api", "codecs", "container"},
    "scale": {"codecs", "container", "fields", "plugins"},
    "batch": set(),
    "inspect": {"api", "codecs", "container", "fields"},
    "train": {"api", "codecs", "container", "entropy", "datasets"},
    "eval": {"api", "codecs", "container", "formats", "entropy", "datasets"},
    "plugins": {"api", "codecs", "container", "fields", "formats", "eval", "train"},
    "commands": {"api", "batch", "codecs", "eval", "fields", "scale", "train"},
    "cli": {"api", "batch", "codecs", "commands", "container", "eval", "formats", "inspect", "train"},
    "testing": {"api", "codecs", "container"},
    "__init__": {"api", "codecs"},
}


def room_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    if relative.parts[0] in ROOMS:
        return relative.parts[0]
    return relative.parts[1].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(p for folder in ("latentpress", *ROOMS) for p in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(path)
    allowed = ALLOWED[room] | {room, "errors", "__version__"}
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ROOMS, f"{path} imports the bare name {name}"
        if parts[0] == "latentpress" and len(parts) > 1:
            assert parts[1] in allowed, f"{room} must not import {name}"


def test_only_the_coder_knows_constriction() -> None:
    users = {p.relative_to(ROOT).as_posix() for p in sources() if any(n.split(".")[0] == "constriction" for n in imports(p))}
    assert users == {"entropy/coder.py"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, latentpress; print([m for m in ('torch', 'numpy', 'PIL', 'typer') if m in sys.modules])"
    assert python(code, check=True).stdout.decode().strip() == "[]"


def test_help_loads_no_torch() -> None:
    code = """
import sys
from typer.testing import CliRunner
from latentpress.cli import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print([m for m in ("torch", "numpy", "PIL", "constriction", "rich.markdown", "pygments") if m in sys.modules])
"""
    assert python(code, check=True).stdout.decode().strip() == "[]"


def test_training_needs_no_constriction() -> None:
    code = """
import sys
sys.modules["constriction"] = None
import latentpress.train.loop, latentpress.codecs.image_walloc
print("ok")
"""
    assert python(code, check=True).stdout.decode().strip() == "ok"


def test_public_names_are_these_and_all_of_them_load() -> None:
    assert set(latentpress.__all__) == {
        "BoundError", "ChecksumError", "FormatError", "InputError", "LatentpressError", "LimitError", "MissingExtraError", "MissingPresetError",
        "Signal", "UnsupportedError", "__version__", "decode", "decode_dataset", "decode_file", "encode", "encode_dataset", "encode_file",
        "load_codec", "open_dataset", "open_latents",
    }  # fmt: skip
    for name in latentpress.__all__:
        assert getattr(latentpress, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        latentpress.nothing  # noqa: B018
