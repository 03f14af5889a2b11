"""walloc-classic: WaLLoC as published, at a fixed rate, with a learned entropy coder in place of PNG or WebP.

    x --wavelet packets--> 1x1 --compander, round--> q [latents, h/8, w/8] within +-127 --PlanePrior--> bytes
    q --compander--> light decoder --inverse wavelet packets--> x^

The rate follows from the number of latents: quality and effort are accepted and change nothing; other targets are refused.
The transform is periodised, so the image is a torus: halos of tiles go around its edges, and tiling changes nothing but the last place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs import wavelet
from latentpress.codecs.base import Encoded, Signal, Target
from latentpress.codecs.presets import Preset, built
from latentpress.codecs.tiled import Grid, Span, TileCore, Tiled, with_bands
from latentpress.codecs.walloc import LightDecoder, WallocConfig, WallocModel
from latentpress.entropy.planes import PlanePrior
from latentpress.errors import UnsupportedError

TRANSFORM_REACH = 4  # latents: three levels of the 9-tap filter see 28 samples to each side


class WallocClassicCore(TileCore):
    """Frozen weights of one preset. Latents are the integers, as floats; there is one level."""

    id: ClassVar[str] = "walloc-classic"
    stride: ClassVar[int] = 8
    align: ClassVar[int] = 8
    max_level = 0

    def __init__(self, config: WallocConfig, preset: Preset) -> None:
        if config.decoder != "light" or config.axes != 2 or config.channels != 3 or config.levels != 3:
            raise ValueError("walloc-classic needs the light decoder, two axes, three bands and three levels")
        self.config, self.preset, self.latent_channels = config, preset, config.latents
        self.model = WallocModel(config)
        state = {k: torch.from_numpy(np.array(preset.weights[k], np.float32)) for k in self.model.state_dict()}
        self.model.load_state_dict(state)
        self.model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert isinstance(self.model.decoder, LightDecoder)
        self.decoder_reach = self.model.decoder.reach
        self.analysis_reach = TRANSFORM_REACH  # type: ignore[misc]
        self.synthesis_reach = TRANSFORM_REACH + self.decoder_reach  # type: ignore[misc]
        self.prior = PlanePrior.from_state(preset.weights, "prior", channels=config.latents, peak=self.model.compander.peak)

    def to_samples(self, data: NDArray[Any]) -> Tensor:
        if data.dtype not in (np.uint8, np.uint16) or data.shape[2] not in (1, 3):
            raise UnsupportedError(f"walloc-classic codes 8- or 16-bit gray or RGB, not {data.dtype} with {data.shape[2]} bands")
        x = data.astype(np.float32) / np.iinfo(data.dtype).max - 0.5
        return torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None].expand(1, 3, -1, -1)

    def to_data(self, samples: Tensor, dtype: np.dtype[Any], bands: int) -> NDArray[Any]:
        peak = int(np.iinfo(dtype).max)
        if bands == 1:
            samples = samples.mean(1, keepdim=True)
        scaled = ((samples.clamp(-0.5, 0.5) + 0.5) * peak + 0.5)[0].permute(1, 2, 0)
        return scaled.to(torch.int32).numpy().astype(dtype)

    def analyse(self, samples: Tensor) -> Tensor:
        return self.model.encode(samples)

    def quantise(self, latents: Tensor, level: int) -> NDArray[np.int32]:
        return latents[0].numpy().astype(np.int32)

    def refine(
        self, latents: Tensor, samples: Tensor, level: int, effort: int, margins: tuple[int, int, int, int]
    ) -> NDArray[np.int32]:
        return self.quantise(latents, level)

    def bits(self, quantised: NDArray[np.int32]) -> float:
        return self.prior.bits(quantised)

    def reconstructed(self, quantised: NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(quantised[None].astype(np.float32))

    def pack(self, quantised: NDArray[np.int32]) -> bytes:
        return self.prior.encode(quantised)

    def unpack(self, payload: bytes, size: tuple[int, int], level: int) -> tuple[NDArray[np.int32], Tensor]:
        planes = self.prior.decode(payload, size)
        return planes.ravel(), self.reconstructed(planes)

    def repack(self, symbols: NDArray[np.int32], size: tuple[int, int], level: int) -> bytes:
        return self.prior.encode(symbols.reshape(self.config.latents, *size))

    def synthesise(self, latents: Tensor, level: int) -> Tensor:
        """Gives the samples of all positions but the outermost `decoder_reach`, whose neighbours the decoder did not see."""
        r = self.decoder_reach
        bands = self.model.decode_bands(latents)[:, :, r:-r, r:-r].contiguous()
        size = tuple(n * self.stride for n in bands.shape[2:])
        return wavelet.synthesis(bands, self.config.levels, size)

    def describe(self) -> Mapping[str, Any]:
        c, n, b = self.config, self.config.latents, self.config.bands
        decode = n * c.width + c.blocks * (6 * c.width**2 + 9 * c.width) + c.width * b
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "weight_bytes": sum(w.nbytes for w in self.preset.weights.values()),
            "macs_per_pixel": {"encode": round(n * b / 64), "decode": round(decode / 64)},  # without the transform
            **self.preset.description.get("about", {}),
        }


class WallocClassic(Tiled):
    """The codec over a core: `Tiled` on a torus, at one quality."""

    core: WallocClassicCore
    id = WallocClassicCore.id
    domain = "image"
    dims = ("y", "x", "band")

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> WallocClassic:
        """Raises FormatError for a damaged preset."""
        def parts(preset: Preset) -> tuple[WallocClassicCore, bytes]:
            return WallocClassicCore(WallocConfig(**preset.description["config"]), preset), preset.digest

        core, digest = built(directory, name, parts)
        return cls(core, name=name, digest=digest)

    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """target.quality and effort have no effect: this codec has one rate. Raises UnsupportedError for other targets."""
        if target.quality is None:
            raise UnsupportedError(f"{self.name} has one fixed rate: leave bpp, psnr and max_bytes out, or take walloc-rgb")
        return super().encode(signal, target, effort=effort)

    def _window(self, data: NDArray[Any], span: Span, grid: Grid) -> Tensor:
        """Samples under a span, around the edges of the image after its last row and column were repeated to a multiple of 8."""
        rows, columns = (
            np.minimum(np.arange(a * 8, b * 8) % (full * 8), n - 1)
            for a, b, full, n in zip((span.y0, span.x0), (span.y1, span.x1), grid.latent_size, data.shape, strict=False)
        )
        return self.core.to_samples(with_bands(data[np.ix_(rows, columns)]))

    def _analyse(self, data: NDArray[Any], span: Span, grid: Grid) -> Tensor:
        h, w = _halo(span, grid, TRANSFORM_REACH)
        wide = Span(span.position, span.y0 - h, span.y1 + h, span.x0 - w, span.x1 + w)
        return self.core.analyse(self._window(data, wide, grid))[:, :, h : h + span.size[0], w : w + span.size[1]]

    def _synthesise_into(self, out: NDArray[Any], latents: Tensor, span: Span, grid: Grid, level: int) -> None:
        s, r, (h, w) = self.core.stride, self.core.decoder_reach, _halo(span, grid, TRANSFORM_REACH)
        rows = torch.arange(span.y0 - h - r, span.y1 + h + r) % grid.latent_size[0]
        columns = torch.arange(span.x0 - w - r, span.x1 + w + r) % grid.latent_size[1]
        samples = self.core.synthesise(latents[:, :, rows][:, :, :, columns], level)
        target = with_bands(out)[span.y0 * s : span.y1 * s, span.x0 * s : span.x1 * s]
        part = samples[:, :, h * s : h * s + target.shape[0], w * s : w * s + target.shape[1]]
        target[:] = self.core.to_data(part, out.dtype, target.shape[2])


def _halo(span: Span, grid: Grid, reach: int) -> tuple[int, int]:
    """How far a window must reach beyond a span on each axis: not at all where it spans the axis, as the transform is periodic itself."""
    return tuple(0 if n == full else reach for n, full in zip(span.size, grid.latent_size, strict=True))  # type: ignore[return-value]
