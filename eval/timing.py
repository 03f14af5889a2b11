"""Timings that mean something on a busy machine: candidates take turns, medians are kept, ratios are taken within a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median


def interleaved(candidates: Mapping[str, Callable[[], object]], repeats: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds of each call, name -> [repeats]: in every round each candidate runs once. warm_up: a first round that is not counted."""
    if repeats < 1:
        raise ValueError(f"repeats={repeats!r}: at least 1 expected")
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    if warm_up:
        for call in candidates.values():
            call()
    for _ in range(repeats):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: median(v) for name, v in values.items()}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs: other work that slows a whole round down cancels."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))
