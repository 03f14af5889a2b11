"""Packed shards: many photographs as uint8 in a few safetensors files, read without decoding.

    python -m latentpress.datasets.shards PHOTOS SHARDS [--shrink 2] [--megabytes 512]

Each file holds tensors "0", "1", ... uint8 [3, h, w] and in its metadata the format, and the names the photographs had, as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from latentpress.datasets.photographs import photographs
from latentpress.errors import InputError

FORMAT = "latentpress photographs 1"


def is_shards(folder: Path) -> bool:
    """A folder with safetensors files at its top is one of shards."""
    return folder.is_dir() and any(folder.glob("*.safetensors"))


class Shards:
    """The photographs of all shards of a folder, numbered in the order of files. sizes: (h, w) of each."""

    scale = 255.0

    def __init__(self, folder: Path) -> None:
        """Raises InputError for files that are no shards."""
        self.places: list[tuple[Any, str]] = []
        self.names: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        for path in sorted(folder.glob("*.safetensors")):
            file, names = _open(path)
            for key in sorted(file.keys(), key=int):
                shape = file.get_slice(key).get_shape()
                self.places.append((file, key))
                self.sizes.append((shape[1], shape[2]))
            self.names += names

    def load(self, index: int) -> Any:
        """uint8 tensor [3, h, w]."""
        file, key = self.places[index]
        return file.get_tensor(key)


def _open(path: Path) -> tuple[Any, list[str]]:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, "pt")
        metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no readable shard ({error}); pack the photographs again") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: no shard of photographs; pack them with python -m latentpress.datasets.shards")
    return file, json.loads(metadata["names"])


def pack(photos: Path, target: Path, *, shrink: float = 1.0, megabytes: float = 512) -> list[Path]:
    """Write the photographs below a folder as shards of about `megabytes` each, shrunk (antialiased) by a factor. Returns the files.

    Raises InputError for unreadable images and for a target that holds shards already.
    """
    if is_shards(target):
        raise InputError(f"{target}: holds shards already; choose another folder")
    try:
        files = photographs(photos)
    except FileNotFoundError as error:
        raise InputError(str(error)) from error
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    images: dict[str, Any] = {}
    names: list[str] = []
    for file in files:
        images[str(len(images))] = _read(file, shrink)
        names.append(file.relative_to(photos).as_posix())
        if sum(i.nbytes for i in images.values()) >= megabytes * 1e6 or file == files[-1]:
            written.append(_write(target / f"{len(written):05d}.safetensors", images, names))
            images, names = {}, []
    return written


def _read(path: Path, shrink: float) -> Any:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            size = math.ceil(image.width / shrink), math.ceil(image.height / shrink)
            colour = image.convert("RGB")
            return np.ascontiguousarray(np.asarray(colour.resize(size, Image.Resampling.LANCZOS) if shrink > 1 else colour).transpose(2, 0, 1))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: no readable image ({error}); remove it") from error


def _write(path: Path, images: dict[str, Any], names: list[str]) -> Path:
    from safetensors.numpy import save

    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_bytes(save(images, metadata={"format": FORMAT, "names": json.dumps(names)}))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} was not written: {error.strerror or error}") from error
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--shrink", type=float, default=1.0)
    parser.add_argument("--megabytes", type=float, default=512)
    args = parser.parse_args()
    try:
        for path in pack(args.photos, args.shards, shrink=args.shrink, megabytes=args.megabytes):
            print(path)
    except InputError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
