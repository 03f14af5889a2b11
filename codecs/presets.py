"""Preset folders: `preset.json` (codec id, config, provenance) and `weights.safetensors` (frozen tables and weights). No pickles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import FormatError

T = TypeVar("T")
DESCRIPTION, WEIGHTS = "preset.json", "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One preset read from disk. digest: first 8 bytes of the SHA-256 of the weights file."""

    name: str
    description: Mapping[str, Any]
    weights: Mapping[str, NDArray[Any]]
    digest: bytes


def read_description(directory: Path) -> dict[str, Any]:
    """The parsed preset.json. Raises FormatError when it is absent or damaged."""
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: no readable preset description ({error})") from error
    if not isinstance(description, dict) or not isinstance(description.get("codec"), str):
        raise FormatError(f"{path}: the field 'codec' is missing")
    return description


def read_preset(directory: Path, name: str) -> Preset:
    path = directory / WEIGHTS
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: unreadable weights ({error}); install the preset again") from error
    return _preset(name, read_description(directory), blob, str(path))


def built(directory: Path, name: str, make: Callable[[Preset], T]) -> T:
    """What `make` makes of the preset in `directory`. Raises FormatError where the preset is damaged or of another codec."""
    preset = read_preset(directory, name)
    try:
        return make(preset)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"{directory}: the preset does not fit {preset.description['codec']} ({error}); install it again") from error


def _preset(name: str, description: Mapping[str, Any], blob: bytes, where: str) -> Preset:
    from safetensors.numpy import load

    try:
        weights = load(blob)
    except Exception as error:  # safetensors raises types of its own
        raise FormatError(f"{where}: unreadable weights ({error}); install the preset again") from error
    return Preset(name=name, description=description, weights=weights, digest=hashlib.sha256(blob).digest()[:8])


def embedded(directory: Path) -> bytes:
    """A preset as one run of bytes, to travel inside a file: 4 bytes of length (little-endian), what decoding needs of preset.json, the weights."""
    description = {k: v for k, v in read_description(directory).items() if k not in ("provenance", "table")}
    text = json.dumps(description, sort_keys=True, separators=(",", ":")).encode()
    return len(text).to_bytes(4, "little") + text + (directory / WEIGHTS).read_bytes()


def extracted(blob: bytes, name: str) -> Preset:
    """The inverse. Raises FormatError."""
    size = int.from_bytes(blob[:4], "little")
    try:
        description = json.loads(blob[4 : 4 + size])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"metadata chunk 'model': no description ({error})") from error
    if not isinstance(description, dict) or not isinstance(description.get("codec"), str):
        raise FormatError("metadata chunk 'model': the field 'codec' is missing")
    return _preset(name, description, blob[4 + size :], "metadata chunk 'model'")


def write_preset(directory: Path, description: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS).write_bytes(save({k: np.ascontiguousarray(v) for k, v in sorted(weights.items())}))
    (directory / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
