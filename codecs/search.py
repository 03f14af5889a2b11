"""The level that meets a target, by bisection on the latents: rate and PSNR rise with the level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from latentpress.codecs.base import Target
from latentpress.errors import UnsupportedError


class Trial(Protocol):
    """samples: positions of the signal (pixels)."""

    samples: int

    def payload_bytes(self, level: int) -> float: ...
    def psnr(self, level: int) -> float: ...


def quality_level(quality: float, max_level: int) -> int:
    """Quality 0 to 100 to an integer level 0 to max_level."""
    return round(quality / 100 * max_level)


def choose_level(target: Target, trial: Trial, max_level: int) -> int:
    """The highest level within a size, or the lowest that reaches a PSNR. Raises UnsupportedError when none does."""
    if target.quality is not None:
        return quality_level(target.quality, max_level)
    if target.psnr is not None:
        wanted = target.psnr
        if trial.psnr(max_level) < wanted:
            raise UnsupportedError(f"{wanted:g} dB is out of reach: quality 100 gives {trial.psnr(max_level):.2f} dB")
        return max_level - highest(lambda i: trial.psnr(max_level - i) >= wanted, max_level)
    budget = target.max_bytes if target.max_bytes is not None else (target.bpp or 0) * trial.samples / 8
    if trial.payload_bytes(0) > budget:
        raise UnsupportedError(f"{budget:.0f} bytes of payload are out of reach: quality 0 takes {trial.payload_bytes(0):.0f}")
    return highest(lambda level: trial.payload_bytes(level) <= budget, max_level)


def highest(holds: Callable[[int], bool], last: int) -> int:
    """The largest i in 0..last with holds(i), given that holds(0) and that it only turns from true to false."""
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
