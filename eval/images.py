"""The photographs that the image benches measure on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError


def kodak_folder() -> Path:
    """Where the Kodak PNGs lie: the environment variable LATENTPRESS_KODAK, or beside the repository."""
    return Path(os.environ.get("LATENTPRESS_KODAK", "../shared/data/images/eval/kodak"))


def image_paths(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """PNG files of `folder` by name, or those whose stem is in `names`. Raises InputError where one is missing or there are none."""
    found = {p.stem: p for p in sorted(folder.glob("*.png"))}
    if not found:
        raise InputError(f"no PNG files in {folder}: give the folder by --kodak or LATENTPRESS_KODAK")
    missing = [n for n in names if n not in found]
    if missing:
        raise InputError(f"{folder} has no {missing[0]}.png")
    return [found[n] for n in names] if names else list(found.values())


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]."""
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def fingerprint(path: Path) -> str:
    """First 8 bytes of the file's SHA-256, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
