"""WaLLoC's companding: a Gaussian's distribution function makes latents uniform before rounding, its inverse puts them back (section 2).

    latent (sd = scale) --to_uniform--> [-top, top] --quantise--> integers of `bits` bits --to_normal--> latent

Constants are those of the released code: scale = (2^(bits-1) - 1) / 1.85, top = 2^(bits-1) - 1 + .5 - 1e-3, and the inverse sees values
clipped to [1e-4, 1 - 1e-4], which bounds what it returns to 3.72 scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CLIP = 1e-4


@dataclass(frozen=True)
class Compander:
    """Latents to integers and back. bits: 2 to 8, of one integer."""

    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits={self.bits!r}: expected 2 to 8")

    @property
    def peak(self) -> int:
        """Largest magnitude of an integer."""
        return 2 ** (self.bits - 1) - 1

    @property
    def scale(self) -> float:
        """Standard deviation of the Gaussian that becomes uniform."""
        return self.peak / 1.85

    @property
    def top(self) -> float:
        return self.peak + 0.5 - 1e-3

    def to_uniform(self, latent: Tensor) -> Tensor:
        return self.top * torch.erf(latent * (math.sqrt(0.5) / self.scale))

    def to_normal(self, uniform: Tensor) -> Tensor:
        share = (uniform / (2 * self.top) + 0.5).clamp(CLIP, 1 - CLIP)
        return self.scale * torch.special.ndtri(share)

    def quantise(self, uniform: Tensor, training: bool) -> Tensor:
        """Uniform noise in [-.5, .5] while training, rounding otherwise."""
        return uniform + torch.rand_like(uniform) - 0.5 if training else torch.round(uniform)
