"""Checkpoints: whole or not there, the newest few kept, and never of another model.

RUN/checkpoints/step-00001000.pt    all state of a run (torch.load with weights_only)
RUN/weights.safetensors             averaged weights of the newest one, RUN/best.safetensors of the best validation
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpress.errors import InputError

WEIGHTS, BEST = "weights.safetensors", "best.safetensors"
_NAME = re.compile(r"step-\d{8,}\.pt")


def write_whole(path: Path, blob: bytes) -> None:
    """A temporary file in the same folder, fsync, rename. Raises InputError when the disk refuses; what was there stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} was not written: {error.strerror or error}") from error


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Safetensors; metadata values as JSON."""
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    write_whole(path, save(plain, metadata={k: json.dumps(v) for k, v in metadata.items()}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state, metadata). Raises InputError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            raw = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no readable weights ({error})") from error
    return state, {k: _json(v) for k, v in raw.items()}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def fit(model: torch.nn.Module, state: Mapping[str, Tensor], what: str, expected: str) -> None:
    """Load a state into a model. Raises InputError that says what does not fit, for weights of another model."""
    own = model.state_dict()
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape] + [k for k in state if k not in own]
    if wrong:
        raise InputError(f"{what}: does not fit {expected}; {len(wrong)} of {len(own)} tensors differ, the first is {wrong[0]}")
    model.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})


class Checkpoints:
    """Of one run. identity: {"codec", "model"}, stored in each and compared when one is read."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int) -> None:
        self.folder, self.identity, self.keep = folder / "checkpoints", dict(identity), keep

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted((p for p in self.folder.glob("step-*.pt") if _NAME.fullmatch(p.name)), key=lambda p: int(p.stem.removeprefix("step-")))

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        path = self.folder / f"step-{step:08d}.pt"
        buffer = io.BytesIO()
        torch.save({**state, "step": step, "identity": json.dumps(self.identity, sort_keys=True)}, buffer)
        write_whole(path, buffer.getvalue())
        for old in self.files()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def newest(self, device: torch.device) -> dict[str, Any] | None:
        """The state of the last step that was saved, None where there is none. Raises InputError for a damaged one or one of another model."""
        files = self.files()
        return self.read(files[-1], device) if files else None

    def read(self, path: Path, device: torch.device) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            stored = json.loads(state["identity"])
        except Exception as error:  # whatever a damaged archive makes torch raise
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: no readable checkpoint ({line}); delete it to go on from the one before") from error
        ours = json.loads(json.dumps(self.identity))
        if stored != ours:
            raise InputError(f"{path}: made by {_named(stored, ours)}, this run trains {_named(ours, stored)}; choose another --run")
        return state


def _named(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What it is, and the settings in which the other one differs."""
    model, compared = one.get("model") or {}, other.get("model") or {}
    differing = [f"{k}={v}" for k, v in model.items() if compared.get(k) != v]
    return " ".join([str(one.get("codec")), *(differing if one.get("codec") == other.get("codec") else [])])
