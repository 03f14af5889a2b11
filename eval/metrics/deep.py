"""Deep similarity: shift-tolerant LPIPS (Ghildyal and Liu 2022), whose package carries its weights (extra `deep`): nothing is downloaded.

The package imports a shell and a printer of layer tables that measuring never calls; where they are not installed, empty ones stand in.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.compressai_env import import_torchvision
from latentpress.errors import MissingExtraError, UnsupportedError
from latentpress.eval.metrics.base import check_pair

SMALLEST = 64  # samples a side: what its authors show
_UNUSED = (("IPython", "embed"), ("torchsummary", "summary"))


def st_lpips(reference: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """Distance by AlexNet features without strides, seconds for a Kodak image: 0 where both are identical, higher is worse.

    Shapes  reference, decoded  uint8 [height, width, 3], equal
    Raises  InputError for other arrays, UnsupportedError where a side is below 64, MissingExtraError
    """
    check_pair("st-lpips", reference, decoded)
    if min(reference.shape[:2]) < SMALLEST:
        raise UnsupportedError(f"st-lpips: an image of {reference.shape[0]}x{reference.shape[1]} is too small, {SMALLEST} samples a side needed")
    import torch

    with torch.inference_mode():
        return float(network()(_tensor(reference), _tensor(decoded)))


def prepare() -> None:
    network()


def _tensor(image: NDArray[np.uint8]) -> Any:
    """[1, 3, height, width] in -1 to 1."""
    import torch

    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


@cache
def network() -> Any:
    """The metric's network. Raises MissingExtraError."""
    if importlib.util.find_spec("stlpips_pytorch") is None:
        raise MissingExtraError("stlpips-pytorch", "deep")
    import_torchvision()
    for module, function in _UNUSED:
        _stand_in(module, function)
    package = importlib.import_module("stlpips_pytorch.stlpips")
    return package.LPIPS(net="alex", variant="shift_tolerant", verbose=False).requires_grad_(False)


def _stand_in(module: str, function: str) -> None:
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        stub = ModuleType(module)
        setattr(stub, function, lambda *_, **__: None)
        sys.modules[module] = stub
