"""The images a bench measures on, and their fingerprints."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"})
_EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})  # modes of Pillow that RGB of 8 bits can hold


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
    """uint8 [height, width, 3]. Raises InputError for what cannot be read or loses something as 8-bit RGB: more bits, opacity, CMYK."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in _EIGHT_BITS:
                raise InputError(f"{path}: Pillow mode {image.mode}, the bench compares 8-bit RGB: convert the file first")
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise InputError(f"{path}: the image has opacity, the bench compares 8-bit RGB: flatten the file first")
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: no readable image ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def fingerprint(path: Path) -> str:
    """First 8 bytes of the file's SHA-256, in hex. Raises InputError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
