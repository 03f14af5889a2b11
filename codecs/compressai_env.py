"""CompressAI beside current libraries: `make peers-env` installs it, this module imports it.

torchvision's wheel for CUDA beside a CPU torch fails at import ("operator torchvision::nms does not exist"), since the library that
registers its operators does not load. CompressAI needs none of them, so they are declared without code, and only after that very
failure: a second declaration beside a working torchvision would abort the process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from latentpress.errors import MissingExtraError

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []  # a declared library lives as long as its object


def import_torchvision() -> ModuleType:
    """torchvision, with its operators declared where they cannot be loaded. Raises MissingExtraError."""
    try:
        return _import("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    _declare_operators()
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return _import("torchvision")


def import_compressai() -> ModuleType:
    """compressai with its model zoo (10 to 20 s the first time). Raises MissingExtraError."""
    import_torchvision()
    return _import("compressai.zoo") and _import("compressai")


@cache
def load_extension(name: str) -> ModuleType:
    """One of CompressAI's compiled modules ("ans", "_CXX") without the package around it: milliseconds. Raises MissingExtraError.

    It goes by its full name, as its types can be registered only once in a process: the package, imported before or later, shares it.
    """
    full = f"compressai.{name}"
    if full in sys.modules:
        return sys.modules[full]
    package = importlib.util.find_spec("compressai")
    folders = [Path(p) for p in (package.submodule_search_locations or [])] if package else []
    found = [f for folder in folders for f in sorted(folder.glob(f"{name}.*"))]
    if not found:
        raise MissingExtraError("compressai", "compressai")
    spec = importlib.util.spec_from_file_location(full, found[0])
    if spec is None or spec.loader is None:
        raise MissingExtraError("compressai", "compressai")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[full] = module
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or name, "compressai") from error


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(operator)
    _kept.append(library)
