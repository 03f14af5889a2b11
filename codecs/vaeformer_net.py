"""Transforms of vaeformer-field: planes to latents and back by transformers over 8x8 patches.

    plane --8x8 patches--> 64 --1x1--> tokens of `width` --blocks--> 2x2 tokens --1x1--> `latents` numbers at 1/16
    latents --1x1--> 2x2 tokens --blocks--> 1x1 --> 64 --> plane

All planes go through the same weights, each alone; planes of a group help each other in the entropy model, which codes their latents together.
Every other block shifts its windows of 8x8 tokens by half. VAEformer: Han et al. 2024 (arXiv 2405.03376), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentpress.codecs.attention import Block, BlockConfig, Window
from latentpress.entropy.hyperprior import HyperpriorConfig

PATCH = 8  # samples a side of a token
WINDOW = 8  # tokens a side of a window
STRIDE = 2 * PATCH  # samples a side of a latent position
ALIGN = 64  # maps are whole windows of tokens, and whole positions of the hyper-latents
PLANES = 3  # of a group at most
QUIET = 0.1  # of the usual size, of what blocks add when a model starts as a KLT
EVEN = 0.5  # exponent by which tokens start whitened: norms and MLPs see fine detail beside the mean


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """lambda: weight of the normalised squared error against bits a value, at the ends of the levels."""

    width: int = 128
    heads: int = 4
    widening: int = 2
    latents: int = 128  # of one plane
    analysis_blocks: int = 2
    synthesis_blocks: int = 3
    hyper: int = 32
    hidden: int = 64
    context: int = 128
    levels: int = 8
    lambda_low: float = 0.3
    lambda_high: float = 200.0

    def prior(self) -> HyperpriorConfig:
        return HyperpriorConfig(
            latents=PLANES * self.latents, hyper=self.hyper, hidden=self.hidden, context=self.context, levels=self.levels
        )  # fmt: skip

    def block(self) -> BlockConfig:
        return BlockConfig(width=self.width, heads=self.heads, widening=self.widening, relative=True, local=True)

    def lambda_at(self, level: Tensor) -> Tensor:
        return self.lambda_low * torch.exp(level / (self.levels - 1) * math.log(self.lambda_high / self.lambda_low))


class Blocks(nn.ModuleList):
    """Windows in turn straight and shifted; [n, h, w, c] with h, w multiples of 8."""

    def __init__(self, config: FieldConfig, count: int) -> None:
        super().__init__(Block(config.block(), Window(height=WINDOW, width=WINDOW, shift=i % 2 * WINDOW // 2)) for i in range(count))

    def forward(self, x: Tensor, wrap: bool) -> Tensor:
        for block in self:
            x = block(x, wrap=wrap)
        return x


class Analysis(nn.Module):
    """Planes [n, h, w], sides multiples of 64 -> [n, latents, h/16, w/16]."""

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(PATCH**2, config.width)
        self.blocks = Blocks(config, config.analysis_blocks)
        self.leave = nn.Linear(4 * config.width, config.latents)

    def forward(self, x: Tensor, *, wrap: bool = False) -> Tensor:
        tokens = self.blocks(self.enter(patches(x[..., None], PATCH)), wrap)
        return cast(Tensor, self.leave(patches(tokens, 2))).permute(0, 3, 1, 2)


class Synthesis(nn.Module):
    """Inverse shapes of Analysis."""

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(config.latents, 4 * config.width)
        self.blocks = Blocks(config, config.synthesis_blocks)
        self.leave = nn.Linear(config.width, PATCH**2)

    def forward(self, y: Tensor, *, wrap: bool = False) -> Tensor:
        tokens = unpatched(self.enter(y.permute(0, 2, 3, 1)), 2)
        return unpatched(self.leave(self.blocks(tokens, wrap)), PATCH)[..., 0]


def patches(x: Tensor, size: int) -> Tensor:
    """[n, h, w, c] -> [n, h/size, w/size, size size c]: rows, columns, channels of each patch."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // size, size, w // size, size, c).transpose(2, 3)
    return x.reshape(n, h // size, w // size, size * size * c)


def unpatched(x: Tensor, size: int) -> Tensor:
    """Inverse of `patches`."""
    n, h, w, c = x.shape
    x = x.view(n, h, w, size, size, c // size**2).transpose(2, 3)
    return x.reshape(n, h * size, w * size, c // size**2)


@torch.no_grad()
def start_as_klt(analysis: Analysis, synthesis: Synthesis, planes: Sequence[Tensor]) -> None:
    """The KLT of 16x16 blocks in two orthonormal steps, 8x8 first: a linear transform codec before the first step. planes: [h, w] each."""
    width, blocks = analysis.enter.out_features, torch.cat([_blocks(p) for p in planes])  # [n, 2, 2, 64]
    keep = min(PATCH**2, width)
    basis, deviation = _klt(blocks.reshape(-1, PATCH**2), keep)
    even = deviation.clamp_min(1e-3) ** -EVEN
    _fill(analysis.enter, basis.T * even[:, None], rows=keep)
    _fill(synthesis.leave, basis / even, columns=keep)
    coarse, _ = _klt((blocks @ basis).reshape(-1, 4 * keep), analysis.leave.out_features)
    spread = torch.zeros(4, width, coarse.shape[1])
    inward, outward = spread.clone(), spread
    inward[:, :keep] = coarse.view(4, keep, -1) / even[:, None]
    outward[:, :keep] = coarse.view(4, keep, -1) * even[:, None]
    _fill(analysis.leave, inward.view(4 * width, -1).T)
    _fill(synthesis.enter, outward.view(4 * width, -1))
    for block in (*analysis.blocks, *synthesis.blocks):
        assert isinstance(block, Block) and block.local is not None
        block.local.weight.zero_()  # one that is only quiet costs 3 dB, as neighbours are so much alike
        for layer in (block.attention.leave, block.narrow):
            layer.weight.mul_(QUIET)
        for bias in (block.local.bias, block.attention.leave.bias, block.narrow.bias):
            assert bias is not None
            bias.zero_()


def _klt(vectors: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """[n, c] around 0 -> (principal axes [c, keep], largest variance first, and deviations [keep] along them)."""
    wide = vectors.double()
    values, axes = torch.linalg.eigh(wide.T @ wide / len(wide))
    return axes.flip(1)[:, :keep].float(), values.flip(0)[:keep].clamp_min(0).sqrt().float()


def _blocks(plane: Tensor, most: int = 384) -> Tensor:
    """The middle of a plane, at most `most` a side: [n, 2, 2, 64], 16x16 blocks as four 8x8 patches."""
    h, w = (min(most, n // STRIDE * STRIDE) for n in plane.shape)
    top, left = (plane.shape[0] - h) // 2, (plane.shape[1] - w) // 2
    found = patches(plane[None, top : top + h, left : left + w, None].float(), PATCH)
    return patches(found, 2).reshape(-1, 2, 2, PATCH**2)


def _fill(layer: nn.Linear, weight: Tensor, *, rows: int | None = None, columns: int | None = None) -> None:
    """Weights [out, in] into a layer, its other rows or columns and its bias to 0."""
    layer.weight.zero_()
    layer.weight[:rows, :columns] = weight
    layer.bias.zero_()


def fit(x: Tensor, h: int, w: int) -> Tensor:
    """[..., y, x] filled up to h x w by its last row and column."""
    return F.pad(x[None], (0, w - x.shape[-1], 0, h - x.shape[-2]), mode="replicate")[0]
