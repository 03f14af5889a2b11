"""Layers that several systems share."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


def activation(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 1/8, the one of the exact networks."""
    return F.leaky_relu(x, 0.125)


class SeparableBlock(nn.Module):
    """Residual block: x + 1x1(depthwise 3x3(1x1 x)), then x + 1x1(1x1 x) with a wider middle. [b, c, h, w] -> same.

    Starts near the identity, so that a linear start (KLT) of the layers around it survives.
    """

    reach = 1  # positions on each side that the output depends on

    def __init__(self, channels: int, *, widening: int = 2) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.leave = nn.Conv2d(channels, channels, 1)
        self.widen = nn.Conv2d(channels, widening * channels, 1)
        self.narrow = nn.Conv2d(widening * channels, channels, 1)
        for layer in (self.leave, self.narrow):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(channels / 128))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.leave(activation(self.depthwise(activation(self.enter(x)))))
        return x + self.narrow(activation(self.widen(x)))
