"""Priors: a differentiable side that counts bits for training, and `freeze()` to integer tables.

    FactorizedPrior      a learned density a channel (Balle et al. 2018, "Variational image compression with a scale hyperprior", appendix 6.1)
    GaussianConditional  N(mean, scale) an element, scales from a fixed grid of 64
    CategoricalPrior     a learned probability a symbol and row

A mixture conditional has its place here: its component tables will be integer CDFs whose integer weighted sum is the coding table.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from latentpress.entropy.tables import Tables, gaussian_tables

LIKELIHOOD_FLOOR = 1e-9


class FactorizedPrior(nn.Module):
    """One learned monotone CDF a channel: sigmoid of a small network with positive weights."""

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3)) -> None:
        super().__init__()
        self.channels = channels
        widths = (1, *filters, 1)
        self.depth = len(widths) - 1
        scale = 10 ** (1 / self.depth)
        for i in range(self.depth):
            start = math.log(math.expm1(1 / scale / widths[i + 1]))
            self.register_parameter(f"matrix{i}", nn.Parameter(torch.full((channels, widths[i + 1], widths[i]), start)))
            self.register_parameter(f"bias{i}", nn.Parameter(torch.rand(channels, widths[i + 1], 1) - 0.5))
            if i < self.depth - 1:
                self.register_parameter(f"factor{i}", nn.Parameter(torch.zeros(channels, widths[i + 1], 1)))

    def logits(self, x: Tensor) -> Tensor:
        """x [channels, 1, N] -> logits of the CDF, same shape."""
        for i in range(self.depth):
            x = F.softplus(getattr(self, f"matrix{i}")) @ x + getattr(self, f"bias{i}")
            if i < self.depth - 1:
                x = x + torch.tanh(getattr(self, f"factor{i}")) * torch.tanh(x)
        return x

    def mass(self, x: Tensor) -> Tensor:
        """Probability of the unit interval around each of x [channels, 1, N]."""
        low, high = self.logits(x - 0.5), self.logits(x + 0.5)
        sign = -torch.sign(low + high).detach()  # evaluate both sigmoids in the tail where they are accurate
        return (torch.sigmoid(sign * high) - torch.sigmoid(sign * low)).abs()

    def forward(self, z: Tensor) -> Tensor:
        """Bits [batch] of noisy or rounded z [batch, channels, h, w]."""
        v = z.transpose(0, 1).reshape(self.channels, 1, -1).float()
        bits = -torch.log2(self.mass(v).clamp_min(LIKELIHOOD_FLOOR))
        return bits.reshape(self.channels, z.shape[0], -1).sum((0, 2))

    @torch.no_grad()
    def freeze(self, *, reach: int = 127, tail: float = 2.0**-18) -> Tables:
        """One row a channel, over the symbols within +-reach that carry all but `tail` of the mass."""
        k = torch.arange(-reach, reach + 1, dtype=torch.float32)
        mass = self.mass(k.expand(self.channels, 1, -1)).squeeze(1).double().numpy()
        rows, lows = [], []
        for m in mass:
            keep = np.flatnonzero(m > tail / 4)
            first, last = (keep[0], keep[-1]) if len(keep) else (reach, reach)
            rows.append(np.append(m[first : last + 1], max(tail, m.sum() - m[first : last + 1].sum())))
            lows.append(int(first) - reach)
        return Tables.from_masses(rows, lows)


class GaussianConditional:
    """Zero-mean residuals with a scale from the grid exp(index / 8), 64 steps from about 0.11 to 400."""

    first = -18
    steps_per_nat = 8
    rows = 64
    floor = math.exp(first / steps_per_nat)

    @classmethod
    def scales(cls) -> NDArray[np.float64]:
        return np.exp((np.arange(cls.rows) + cls.first) / cls.steps_per_nat)

    @classmethod
    def bits(cls, residual: Tensor, log_scale: Tensor) -> Tensor:
        """Bits of each residual (value - mean), noisy or rounded; log_scale natural, clamped to the grid's range."""
        last = (cls.first + cls.rows - 1) / cls.steps_per_nat
        scale = torch.exp(log_scale.clamp(cls.first / cls.steps_per_nat, last))
        v, root = residual.abs(), math.sqrt(0.5)
        mass = 0.5 * (torch.erfc((v - 0.5) / scale * root) - torch.erfc((v + 0.5) / scale * root))
        return -torch.log2(mass.clamp_min(LIKELIHOOD_FLOOR))

    @classmethod
    def freeze(cls) -> Tables:
        return gaussian_tables([float(s) for s in cls.scales()])


class CategoricalPrior(nn.Module):
    """Rows of learned symbol probabilities."""

    def __init__(self, rows: int, symbols: int, low: int = 0) -> None:
        super().__init__()
        self.low = low
        self.logits = nn.Parameter(torch.zeros(rows, symbols))

    def forward(self, symbols: Tensor, rows: Tensor) -> Tensor:
        """Bits [N] of integer symbols [N] (low <= symbol < low + S) under rows [N]."""
        return -torch.log_softmax(self.logits, 1)[rows, symbols - self.low] / math.log(2)

    @torch.no_grad()
    def freeze(self, tail: float = 2.0**-18) -> Tables:
        mass = torch.softmax(self.logits.double(), 1).numpy()
        return Tables.from_masses([np.append(m, tail) for m in mass], [self.low] * len(mass))
