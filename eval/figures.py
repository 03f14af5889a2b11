"""Figures as JSON: what was measured, by which versions, with which command."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "figures"


def environment() -> dict[str, Any]:
    """What a reader needs to judge a timing: interpreter, libraries, processor cores."""
    import numpy

    versions = {"python": platform.python_version(), "numpy": numpy.__version__}
    if "torch" in sys.modules:
        versions["torch"] = str(sys.modules["torch"].__version__)
    return {"versions": versions, "system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()}


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """JSON that reads well in a diff: nested by two levels, one line for what lies deeper. Written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(_text(figures, depth=3, indent="") + "\n", "utf-8")
    beside.replace(path)


def _text(value: Any, depth: int, indent: str) -> str:
    if depth == 0 or not isinstance(value, Mapping | list) or not value:
        return json.dumps(value)
    inner = indent + "  "
    if isinstance(value, Mapping):
        items = [f"{json.dumps(str(k))}: {_text(v, depth - 1, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner + i for i in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _text(v, depth - 1, inner) for v in value) + f"\n{indent}]"
