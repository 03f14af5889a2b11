"""Tiled: images and fields of any size in bounded memory, one chunk a tile, no seams.

A tile's latents are those of the whole signal: analysis sees a halo of samples, synthesis a halo of the neighbours' latents, both as wide as
their receptive fields reach. Only the entropy model stops at a tile's edge. So the decoded samples are those of the untiled transform (to a
rounding in the last place), and a damaged tile costs little beyond its own area.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.search import choose_level
from latentpress.errors import FormatError, LimitError, UnsupportedError

TILE = 1024  # samples a side: large enough that the entropy model loses < 0.3 % at the edges, small enough for caches and memory


class TileCore(ABC):
    """What Tiled needs of a transform codec. Tensors [1, c, h, w]; latents have 1/stride of the resolution.

    stride            samples a latent position
    align             tiles are multiples of this many samples
    analysis_reach, synthesis_reach   halo in latent positions
    levels            integer levels are 0 to `max_level`
    """

    id: ClassVar[str]
    domain: ClassVar[str] = "image"
    dims: ClassVar[tuple[str, ...]] = ("y", "x", "band")
    stride: ClassVar[int]
    align: ClassVar[int]
    analysis_reach: ClassVar[int]
    synthesis_reach: ClassVar[int]
    latent_channels: int
    max_level: int

    @abstractmethod
    def to_samples(self, data: NDArray[Any]) -> Tensor:
        """Part of a signal's data [h, w, band] to float samples [1, c, h, w]. Raises UnsupportedError for dtypes or bands it cannot keep."""

    @abstractmethod
    def to_data(self, samples: Tensor, dtype: np.dtype[Any], bands: int) -> NDArray[Any]:
        """Inverse of `to_samples`, clamped and rounded."""

    @abstractmethod
    def analyse(self, samples: Tensor) -> Tensor:
        """Samples to real latents, before gains."""

    @abstractmethod
    def quantise(self, latents: Tensor, level: int) -> Any:
        """Real latents of one tile to something that `bits`, `pack` and `reconstructed` take."""

    @abstractmethod
    def refine(self, latents: Tensor, samples: Tensor, level: int, effort: int) -> Any:
        """As `quantise`, but spend encoder time on a better choice. samples: those of the tile, [1, c, h, w]."""

    @abstractmethod
    def bits(self, quantised: Any) -> float: ...

    @abstractmethod
    def reconstructed(self, quantised: Any) -> Tensor:
        """What `unpack` will return as latents."""

    @abstractmethod
    def pack(self, quantised: Any) -> bytes: ...

    @abstractmethod
    def unpack(self, payload: bytes, size: tuple[int, int], level: int) -> tuple[NDArray[np.int32], Tensor]:
        """Payload of a tile with latents of this size -> (all symbols, latents). Raises FormatError."""

    @abstractmethod
    def repack(self, symbols: NDArray[np.int32], size: tuple[int, int], level: int) -> bytes: ...

    @abstractmethod
    def synthesise(self, latents: Tensor, level: int) -> Tensor:
        """Decoded latents to samples."""

    def describe(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True)
class Span:
    """One tile in latent positions: rows y0:y1, columns x0:x1."""

    position: tuple[int, int]
    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def size(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    def grown(self, reach: int, height: int, width: int) -> Span:
        return Span(
            self.position, max(0, self.y0 - reach), min(height, self.y1 + reach), max(0, self.x0 - reach), min(width, self.x1 + reach)
        )


@dataclass(frozen=True)
class Grid:
    """The tiles of a signal of `height` x `width` samples, padded to multiples of `align`."""

    height: int
    width: int
    tile: int
    stride: int
    align: int

    @property
    def latent_size(self) -> tuple[int, int]:
        return tuple(-(-n // self.align) * (self.align // self.stride) for n in (self.height, self.width))  # type: ignore[return-value]

    def __iter__(self) -> Iterator[Span]:
        step, (h, w) = self.tile // self.stride, self.latent_size
        for i, y in enumerate(range(0, h, step)):
            for j, x in enumerate(range(0, w, step)):
                yield Span((i, j), y, min(h, y + step), x, min(w, x + step))


def with_bands(data: NDArray[Any]) -> NDArray[Any]:
    """A view [h, w, band] of [h, w] or [h, w, band]."""
    return data[:, :, None] if data.ndim == 2 else data


class Tiled(Codec):
    """A codec over a TileCore."""

    def __init__(self, core: TileCore, *, name: str, digest: bytes, tile: int = TILE) -> None:
        self.core, self.name, self.digest, self.tile = core, name, digest, tile
        self.id, self.domain, self.dims = core.id, core.domain, core.dims  # type: ignore[misc]

    # ---- encode

    @torch.no_grad()
    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """Raises UnsupportedError for signals the core cannot keep and for targets out of reach."""
        if signal.dims not in (self.dims, self.dims[:2]):
            raise UnsupportedError(f"{self.name} codes {self.dims}, not {signal.dims}")
        if min(signal.data.shape) < 1:
            raise UnsupportedError(f"{self.name} cannot code an empty signal of shape {signal.data.shape}")
        grid = self._grid(signal.data.shape, self.tile)
        spans = list(grid)
        latents = [self._analyse(signal.data, span, grid) for span in spans]
        level = choose_level(target, _Trial(self, signal, grid, latents), self.core.max_level)
        chunks = []
        for span, y in zip(spans, latents, strict=True):
            if effort < 3:
                quantised = self.core.quantise(y, level)
            else:
                quantised = self.core.refine(y, self._window(signal.data, span, grid), level, effort)
            chunks.append(Chunk(payload=self.core.pack(quantised), position=span.position))
        parameters = {"level": level} if len(spans) == 1 else {"level": level, "tile": self.tile}
        return Encoded(
            codec=self.name, digest=self.digest, shape=signal.data.shape, dtype=str(signal.data.dtype), dims=signal.dims,
            parameters=parameters, chunks=tuple(chunks),
        )  # fmt: skip

    def _grid(self, shape: tuple[int, ...], tile: int) -> Grid:
        return Grid(shape[0], shape[1], tile, self.core.stride, self.core.align)

    def _window(self, data: NDArray[Any], span: Span, grid: Grid) -> Tensor:
        """Samples under a span; beyond the signal's edge the last row and column repeat."""
        s = self.core.stride
        y1, x1 = min(span.y1 * s, grid.height), min(span.x1 * s, grid.width)
        # the padding may cover a whole span of latents: keep at least the last row and column to repeat
        y0, x0 = min(span.y0 * s, y1 - 1), min(span.x0 * s, x1 - 1)
        samples = self.core.to_samples(with_bands(data[y0:y1, x0:x1]))
        top, left = span.y0 * s - y0, span.x0 * s - x0
        padded = F.pad(samples, (0, span.x1 * s - x1, 0, span.y1 * s - y1), mode="replicate")
        return padded[:, :, top:, left:]

    def _analyse(self, data: NDArray[Any], span: Span, grid: Grid) -> Tensor:
        wide = span.grown(self.core.analysis_reach, *grid.latent_size)
        y = self.core.analyse(self._window(data, wide, grid))
        return y[:, :, span.y0 - wide.y0 : span.y1 - wide.y0, span.x0 - wide.x0 : span.x1 - wide.x0]

    # ---- decode

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> Signal:
        """Missing chunks leave mid-grey tiles."""
        latents, grid = self._latents(encoded), self._grid_of(encoded)
        out = np.empty(encoded.shape, np.dtype(encoded.dtype))
        for span in grid:
            self._synthesise_into(out, latents, span, grid, encoded.parameters["level"])
        return Signal(data=out, dims=encoded.dims)

    def _synthesise_into(self, out: NDArray[Any], latents: Tensor, span: Span, grid: Grid, level: int) -> None:
        s, wide = self.core.stride, span.grown(self.core.synthesis_reach, *grid.latent_size)
        samples = self.core.synthesise(latents[:, :, wide.y0 : wide.y1, wide.x0 : wide.x1], level)
        top, left = (span.y0 - wide.y0) * s, (span.x0 - wide.x0) * s
        target = with_bands(out[span.y0 * s : span.y1 * s, span.x0 * s : span.x1 * s])
        h, w = target.shape[:2]
        if h and w:
            target[:] = self.core.to_data(samples[:, :, top : top + h, left : left + w], out.dtype, target.shape[2])

    def _grid_of(self, encoded: Encoded) -> Grid:
        tile, level = encoded.parameters.get("tile", 1 << 40), encoded.parameters.get("level", -1)
        shape_fits = len(encoded.shape) in (2, 3) and min(encoded.shape) > 0 and encoded.dims == self.dims[: len(encoded.shape)]
        tile_fits = tile >= self.core.align and tile % self.core.align == 0
        if not (shape_fits and tile_fits and 0 <= level <= self.core.max_level):
            raise FormatError(f"header does not fit {self.name}: shape {encoded.shape}, tile {tile}, level {level}")
        bands = encoded.shape[2] if len(encoded.shape) == 3 else 1
        # a sample of the declared kind: refused here, before anything is allocated
        self.core.to_samples(np.broadcast_to(np.zeros((), encoded.dtype), (1, 1, bands)))
        grid = self._grid(encoded.shape, tile)
        h, w = grid.latent_size
        if h * w * self.core.stride**2 > 4 * encoded.shape[0] * encoded.shape[1] + (4 * TILE) ** 2:
            raise LimitError(f"{encoded.shape[0]} x {encoded.shape[1]} samples would be padded to {h * self.core.stride} x {w * self.core.stride}")
        if tile > 4 * TILE and h * w * self.core.stride**2 > (4 * TILE) ** 2:
            raise LimitError(f"{encoded.shape[0]} x {encoded.shape[1]} samples in tiles of {tile}: {4 * TILE} is the largest tile")
        return grid

    def _unpacked(self, encoded: Encoded) -> Iterator[tuple[Span, NDArray[np.int32], Tensor]]:
        spans: dict[tuple[int, ...], Span] = {span.position: span for span in self._grid_of(encoded)}
        for chunk in encoded.chunks:
            span = spans.get(chunk.position or (0, 0))
            if span is None:
                raise FormatError(f"chunk {chunk.position} lies outside the signal, or twice in the file")
            del spans[span.position]
            yield span, *self.core.unpack(chunk.payload, span.size, encoded.parameters["level"])

    def _latents(self, encoded: Encoded) -> Tensor:
        h, w = self._grid_of(encoded).latent_size
        latents = torch.zeros(1, self.core.latent_channels, h, w).to(memory_format=torch.channels_last)
        for span, _, tile in self._unpacked(encoded):
            latents[:, :, span.y0 : span.y1, span.x0 : span.x1] = tile
        return latents

    def places(self, encoded: Encoded) -> int:
        """Number of tiles, without making them."""
        grid = self._grid_of(encoded)
        return math.prod(-(-n // (grid.tile // grid.stride)) for n in grid.latent_size)

    @torch.no_grad()
    def latents(self, encoded: Encoded) -> Tensor:
        """Float tensor [1, m, h, w], in units of the quantisation step, of the padded signal."""
        return self._latents(encoded)

    @torch.no_grad()
    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        return tuple(symbols for _, symbols, _ in self._unpacked(encoded))

    @torch.no_grad()
    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        spans: dict[tuple[int, ...], Span] = {span.position: span for span in self._grid_of(encoded)}
        level = encoded.parameters["level"]
        chunks = tuple(
            Chunk(payload=self.core.repack(s, spans[c.position or (0, 0)].size, level), position=c.position)
            for c, s in zip(encoded.chunks, symbols, strict=True)
        )
        return dataclasses.replace(encoded, chunks=chunks)

    def describe(self) -> Mapping[str, Any]:
        return self.core.describe()


class _Trial:
    """Rate and distortion of one signal at any level, for the search."""

    def __init__(self, codec: Tiled, signal: Signal, grid: Grid, latents: list[Tensor]) -> None:
        self.codec, self.signal, self.grid, self.tiles = codec, signal, grid, latents
        self.samples = grid.height * grid.width
        self._bytes: dict[int, float] = {}

    def payload_bytes(self, level: int) -> float:
        if level not in self._bytes:
            self._bytes[level] = self._measured(level)
        return self._bytes[level]

    def _measured(self, level: int) -> float:
        core = self.codec.core
        # a chunk's stream ends on a 32-bit word: about two more than the ideal length
        return sum(core.bits(core.quantise(y, level)) / 8 + 8 for y in self.tiles)

    def psnr(self, level: int) -> float:
        core, (h, w) = self.codec.core, self.grid.latent_size
        latents = torch.zeros(1, core.latent_channels, h, w).to(memory_format=torch.channels_last)
        for span, y in zip(self.grid, self.tiles, strict=True):
            latents[:, :, span.y0 : span.y1, span.x0 : span.x1] = core.reconstructed(core.quantise(y, level))
        out = np.empty_like(self.signal.data)
        squares = 0.0
        s = core.stride
        for span in self.grid:
            self.codec._synthesise_into(out, latents, span, self.grid, level)
            part = np.s_[span.y0 * s : span.y1 * s, span.x0 * s : span.x1 * s]
            squares += float(((out[part].astype(np.float32) - self.signal.data[part]) ** 2).sum(dtype=np.float64))
        peak = float(np.iinfo(out.dtype).max)
        return float("inf") if squares == 0 else 10 * float(np.log10(peak**2 * out.size / squares))
