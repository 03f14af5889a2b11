"""Transformer blocks over maps of tokens [b, h, w, c]: attention in windows (square, wide, tall, shifted) or everywhere, then an MLP.

One block serves the paper's VAEformer (windows of three shapes in turn, no bias) and our preset (8x8 windows, every other block shifted, a
relative position bias, a depthwise 3x3 before). A map may be a ring along its width (`wrap`): a global grid whose last meridian meets its first.

Liu et al. 2021 (Swin: shifted windows, relative position bias, masks where a shifted window holds what lies apart); Chu et al. 2021
(a depthwise convolution as positional encoding).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Window:
    """Tokens a window, and by how many windows are shifted down and to the right. height 0: one window over the whole map."""

    height: int = 0
    width: int = 0
    shift: int = 0


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """relative: a learned bias for each offset in a window and head; local: a depthwise 3x3 before the attention."""

    width: int
    heads: int
    widening: int = 4
    relative: bool = False
    local: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must divide by heads={self.heads}")


class Attention(nn.Module):
    """Multi-head attention of [b, windows, n, c], n = height * width tokens of a window, under an additive mask [windows, n, n] or None."""

    def __init__(self, config: BlockConfig, window: Window) -> None:
        super().__init__()
        self.heads = config.heads
        self.project = nn.Linear(config.width, 3 * config.width)
        self.leave = nn.Linear(config.width, config.width)
        self.bias: nn.Parameter | None = None
        if config.relative:
            if not window.height:
                raise ValueError("a relative bias needs a window: attention over the whole map has none")
            self.bias = nn.Parameter(torch.zeros(config.heads, (2 * window.height - 1) * (2 * window.width - 1)))
            self.register_buffer("offsets", offsets(window.height, window.width), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, windows, n, c = x.shape
        q, k, v = self.project(x).view(b, windows, n, 3, self.heads, c // self.heads).permute(3, 0, 1, 4, 2, 5)
        added = None if self.bias is None else self.bias[:, cast(Tensor, self.offsets)]  # [heads, n, n]
        if mask is not None:
            added = mask[:, None] if added is None else added + mask[:, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=added)
        return cast(Tensor, self.leave(y.transpose(2, 3).reshape(b, windows, n, c)))


class Block(nn.Module):
    """[b, h, w, c] -> same: x + depthwise(x), then x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, config: BlockConfig, window: Window) -> None:
        super().__init__()
        c = config.width
        self.window = window
        self.local = nn.Conv2d(c, c, 3, groups=c) if config.local else None
        self.norm_attention, self.norm_mlp = nn.LayerNorm(c), nn.LayerNorm(c)
        self.attention = Attention(config, window)
        self.widen, self.narrow = nn.Linear(c, config.widening * c), nn.Linear(config.widening * c, c)

    def forward(self, x: Tensor, *, wrap: bool = False) -> Tensor:
        if self.local is not None:
            x = x + self.local(bordered(x, wrap).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self._attend(self.norm_attention(x), wrap)
        return x + cast(Tensor, self.narrow(F.gelu(self.widen(self.norm_mlp(x)))))

    def _attend(self, x: Tensor, wrap: bool) -> Tensor:
        b, h, w, c = x.shape
        window = self.window
        if not window.height:
            return cast(Tensor, self.attention(x.reshape(b, 1, h * w, c), None)).view(b, h, w, c)
        mask = window_mask(h, w, window, wrap)
        windows = cut(x, window)
        return joined(self.attention(windows, None if mask is None else mask.to(x)), window, h, w)


def bordered(x: Tensor, wrap: bool) -> Tensor:
    """One more token on each side: the opposite side along a ring, else the same token again. [b, h, w, c] -> [b, h + 2, w + 2, c]."""
    x = torch.cat([x[:, :1], x, x[:, -1:]], 1)
    left, right = (x[:, :, -1:], x[:, :, :1]) if wrap else (x[:, :, :1], x[:, :, -1:])
    return torch.cat([left, x, right], 2)


def offsets(height: int, width: int) -> Tensor:
    """[n, n]: number of the offset between two tokens of a window, 0 to (2 height - 1)(2 width - 1) - 1."""
    y, x = (t.flatten() for t in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    return (y[:, None] - y + height - 1) * (2 * width - 1) + x[:, None] - x + width - 1


def cut(x: Tensor, window: Window) -> Tensor:
    """[b, h, w, c] -> [b, windows, n, c]; the map is filled up to whole windows and rolled by the shift."""
    b, h, w, c = x.shape
    down, across = -h % window.height, -w % window.width
    if down or across:
        x = F.pad(x, (0, 0, 0, across, 0, down))
    if window.shift:
        x = torch.roll(x, (-window.shift, -window.shift), (1, 2))
    rows, columns = x.shape[1] // window.height, x.shape[2] // window.width
    x = x.view(b, rows, window.height, columns, window.width, c).transpose(2, 3)
    return x.reshape(b, rows * columns, window.height * window.width, c)


def joined(x: Tensor, window: Window, h: int, w: int) -> Tensor:
    """Inverse of `cut`."""
    b, _, _, c = x.shape
    rows, columns = -(-h // window.height), -(-w // window.width)
    x = x.view(b, rows, columns, window.height, window.width, c).transpose(2, 3)
    x = x.reshape(b, rows * window.height, columns * window.width, c)
    if window.shift:
        x = torch.roll(x, (window.shift, window.shift), (1, 2))
    return x[:, :h, :w]


@lru_cache(maxsize=64)
def window_mask(h: int, w: int, window: Window, wrap: bool) -> Tensor | None:
    """0 between tokens that may see each other, -inf else: [windows, n, n] on the CPU; None where all of every window may."""
    down, across = -h % window.height, -w % window.width
    ring = wrap and not across
    if not (down or across or (window.shift and not (ring and h == 0)) or window.shift):
        return None
    rows, columns = _regions(h, down, window.shift, False), _regions(w, across, window.shift, ring)
    region = (rows[:, None] * 4 + columns)[None, :, :, None]
    same = cut(torch.roll(region, (window.shift, window.shift), (1, 2)), window)[0, :, :, 0]
    return torch.where(same[:, :, None] == same[:, None, :], 0.0, -torch.inf)


def _regions(size: int, fill: int, shift: int, ring: bool) -> Tensor:
    """Along one axis of the rolled map: 0 for what stayed, 1 for the filling, 2 for what the shift moved to the end (0 on a ring)."""
    region = torch.zeros(size + fill, dtype=torch.long)
    if fill:
        region[size:] = 1
    region = torch.roll(region, -shift)
    if shift and not ring:
        region[-shift:] += 2
    return region
