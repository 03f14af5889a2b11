"""Wavelet packets of the biorthogonal 4.4 filters, periodised: every band split at every level, any number of axes, invertible.

    x [batch, channel, *size]  --analysis-->  [batch, channel * 2**(levels * axes), *ceil(size / 2**levels)]  --synthesis-->  x

The front end of WaLLoC (its section 2). Coefficients are those of PyWavelets' `WaveletPacket` and `WaveletPacket2D` with mode
"periodization". They are computed by lifting (Daubechies and Sweldens, 1998): four steps of the kind `odd += a * (even + next even)`, a
third of the work of the 9 and 7 taps. Synthesis undoes the steps one by one, so it is the inverse up to rounding whatever the factors are.

Band order: at each level a channel becomes its 2**axes bands, next to each other; the first axis is the lowest bit, 1 is high-pass. In two
dimensions that is PyWavelets' a, h, v, d. The first level is the slowest index.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# lifting factors of the 9/7 filter pair, to the last digit of float64
STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
GAIN = 1.149604398860241  # low-pass taps then sum to sqrt(2); the high-pass has the inverse, with PyWavelets' sign


def _next(x: Tensor, axis: int) -> Tensor:
    """x at n + 1, around the end."""
    n = x.shape[axis]
    return x if n == 1 else torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, 0, 1)], axis)


def _last(x: Tensor, axis: int) -> Tensor:
    """x at n - 1, around the start."""
    n = x.shape[axis]
    return x if n == 1 else torch.cat([x.narrow(axis, n - 1, 1), x.narrow(axis, 0, n - 1)], axis)


def split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """(low, high) along one axis of even length, counted from the end (-1 is the last); both have half the length."""
    pairs = x.unflatten(axis, (x.shape[axis] // 2, 2))  # the pair now stands at `axis`, its position one before
    even, odd = pairs.select(axis, 0), pairs.select(axis, 1)
    a, b, c, d = STEPS
    odd = torch.add(odd, even + _next(even, axis), alpha=a)
    even = torch.add(even, odd + _last(odd, axis), alpha=b)
    odd = torch.add(odd, even + _next(even, axis), alpha=c)
    even = torch.add(even, odd + _last(odd, axis), alpha=d)
    return even * GAIN, odd * (-1 / GAIN)


def merge(low: Tensor, high: Tensor, axis: int) -> Tensor:
    """Inverse of `split`."""
    even, odd = low * (1 / GAIN), high * -GAIN
    a, b, c, d = STEPS
    even = torch.sub(even, odd + _last(odd, axis), alpha=d)
    odd = torch.sub(odd, even + _next(even, axis), alpha=c)
    even = torch.sub(even, odd + _last(odd, axis), alpha=b)
    odd = torch.sub(odd, even + _next(even, axis), alpha=a)
    return torch.stack([even, odd], axis).flatten(axis - 1, axis)


def padded_size(size: Sequence[int], levels: int) -> tuple[int, ...]:
    """`size` rounded up to multiples of 2**levels."""
    step = 2**levels
    return tuple(-(-n // step) * step for n in size)


def analysis(x: Tensor, levels: int) -> Tensor:
    """Wavelet packets of x [batch, channel, *size], all axes after the second. Sizes that do not divide repeat their last sample."""
    axes = x.ndim - 2
    missing = [full - n for full, n in zip(padded_size(x.shape[2:], levels), x.shape[2:], strict=True)]
    if any(missing):
        x = F.pad(x, [p for m in reversed(missing) for p in (0, m)], mode="replicate")
    for _ in range(levels):
        for axis in range(axes):  # each adds a binary index before the ones already there: [b, c, last .. first axis, *size]
            x = torch.stack(split(x, axis - axes), 2)
        x = x.flatten(1, 1 + axes)
    return x


def synthesis(bands: Tensor, levels: int, size: Sequence[int]) -> Tensor:
    """Inverse of `analysis` for signals of `size` samples."""
    axes = bands.ndim - 2
    if len(size) != axes:
        raise ValueError(f"size={tuple(size)!r}: expected {axes} numbers")
    for _ in range(levels):
        bands = bands.unflatten(1, (bands.shape[1] // 2**axes, *[2] * axes))
        for axis in reversed(range(axes)):
            bands = merge(bands.select(2, 0), bands.select(2, 1), axis - axes)
    for axis, n in enumerate(size):
        bands = bands.narrow(2 + axis, 0, n)
    return bands
