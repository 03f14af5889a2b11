"""CompressAI's architectures by name, and what of them this package can code.

A model is coded by what its `compress` and `decompress` do, so these must be those of one of four classes; networks inside are free.

    FactorizedPrior                          y by an entropy bottleneck           bmshj2018-factorized, bmshj2018-factorized-relu
    ScaleHyperprior                          z, then y with scales from z         bmshj2018-hyperprior
    MeanScaleHyperprior                      the same with means                  mbt2018-mean
    JointAutoregressiveHierarchicalPriors    the same with a context of y         mbt2018, cheng2020-anchor, cheng2020-attn
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from latentpress.codecs.compressai_env import import_compressai
from latentpress.errors import InputError, UnsupportedError

ARCHITECTURES = (
    "bmshj2018-factorized", "bmshj2018-factorized-relu", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor", "cheng2020-attn",
)  # fmt: skip
FAMILIES = ("JointAutoregressiveHierarchicalPriors", "MeanScaleHyperprior", "ScaleHyperprior", "FactorizedPrior")  # subclasses first
_CODING = ("compress", "decompress", "_compress_ar", "_decompress_ar")
NETWORKS = ("g_a", "g_s", "h_a", "h_s", "context_prediction", "entropy_parameters")


def model_class(architecture: str) -> type[Any]:
    """The class of a name: CompressAI's own, or one that was registered with `compressai.registry.register_model`.

    Raises UnsupportedError for unknown names, MissingExtraError without CompressAI.
    """
    import_compressai()
    from compressai.registry import MODELS

    if architecture not in MODELS:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(ARCHITECTURES)}, and what compressai.registry.register_model has seen"
        raise UnsupportedError(f"no CompressAI architecture is called {architecture!r}; {hint}")
    cls: type[Any] = MODELS[architecture]
    family_of(cls)
    return cls


def family_of(cls: type[Any]) -> str:
    """Which of FAMILIES codes models of this class. Raises UnsupportedError for classes with a `compress` or `decompress` of their own."""
    models = import_compressai().models
    for family in FAMILIES:
        base = getattr(models, family)
        if issubclass(cls, base):
            if all(getattr(cls, k, None) is getattr(base, k, None) for k in _CODING):
                return family
            break
    raise UnsupportedError(
        f"{cls.__name__} cannot be coded here: its compress and decompress must be those of one of CompressAI's {', '.join(FAMILIES)}"
    )


def architecture_of(model: Any) -> str:
    """The registered name of a model's class, or of the class above it whose networks are the same. Raises UnsupportedError."""
    from compressai.registry import MODELS

    family_of(type(model))
    names = {cls: name for name, cls in MODELS.items()}
    if type(model) in names:
        return names[type(model)]
    for cls in type(model).__mro__[1:]:
        if cls in names:
            plain = cls(**arguments_of(model, cls))
            if all(repr(getattr(model, k, None)) == repr(getattr(plain, k, None)) for k in NETWORKS):
                return names[cls]
            break
    name = type(model).__name__
    raise UnsupportedError(f"{name} has networks of its own: register it with compressai.registry.register_model, and import it before use")


def arguments_of(model: Any, cls: type[Any]) -> dict[str, int]:
    """{"N": ..., "M": ...} as the constructor of `cls` takes them, read off the model."""
    import inspect

    taken = inspect.signature(cls.__init__).parameters
    return {k: int(getattr(model, k)) for k in ("N", "M") if k in taken and hasattr(model, k)}


def guessed_architecture(state: Mapping[str, Tensor]) -> str | None:
    """Which of ARCHITECTURES a state dict seems to be of; None when it resembles none."""
    if "g_a.0.weight" not in state and "g_a.0.conv1.weight" not in state:
        return None
    if "h_a.0.weight" not in state:
        return "bmshj2018-factorized" if "g_a.1.beta" in state else "bmshj2018-factorized-relu"
    if "g_a.0.conv1.weight" in state:
        return "cheng2020-attn" if any(k.startswith("g_a.3.conv_a.") for k in state) else "cheng2020-anchor"
    if "context_prediction.weight" in state:
        return "mbt2018"
    last, latents = state.get("h_s.4.weight"), state.get("g_a.6.weight")
    if last is None or latents is None:
        return None
    return "mbt2018-mean" if len(last) == 2 * len(latents) else "bmshj2018-hyperprior"


def known_architecture(name: str) -> str:
    """`name` if it is one of ARCHITECTURES, told without importing CompressAI. Raises InputError."""
    if name in ARCHITECTURES:
        return name
    near = difflib.get_close_matches(name, ARCHITECTURES, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(ARCHITECTURES)}"
    raise InputError(f"{name!r} is no architecture of CompressAI; {hint}")
