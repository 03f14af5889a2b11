"""Preset folders: `preset.json` (codec id, config, provenance) and `weights.safetensors` (frozen tables and weights). No pickles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import FormatError

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
    from safetensors.numpy import load

    try:
        blob = (directory / WEIGHTS).read_bytes()
        weights = load(blob)
    except Exception as error:  # safetensors raises types of its own
        raise FormatError(f"{directory / WEIGHTS}: unreadable weights ({error}); install the preset again") from error
    return Preset(name=name, description=read_description(directory), weights=weights, digest=hashlib.sha256(blob).digest()[:8])


def write_preset(directory: Path, description: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS).write_bytes(save({k: np.ascontiguousarray(v) for k, v in sorted(weights.items())}))
    (directory / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
