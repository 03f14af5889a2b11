"""Exact networks: convolutions whose every value is an integer, carried in float tensors so that the fast kernels run them.

    FixedConv2d   trainable, in real units; "float" mode is a plain convolution, "through" mode computes with the integers of the frozen
                  layer and passes gradients straight through the rounding
    IntegerConv2d frozen, in units of the last place: round(w * x + b) clamped, the bound proven when it is made

The rule: with |x| <= limit, sum |w| * limit + |b| < 2**24 (2**53 in a float64 carrier) in units of the product's last place. Every partial sum in
any order is then an integer that the carrier holds exactly, so threads, kernels, layouts, batch sizes and devices cannot change a bit.
No Winograd, no TF32, no bfloat16 on this path. Leaky ReLU has slope 1/8 and floors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CARRIER_BITS = 24  # float32
_MOST_FRACTION = 12  # finest weights: 2**-12 keeps them in int16 up to 8


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Values k * 2**-frac with integers |k| <= limit."""

    frac: int
    limit: int


class _Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _ToFixed(torch.autograd.Function):
    """One rounding and clamping whose backward pass is one kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, limit: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.edge = (limit + 0.5) / scale
        return x.mul(scale).add_(0.5).floor_().clamp_(-limit, limit).div_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return torch.ops.aten.hardtanh_backward(grads[0], ctx.saved_tensors[0], -ctx.edge, ctx.edge), None, None


class _Leaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        return torch.maximum(x, x.mul(scale * 0.125).floor_().div_(scale))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.leaky_relu_backward(grads[0], ctx.saved_tensors[0], 0.125, False), None


def floor_through(x: Tensor) -> Tensor:
    """floor, gradient 1."""
    return _Floor.apply(x) if x.requires_grad else torch.floor(x)


def round_through(x: Tensor) -> Tensor:
    """floor(x + 1/2), gradient 1."""
    return floor_through(x + 0.5)


def to_fixed(x: Tensor, target: Fixed) -> Tensor:
    """Real units to the nearest value of `target`, gradient 1 inside the limit."""
    scale = 2.0**target.frac
    if x.requires_grad:
        return _ToFixed.apply(x, scale, float(target.limit))
    return round_through(x * scale).clamp(-target.limit, target.limit) / scale


def leaky(x: Tensor, frac: int | None = 0) -> Tensor:
    """Leaky ReLU of slope 1/8, floored to 2**-frac; frac=None: not floored (float mode)."""
    if frac is None:
        return F.leaky_relu(x, 0.125)
    scale = 2.0**frac
    if x.requires_grad:
        return _Leaky.apply(x, scale)
    return torch.maximum(x, floor_through(x * (scale * 0.125)) / scale if frac else floor_through(x * 0.125))


class FixedConv2d(nn.Conv2d):
    """A convolution that trains in float and freezes to integers; shapes as nn.Conv2d."""

    through: bool = False

    def __init__(self, inputs: int, outputs: int, size: int, *, source: Fixed, target: Fixed, groups: int = 1) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2, groups=groups)
        self.source, self.target = source, target

    def forward(self, x: Tensor) -> Tensor:
        if not self.through:
            return super().forward(x)
        return to_fixed(self._conv_forward(x, *self.fixed_parameters()), self.target)

    def fixed_parameters(self) -> tuple[Tensor, Tensor]:
        """Weights and bias in real units, multiples of a power of two an output channel; differentiable."""
        assert self.bias is not None
        step = 2.0 ** self.fractions()
        weight = round_through(self.weight * step[:, None, None, None]) / step[:, None, None, None]
        step = step * 2.0**self.source.frac
        return weight, round_through(self.bias * step) / step

    @torch.no_grad()
    def fractions(self) -> Tensor:
        """Largest fraction bits of the weights, per output channel, for which the bound holds whatever the rounding does."""
        assert self.bias is not None
        fan_in = self.weight[0].numel()
        reach = self.weight.abs().sum((1, 2, 3)) * self.source.limit + self.bias.abs() * 2.0**self.source.frac
        # rounding adds at most 1/2 a weight and 1/2 to the bias; the rounding offset of the output adds less than 2**15
        room = 2.0**CARRIER_BITS - 2.0**15 - (fan_in * self.source.limit + 1) / 2
        return torch.floor(torch.log2(room / reach.clamp_min(1e-9))).clamp(max=_MOST_FRACTION)

    def freeze(self) -> IntegerConv2d:
        fraction = self.fractions()
        weight, bias = self.fixed_parameters()
        step = 2.0**fraction
        return IntegerConv2d(
            weight=(weight * step[:, None, None, None]).detach(),
            bias=(bias * step * 2.0**self.source.frac).detach(),
            fraction=fraction,
            source=self.source,
            target=self.target,
            groups=self.groups,
        )


class IntegerConv2d(nn.Module):
    """y = clamp(floor((sum w * x + b) * 2**-shift + 1/2)): integers in, integers out, units of the last place of source and target.

    weight    [outputs, inputs / groups, k, k] integers;  bias [outputs] integers in units of 2**-(fraction + source.frac)
    fraction  [outputs] fraction bits of the weights
    carrier_bits  24 for float32; 53 for a layer that computes in float64, where inputs are too wide for float32
    Raises ValueError when the bound of the module's docstring does not hold for some channel.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, *, weight: Tensor, bias: Tensor, fraction: Tensor, source: Fixed, target: Fixed, groups: int = 1, carrier_bits: int = CARRIER_BITS
    ) -> None:
        super().__init__()
        self.source, self.target, self.groups, self.padding = source, target, groups, weight.shape[-1] // 2
        self.integers = (weight.to(torch.int32), bias.to(torch.int32), fraction.to(torch.int32))
        for name, real, whole in zip(("weight", "bias", "fraction"), (weight, bias, fraction), self.integers, strict=True):
            if not torch.equal(real.double(), whole.double()):
                raise ValueError(f"{name}: integers of 32 bits expected")
        self.prove(carrier_bits)
        # folded so that the product is in units of the target and the 1/2 of the rounding sits in the bias: one convolution, floor, clamp
        scale = 2.0 ** (target.frac - source.frac - fraction.double())
        # plain attributes would not follow .double() or .to(device); buffers do, and are not stored (the integers are)
        carrier = torch.float32 if carrier_bits <= CARRIER_BITS else torch.float64
        self.register_buffer("weight", (weight.double() * scale[:, None, None, None]).to(carrier), persistent=False)
        self.register_buffer("bias", (bias.double() * scale + 0.5).to(carrier), persistent=False)

    def prove(self, carrier_bits: int = CARRIER_BITS) -> None:
        weight, bias, fraction = (t.double() for t in self.integers)
        shift = fraction + self.source.frac - self.target.frac
        if (shift < 1).any():
            raise ValueError(f"channel {int(torch.argmin(shift))}: weights too large, no bit is left for rounding")
        bound = weight.abs().sum((1, 2, 3)) * self.source.limit + bias.abs() + 2.0 ** (shift - 1)
        if (bound >= 2.0**carrier_bits).any():
            raise ValueError(f"channel {int(torch.argmax(bound))}: sums may reach {bound.max():.0f}, a carrier holds 2**{carrier_bits}")

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype:
            return self._clamped(self._sums(x.to(self.weight.dtype))).to(x.dtype)
        return self._clamped(self._sums(x))

    def _sums(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)

    def _clamped(self, y: Tensor) -> Tensor:
        if y.requires_grad:
            return floor_through(y).clamp(-self.target.limit, self.target.limit)
        return y.floor_().clamp_(-self.target.limit, self.target.limit)
