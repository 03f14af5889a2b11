"""CompressAI's training checkpoints as presets: tensors are read, no code of a pickle is ever run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from latentpress.codecs.compressai_preset import freeze_model
from latentpress.codecs.compressai_zoo import guessed_architecture, model_class
from latentpress.errors import InputError


def freeze_checkpoint(path: Path, directory: Path, *, architecture: str | None = None, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the preset folder of a checkpoint: {"state_dict": ...} as CompressAI's examples save it, or a bare state dict.

    architecture  a name of CompressAI's, or registered there; None: as the weights look
    Raises InputError that names the file, and the architecture where the weights are not of it.
    """
    state = read_checkpoint(path)
    guess = guessed_architecture(state)
    name = architecture or guess
    if name is None:
        raise InputError(f"{path}: the architecture cannot be told from the weights; name it, as in compressai/mbt2018-mean")
    cls = model_class(name)
    try:
        model = cls.from_state_dict(dict(state))
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the weights are not those of {name}{_looks(guess, name)} ({_line(error)})") from error
    # tables of a checkpoint from the middle of training are older than its weights, if there at all
    freeze_model(model, directory, provenance={"checkpoint": path.name, **(provenance or {})}, update=True)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint in CompressAI's present names. Raises InputError."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: holds objects other than tensors, whose code is not run; save its state dict alone with torch.save") from error
    except Exception as error:  # torch raises many types for bytes that are no checkpoint
        raise InputError(f"{path}: no checkpoint that torch can read ({_line(error)})") from error
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise InputError(f"{path}: no state dict found, neither under 'state_dict' nor as the whole file")
    return renamed(state)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix "module." of DataParallel, and with names of older CompressAI versions replaced."""
    from latentpress.codecs.compressai_env import import_compressai

    import_compressai()
    from compressai.zoo.pretrained import load_pretrained

    return dict(load_pretrained({k.removeprefix("module."): v for k, v in state.items()}))


def _looks(guess: str | None, name: str) -> str:
    if guess is None:
        return ""
    return f", they look like {guess}" if guess != name else ", though they resemble it"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + " ..."


