"""Folders of photographs as training data: every 20th file (by name) is the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def photographs(folder: Path) -> list[Path]:
    """Sorted image files below `folder`. Raises FileNotFoundError when there is none."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder}: no photographs ({', '.join(sorted(SUFFIXES))}) found")
    return files


def split(files: Sequence[Item], every: int = 20) -> tuple[list[Item], list[Item]]:
    """(training, validation)."""
    return [f for i, f in enumerate(files) if i % every], list(files[::every])
