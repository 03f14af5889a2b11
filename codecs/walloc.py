"""WaLLoC, trainable: wavelet packets, one linear layer, companding, and a decoder that does all the work (Jacobellis and Yadwadkar, 2024).

    x [b, channel, *size] in [-.5, .5]
      --wavelet packets-->  [b, channel * 2**(levels * axes), *size / 2**levels]
      --1x1 linear-->       [b, latents, ...]     standard deviation of a compander's scale or less
      --to uniform, round-->  integers of `bits` bits: what a file keeps
      --to normal, decoder-->  wavelet packets  --inverse-->  x', clamped to [-.5, .5]

The loss is the mean squared error and nothing else: the rate follows from the number of latents and their bits (paper, section 2).
Two decoders: "paper", one stage of a latent-diffusion autoencoder with 768 channels and global attention; "light", separable blocks that
start as the best linear inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentpress.codecs import wavelet
from latentpress.codecs.blocks import SeparableBlock
from latentpress.codecs.companding import Compander

DECODERS = ("paper", "light")
GROUPS = 32  # of the paper's group normalisation


@dataclass(frozen=True, kw_only=True)
class WallocConfig:
    """Sizes of a model. width and blocks: of the decoder; the paper's has width 768, and its blocks are fixed (pass 2, its "layers")."""

    channels: int = 3
    levels: int = 3
    latents: int = 12
    bits: int = 8
    axes: int = 2
    decoder: str = "light"
    width: int = 128
    blocks: int = 4

    def __post_init__(self) -> None:
        Compander(self.bits)
        limits = {"channels": (1, 64), "levels": (1, 10), "latents": (1, 4096), "axes": (1, 2), "width": (1, 4096), "blocks": (1, 64)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name}={value!r}: expected {low} to {high}")
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder={self.decoder!r}: expected one of {', '.join(DECODERS)}")
        if self.decoder == "paper" and (self.axes != 2 or self.width % GROUPS):
            raise ValueError(f"axes={self.axes!r}, width={self.width!r}: the paper's decoder has two axes and {GROUPS} n channels")

    @property
    def bands(self) -> int:
        return self.channels * 2 ** (self.levels * self.axes)


class LightDecoder(nn.Module):
    """1x1 in, separable residual blocks, 1x1 out. `reach`: latents on each side that a position depends on."""

    def __init__(self, config: WallocConfig) -> None:
        super().__init__()
        self.unit = Compander(config.bits).scale  # the blocks work on values about 1
        self.enter = nn.Conv2d(config.latents, config.width, 1)
        self.blocks = nn.ModuleList(SeparableBlock(config.width) for _ in range(config.blocks))
        self.leave = nn.Conv2d(config.width, config.bands, 1)
        self.reach = config.blocks * SeparableBlock.reach

    def forward(self, y: Tensor) -> Tensor:
        # depthwise layers in the other layout are 20 times slower
        h = self.enter((y / self.unit).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h)
        return self.leave(h)

    @torch.no_grad()
    def start_linear(self, matrix: Tensor, bias: Tensor) -> None:
        """Start as matrix [bands, latents] @ y + bias: through the first `latents` channels, the others adding nothing yet."""
        latents = matrix.shape[1]
        if latents > self.enter.out_channels:
            raise ValueError(f"width={self.enter.out_channels!r}: at least {latents} channels are needed to carry all latents")
        self.enter.weight[:latents] = torch.eye(latents)[:, :, None, None]
        nn.init.zeros_(self.enter.bias)  # type: ignore[arg-type]
        self.leave.weight[:, :latents] = (matrix * self.unit)[:, :, None, None]
        self.leave.weight[:, latents:] = 0.0
        self.leave.bias.copy_(bias)  # type: ignore[union-attr]
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("leave.weight", "narrow.weight")):
                weight.zero_()  # weak latents are small beside the strongest: any noise of the blocks would drown them


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class _Residual(nn.Module):
    """x + 3x3(silu(norm(3x3(silu(norm x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = _norm(channels), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class _Attention(nn.Module):
    """One head over all positions, residual: memory and time grow with the square of the area."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x).flatten(2).transpose(1, 2)  # [b, h * w, channels]
        seen = F.scaled_dot_product_attention(self.query(rows)[:, None], self.key(rows)[:, None], self.value(rows)[:, None])
        return x + self.out(seen[:, 0]).transpose(1, 2).unflatten(2, x.shape[2:])


class PaperDecoder(nn.Module):
    """3x3 in; residual, attention, residual; three residuals (two layers and the one that decoders add); norm, silu, 3x3 out."""

    def __init__(self, config: WallocConfig) -> None:
        super().__init__()
        c = config.width
        self.enter = nn.Conv2d(config.latents, c, 3, padding=1)
        self.middle = nn.Sequential(_Residual(c), _Attention(c), _Residual(c))
        self.up = nn.Sequential(*[_Residual(c) for _ in range(config.blocks + 1)])
        self.norm, self.leave = _norm(c), nn.Conv2d(c, config.bands, 3, padding=1)

    def forward(self, y: Tensor) -> Tensor:
        return self.leave(F.silu(self.norm(self.up(self.middle(self.enter(y))))))


class WallocModel(nn.Module):
    """The trainable model. `analysis(x, levels)` and `synthesis(bands, levels, size)` may be any invertible transform of those shapes."""

    def __init__(
        self,
        config: WallocConfig,
        *,
        analysis: Callable[[Tensor, int], Tensor] = wavelet.analysis,
        synthesis: Callable[..., Tensor] = wavelet.synthesis,
    ) -> None:
        super().__init__()
        self.config, self.compander = config, Compander(config.bits)
        self.analysis, self.synthesis = analysis, synthesis
        self.encoder = nn.Conv2d(config.bands, config.latents, 1)
        self.decoder: LightDecoder | PaperDecoder = LightDecoder(config) if config.decoder == "light" else PaperDecoder(config)

    def encode(self, x: Tensor) -> Tensor:
        """x [b, channel, *size] -> integers [b, latents, *size / 2**levels] as floats."""
        return self.compander.quantise(self._latents(self.analysis(x, self.config.levels)), training=False)

    def decode(self, integers: Tensor, size: tuple[int, ...]) -> Tensor:
        """Inverse of `encode` for signals of `size` samples."""
        x = self.synthesis(self.decode_bands(integers), self.config.levels, size)
        return x.clamp(-0.5, 0.5)

    def forward_bands(self, bands: Tensor) -> Tensor:
        """Wavelet packets -> their reconstruction: with noise while training, rounded otherwise."""
        return self.decode_bands(self.compander.quantise(self._latents(bands), self.training))

    def forward(self, x: Tensor) -> Tensor:
        """x -> reconstruction, clamped."""
        bands = self.forward_bands(self.analysis(x, self.config.levels))
        return self.synthesis(bands, self.config.levels, x.shape[2:]).clamp(-0.5, 0.5)

    def loss(self, x: Tensor) -> Tensor:
        return F.mse_loss(self.forward(x), x)

    def _latents(self, bands: Tensor) -> Tensor:
        """Wavelet packets -> latents, companded to the uniform range."""
        return self.compander.to_uniform(_planes(self.encoder, bands))

    def decode_bands(self, uniform: Tensor) -> Tensor:
        return _planes(self.decoder, self.compander.to_normal(uniform))

    @torch.no_grad()
    def start_from(self, samples: Tensor, *, deviation: float = 1.0) -> None:
        """Encoder: principal components of `samples` [N, bands]; light decoder: the best linear inverse of what the encoder then gives.

        deviation: standard deviation of the strongest latent in scales of the compander. All latents get the same gain, so the same
        rounding error: were all to fill the range, 12 latents would take 1.7 times the rate for a gain below .1 dB.
        """
        mean = samples.mean(0)
        covariance = ((samples - mean).T @ (samples - mean) / len(samples)).double()
        power, basis = torch.linalg.eigh(covariance)
        weight = basis.flip(1)[:, : self.config.latents].T.float() * (deviation * self.compander.scale / power[-1].sqrt().item())
        self.encoder.weight.copy_(weight[:, :, None, None])
        self.encoder.bias.copy_(-weight @ mean)  # type: ignore[union-attr]
        if isinstance(self.decoder, LightDecoder):
            self.decoder.start_linear(*self._linear_inverse(samples))

    def _linear_inverse(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Least squares from the dequantised latents back to `samples`: (matrix [bands, latents], bias [bands])."""
        y = self.compander.to_normal(torch.round(self._latents(samples.T[None, :, None, :])))[0, :, 0].T  # [N, latents]
        y = torch.cat([y, torch.ones(len(y), 1)], 1).double()
        ridge = 1e-6 * len(y) * torch.eye(y.shape[1], dtype=y.dtype)
        solution = torch.linalg.solve(y.T @ y + ridge, y.T @ samples.double()).float()
        return solution[:-1].T, solution[-1]


def _planes(layer: nn.Module, x: Tensor) -> Tensor:
    """Two-dimensional layers on signals of one axis or two."""
    return layer(x[:, :, None])[:, :, 0] if x.ndim == 3 else layer(x)
