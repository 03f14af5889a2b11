"""VAEformer as published (Han et al. 2024, arXiv 2405.03376): the architecture, for those who have 268 channels of ERA5 and GPUs.

    x [b, 268, 721, 1440] --11x10 patches, stride 10--> 72 x 144 tokens --11 blocks--> two more blocks side by side: mean | log variance
      --1x1--> posterior of y [b, 256, 72, 144]; its mode is coded
    y --4x4 patches, 4 blocks, MLP--> z [b, 256, 18, 36] --round--> z^ --MLP, 4 blocks--> scale and mean of every element of y
    y^ --1x1--> 12 blocks, norm --11x10 patches, stride 10, added where they overlap--> x^

Windows of 24x24, 12x48 and 48x12 tokens in turn, full attention every fourth block. Training has two phases: a variational autoencoder (`kl`),
then rate and distortion. Bits are counted by the priors of this suite: a learned density a channel of z, a Gaussian for each element of y. What
ships as a preset is `vaeformer-field`, small, of any size, on the same blocks (vaeformer_net.py).
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
from latentpress.codecs.vaeformer_net import patches, unpatched
from latentpress.entropy.exact import round_through
from latentpress.entropy.priors import FactorizedPrior, GaussianConditional

PUBLISHED_PARAMETERS = 405e6


@dataclass(frozen=True, kw_only=True)
class VAEformerConfig:
    """patch overlaps in height where it is taller than the stride, as the 721 latitudes need. windows: (height, width) in turn, then one
    block that sees everything. hyper_blocks: of the hyper analysis and the hyper synthesis together."""

    channels: int = 268
    size: tuple[int, int] = (721, 1440)
    patch: tuple[int, int] = (11, 10)
    stride: int = 10
    width: int = 1024
    heads: int = 16
    encoder_blocks: int = 11
    decoder_blocks: int = 12
    windows: tuple[tuple[int, int], ...] = ((24, 24), (12, 48), (48, 12))
    latents: int = 256
    hyper_width: int = 360
    hyper_heads: int = 5
    hyper_blocks: int = 8
    hyper_patch: int = 4
    hyper: int = 256

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across."""
        h, w = ((n - p) // self.stride + 1 for n, p in zip(self.size, self.patch, strict=True))
        return h, w

    def __post_init__(self) -> None:
        covered = tuple((n - 1) * self.stride + p for n, p in zip(self.grid, self.patch, strict=True))
        if covered != self.size:
            raise ValueError(f"patches of {self.patch} at stride {self.stride} cover {covered}, not size={self.size}")
        if any(n % self.hyper_patch for n in self.grid):
            raise ValueError(f"{self.grid} tokens do not divide by hyper_patch={self.hyper_patch}")

    def window_at(self, index: int) -> Window:
        """Of block `index`, counted through encoder and decoder."""
        turn = index % (len(self.windows) + 1)
        return Window() if turn == len(self.windows) else Window(height=self.windows[turn][0], width=self.windows[turn][1])


@dataclass(frozen=True)
class Coded:
    """decoded [b, channels, h, w]; bits of y and z [b]; mean and log_variance of the posterior [b, latents, rows, columns]."""

    decoded: Tensor
    bits_y: Tensor
    bits_z: Tensor
    mean: Tensor
    log_variance: Tensor


class VAEformer(nn.Module):
    """Trainable; the tokens of its grid are fixed, as positions are learned one by one."""

    def __init__(self, config: VAEformerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VAEformerConfig()
        c, block = config.width, BlockConfig(width=config.width, heads=config.heads)
        self.enter = nn.Conv2d(config.channels, c, config.patch, config.stride)
        self.position = nn.Parameter(sines(config.grid, c))
        self.encoder = nn.ModuleList(Block(block, config.window_at(i)) for i in range(config.encoder_blocks))
        head = config.window_at(config.encoder_blocks)
        self.mean, self.log_variance = Block(block, head), Block(block, head)
        self.to_latents = nn.Conv2d(2 * c, 2 * config.latents, 1)
        self.from_latents = nn.Conv2d(config.latents, c, 1)
        first = config.encoder_blocks + 1
        self.decoder = nn.ModuleList(Block(block, config.window_at(first + i)) for i in range(config.decoder_blocks))
        self.norm = nn.LayerNorm(c)
        self.leave = nn.ConvTranspose2d(c, config.channels, config.patch, config.stride, bias=False)
        self.hyper_analysis, self.hyper_synthesis = HyperAnalysis(config), HyperSynthesis(config)
        self.factorized = FactorizedPrior(config.hyper, (3, 3, 3, 3))
        for blocks in ([*self.encoder, self.mean, self.log_variance], self.decoder, self.hyper_analysis.blocks, self.hyper_synthesis.blocks):
            initialise(cast(Sequence[Block], blocks))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [b, channels, *size] -> mean and log variance, [b, latents, *grid] each."""
        tokens = self.enter(x).permute(0, 2, 3, 1) + self.position
        for block in self.encoder:
            tokens = block(tokens)
        both = torch.cat([self.mean(tokens), self.log_variance(tokens)], -1).permute(0, 3, 1, 2)
        mean, log_variance = self.to_latents(both).chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def synthesise(self, y: Tensor) -> Tensor:
        """y [b, latents, *grid] -> [b, channels, *size]."""
        tokens = self.from_latents(y).permute(0, 2, 3, 1)
        for block in self.decoder:
            tokens = block(tokens)
        return cast(Tensor, self.leave(self.norm(tokens).permute(0, 3, 1, 2)))

    def forward(self, x: Tensor, *, sampled: bool = False, rounded: bool = False) -> Coded:
        """sampled: y drawn from the posterior (first phase); else its mode. rounded: bits of the symbols that are coded, else of noisy ones."""
        mean, log_variance = self.posterior(x)
        y = mean + torch.exp(log_variance / 2) * torch.randn_like(mean) if sampled else mean
        z = self.hyper_analysis(y.detach())  # the encoder learns from distortion and from the bits of y, not through its own description
        bits_z = self.factorized(torch.round(z) if rounded else z + torch.rand_like(z) - 0.5)
        log_scale, centre = self.hyper_synthesis(round_through(z)).chunk(2, 1)
        residual = y - centre
        coded = round_through(residual)
        counted = coded if rounded else residual + torch.rand_like(residual) - 0.5
        bits_y = GaussianConditional.bits(counted, log_scale).sum((1, 2, 3))
        return Coded(self.synthesise(y if sampled else centre + coded), bits_y, bits_z, mean, log_variance)

    def loss(self, x: Tensor, weight: float, *, sampled: bool = False) -> Tensor:
        """First phase (sampled): weight * squared error + divergence a value; second: weight * squared error + bits a value."""
        out = self(x, sampled=sampled)
        rate = kl(out.mean, out.log_variance) if sampled else out.bits_y + out.bits_z
        return weight * F.mse_loss(out.decoded, x) + rate.sum() / x.numel()


class HyperAnalysis(nn.Module):
    """y [b, latents, rows, columns] -> z [b, hyper, rows/4, columns/4]."""

    def __init__(self, config: VAEformerConfig) -> None:
        super().__init__()
        c, self.patch = config.hyper_width, config.hyper_patch
        self.enter = nn.Linear(config.latents * self.patch**2, c)
        self.position = nn.Parameter(sines(cast(tuple[int, int], tuple(n // self.patch for n in config.grid)), c))
        self.blocks = hyper_blocks(config)
        self.widen, self.narrow = nn.Linear(c, config.hyper), nn.Linear(config.hyper, config.hyper)

    def forward(self, y: Tensor) -> Tensor:
        tokens = self.enter(patches(y.permute(0, 2, 3, 1), self.patch)) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return cast(Tensor, self.narrow(F.gelu(self.widen(tokens)))).permute(0, 3, 1, 2)


class HyperSynthesis(nn.Module):
    """z^ -> log scales and means [b, 2 latents, rows, columns]."""

    def __init__(self, config: VAEformerConfig) -> None:
        super().__init__()
        c, self.patch = config.hyper_width, config.hyper_patch
        self.widen, self.narrow = nn.Linear(config.hyper, config.hyper), nn.Linear(config.hyper, c)
        self.blocks = hyper_blocks(config)
        self.norm = nn.LayerNorm(c)
        self.leave = nn.Linear(c, 2 * config.latents * self.patch**2, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        tokens = self.narrow(F.gelu(self.widen(z.permute(0, 2, 3, 1))))
        for block in self.blocks:
            tokens = block(tokens)
        return unpatched(self.leave(self.norm(tokens)), self.patch).permute(0, 3, 1, 2)


def hyper_blocks(config: VAEformerConfig) -> nn.ModuleList:
    block = BlockConfig(width=config.hyper_width, heads=config.hyper_heads)
    return nn.ModuleList(Block(block, Window()) for _ in range(config.hyper_blocks // 2))


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of the posterior from N(0, 1), in nats, [b]."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3))


def sines(grid: tuple[int, int], width: int) -> Tensor:
    """[rows, columns, width]: sines and cosines of the column in the first half, of the row in the second; where positions start from."""
    half = width // 2
    rates = 10000.0 ** -(torch.arange(half // 2) / (half / 2))
    parts = []
    for n in (grid[1], grid[0]):
        angle = torch.arange(n)[:, None] * rates
        wave = torch.cat([angle.sin(), angle.cos()], 1)
        parts.append(F.pad(wave, (0, half - wave.shape[1])))
    columns, rows = parts[0][None].expand(grid[0], -1, -1), parts[1][:, None].expand(-1, grid[1], -1)
    both = torch.cat([columns, rows], 2)
    return F.pad(both, (0, width - both.shape[2]))


@torch.no_grad()
def initialise(blocks: Sequence[Block]) -> None:
    """Small weights, and what block n adds divided by the root of 2 n, so that depth does not change the size of tokens at the start."""
    for depth, block in enumerate(blocks, 1):
        for layer in (block.attention.project, block.attention.leave, block.widen, block.narrow):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        for layer in (block.attention.leave, block.narrow):
            layer.weight.div_(math.sqrt(2 * depth))
