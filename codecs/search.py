"""The level that meets a target, by bisection on the latents: rate and PSNR rise with the level."""

from __future__ import annotations

import math
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
        best = trial.psnr(max_level)
        if best < wanted:
            raise UnsupportedError(f"{wanted:g} dB is out of reach: quality 100 gives {best:.2f} dB")
        # seen from the top, PSNR falls with the distance from the highest level
        return max_level - highest(lambda i: -trial.psnr(max_level - i), -wanted, max_level, close=0.01)
    budget = target.max_bytes if target.max_bytes is not None else (target.bpp or 0) * trial.samples / 8
    least = trial.payload_bytes(0)
    if least > budget:
        raise UnsupportedError(f"{budget:.0f} bytes of payload are out of reach: quality 0 takes {least:.0f}")
    return highest(lambda level: math.log(trial.payload_bytes(level)), math.log(budget), max_level, close=0.004)


def highest(value: Callable[[int], float], limit: float, last: int, *, close: float) -> int:
    """The largest i in 0..last with value(i) <= limit, for a rising function with value(0) <= limit; one that comes within `close` will do.

    Interpolates between the ends of the bracket, so smooth functions take three or four evaluations.
    """
    top = value(last)
    if top <= limit:
        return last
    low, high, at_low, at_high, steps = 0, last, value(0), top, 0
    while high - low > 1 and limit - at_low > close:
        share = (limit - at_low) / (at_high - at_low)
        # interpolation alone creeps along a bent curve: every third step halves the bracket
        steps += 1
        middle = (low + high) // 2 if steps % 3 == 0 else min(high - 1, max(low + 1, low + round(share * (high - low))))
        at_middle = value(middle)
        if at_middle <= limit:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return low
