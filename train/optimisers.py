"""Optimisers by name, and the course of their rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from latentpress.errors import InputError, MissingExtraError

MATRIX = 8  # inputs from which on a layer's weight is orthogonalised by Muon
Named = Sequence[tuple[str, nn.Parameter]]


def adamw(parameters: Named, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for _, p in parameters], lr=rate, betas=(0.9, 0.98), weight_decay=0)


def soap(parameters: Named, rate: float) -> torch.optim.Optimizer:
    """About 13 % less rate than AdamW after equal minutes on walloc-rgb."""
    found: torch.optim.Optimizer = _library().SOAP(
        [p for _, p in parameters], lr=rate, betas=(0.95, 0.95), weight_decay=0, precondition_frequency=20, max_precondition_dim=520
    )
    return found


def muon(parameters: Named, rate: float) -> torch.optim.Optimizer:
    """Muon for weights of layers that mix channels, AdamW at a fifth of the rate for all others."""
    matrices = [p for _, p in parameters if p.ndim >= 2 and math.prod(p.shape[1:]) > MATRIX and p.shape[0] > 1 and p.shape[1] > 1]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in parameters if id(p) not in chosen]
    groups: list[dict[str, Any]] = [{"params": matrices, "lr": rate, "use_muon": True}] if matrices else []
    if rest:
        groups.append({"params": rest, "lr": rate / 5, "betas": (0.9, 0.98), "use_muon": False})
    found: torch.optim.Optimizer = _library().Muon(groups, lr=rate, weight_decay=0)
    return found


OPTIMISERS: dict[str, Callable[[Named, float], torch.optim.Optimizer]] = {"adamw": adamw, "soap": soap, "muon": muon}


def make_optimiser(name: str, parameters: Named, rate: float) -> torch.optim.Optimizer:
    """Raises InputError for unknown names, MissingExtraError where the library of SOAP and Muon is not installed."""
    if name not in OPTIMISERS:
        raise InputError(f"optimiser {name!r}: one of {', '.join(OPTIMISERS)} expected")
    optimiser = OPTIMISERS[name](parameters, rate)
    for group in optimiser.param_groups:
        group["base"] = group["lr"]
    return optimiser


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Every group to `factor` of the rate it was made with."""
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor


def rate_factor(step: int, done: float, *, warmup: int, constant: float, final: float = 0.01) -> float:
    """Of the full rate: a linear rise over `warmup` steps, then constant for that part of the run, then a cosine down to `final`.

    step counts from 0; done: part of the run that is over, 0 to 1.
    """
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if done < constant or constant >= 1:
        return warm
    fall = min(1.0, (done - constant) / (1 - constant))
    return warm * max(final, 0.5 * (1 + math.cos(math.pi * fall)))


def _library() -> Any:
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise MissingExtraError("pytorch-optimizer", "train") from error
    return pytorch_optimizer
