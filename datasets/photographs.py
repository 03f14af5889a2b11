"""Folders of photographs as training data: every 20th file (by name) is the validation split."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def photographs(folder: Path) -> list[Path]:
    """Sorted image files below `folder`. Raises FileNotFoundError when there is none."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder}: no photographs ({', '.join(sorted(SUFFIXES))}) found")
    return files


def split(files: list[Path], every: int = 20) -> tuple[list[Path], list[Path]]:
    """(training, validation)."""
    validation = files[::every]
    return [f for f in files if f not in set(validation)], validation
