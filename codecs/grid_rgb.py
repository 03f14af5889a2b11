"""grid-rgb: lossless photographs, learned: reversible colour transform, then the hierarchical integer grid (entropy/grid.py).

    RGB --YCoCg-R--> planes of integers --GridPrior--> bytes, tile by tile

8 and 16 bits, gray or RGB, any size. Everything is integer arithmetic, so the decoded samples are those that were encoded, on every machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.grid_preset import GridPriors
from latentpress.codecs.presets import Preset, built
from latentpress.entropy.grid import Fits, GridPrior
from latentpress.errors import FormatError, UnsupportedError

TILE = 1024
FITS = 1  # effort from which on predictions are fitted to the image
PEAKS = {"uint8": 255, "uint16": 65535}


def to_planes(data: NDArray[Any]) -> NDArray[np.int32]:
    """[h, w] or [h, w, 1 | 3] unsigned integers -> int32 [1 | 3, h, w]: gray, or Y, Co, Cg of YCoCg-R (Malvar and Sullivan 2003)."""
    x = data.astype(np.int32)
    if x.ndim == 2 or x.shape[2] == 1:
        return x.reshape(1, *x.shape[:2])
    r, g, b = x.transpose(2, 0, 1)
    co = r - b
    t = b + (co >> 1)
    cg = g - t
    return np.stack([t + (cg >> 1), co, cg])


def from_planes(planes: NDArray[np.int32], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Inverse of `to_planes`. Raises FormatError for planes that no samples of this dtype give."""
    if len(planes) == 1:
        x = planes.reshape(shape)
    else:
        y, co, cg = planes
        t = y - (cg >> 1)
        g = cg + t
        b = t - (co >> 1)
        x = np.stack([b + co, g, b], 2)
    if x.size and (x.min() < 0 or x.max() > PEAKS[dtype]):
        raise FormatError(f"damaged stream: samples outside {dtype}")
    return x.astype(dtype)


class GridRGB(Codec):
    """The lossless image codec. One chunk a tile of 1024 x 1024."""

    id: ClassVar[str] = "grid-rgb"
    domain: ClassVar[str] = "image"
    dims: ClassVar[tuple[str, ...]] = ("y", "x", "band")
    lossless: ClassVar[bool] = True

    def __init__(self, preset: Preset, *, tile: int = TILE) -> None:
        self.name, self.digest, self.preset, self.tile = preset.name, preset.digest, preset, tile
        self.priors = GridPriors(preset)
        self.prior("uint8")  # a preset that does not fit is found when it loads

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> GridRGB:
        """Raises FormatError for a damaged preset."""
        return built(directory, name, cls)

    def prior(self, dtype: str) -> GridPrior:
        """For samples of this dtype."""
        return self.priors.prior(PEAKS[dtype])

    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """Quality changes nothing: the file is lossless; effort 0 does not fit predictions to the image (3 % larger, half the time). Raises
        UnsupportedError for other targets, dtypes and band counts."""
        data = signal.data
        suits = signal.dims in (self.dims, self.dims[:2]) and str(data.dtype) in PEAKS and data.shape[2:] in ((), (1,), (3,))
        if not suits or min(data.shape) < 1:
            raise UnsupportedError(f"{self.name} codes gray or RGB of 8 or 16 bits, not {data.dtype}{data.shape} {signal.dims}")
        if target.quality is None:
            raise UnsupportedError(f"{self.name} is lossless: leave bpp, psnr and max_bytes out")
        prior = self.prior(str(data.dtype))
        chunks = tuple(
            Chunk(payload=prior.encode(to_planes(data[rows, columns]), fits=effort >= FITS), position=position)
            for position, rows, columns in self._tiles(data.shape)
        )
        return Encoded(
            codec=self.name, digest=self.digest, shape=data.shape, dtype=str(data.dtype), dims=signal.dims, parameters={"tile": self.tile}
            if len(chunks) > 1 else {}, chunks=chunks,
        )  # fmt: skip

    def decode(self, encoded: Encoded) -> Signal:
        """Missing chunks leave mid-grey tiles."""
        self._check(encoded)
        out = np.full(encoded.shape, (PEAKS[encoded.dtype] + 1) // 2, encoded.dtype)
        for (rows, columns), planes in self._planes(encoded):
            part = out[rows, columns]
            part[:] = from_planes(planes, part.shape, encoded.dtype)
        return Signal(data=out, dims=encoded.dims)

    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        """The planes of each tile, flat."""
        return tuple(planes.ravel() for _, planes in self._planes(encoded))

    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        prior = self.prior(encoded.dtype)
        places = self._places(encoded)
        chunks = []
        for chunk, flat in zip(encoded.chunks, symbols, strict=True):
            size, fits = self._size(encoded, places[chunk.position or (0, 0)]), Fits.none()
            prior.decode(chunk.payload, size, fits=fits)  # which are of the image that the file was made of
            chunks.append(Chunk(payload=prior.encode(np.reshape(flat, size), fits=fits), position=chunk.position))
        return dataclasses.replace(encoded, chunks=tuple(chunks))

    def places(self, encoded: Encoded) -> int:
        self._check(encoded)
        tile = self._tile_of(encoded)
        return -(-encoded.shape[0] // tile) * -(-encoded.shape[1] // tile)

    def describe(self) -> Mapping[str, Any]:
        return self.priors.describe(PEAKS["uint8"])

    def _tile_of(self, encoded: Encoded) -> int:
        return encoded.parameters.get("tile", max(encoded.shape[:2]))

    def _check(self, encoded: Encoded) -> None:
        shape, tile = encoded.shape, self._tile_of(encoded)
        fits = len(shape) in (2, 3) and min(shape) > 0 and encoded.dims == self.dims[: len(shape)] and shape[2:] in ((), (1,), (3,))
        if not fits or encoded.dtype not in PEAKS or tile < 1 or ("tile" in encoded.parameters and not 64 <= tile <= 1 << 14):
            raise FormatError(f"header does not fit {self.name}: {encoded.dtype} {shape} {encoded.dims}, tile {tile}")
        if "tile" not in encoded.parameters and max(shape[:2]) > 1 << 14:
            raise FormatError(f"header does not fit {self.name}: {shape} in one tile")

    def _tiles(self, shape: tuple[int, ...], tile: int | None = None) -> Iterator[tuple[tuple[int, int], slice, slice]]:
        tile = tile or self.tile
        for i in range(-(-shape[0] // tile)):
            for j in range(-(-shape[1] // tile)):
                yield (i, j), slice(i * tile, min((i + 1) * tile, shape[0])), slice(j * tile, min((j + 1) * tile, shape[1]))

    def _places(self, encoded: Encoded) -> dict[tuple[int, ...], tuple[slice, slice]]:
        return {position: (rows, columns) for position, rows, columns in self._tiles(encoded.shape, self._tile_of(encoded))}

    def _size(self, encoded: Encoded, place: tuple[slice, slice]) -> tuple[int, int, int]:
        bands = encoded.shape[2] if len(encoded.shape) == 3 else 1
        return bands, place[0].stop - place[0].start, place[1].stop - place[1].start

    def _planes(self, encoded: Encoded) -> Iterator[tuple[tuple[slice, slice], NDArray[np.int32]]]:
        self._check(encoded)
        prior = self.prior(encoded.dtype)
        places = self._places(encoded)
        for chunk in encoded.chunks:
            place = places.pop(chunk.position or (0, 0), None)
            if place is None:
                raise FormatError(f"chunk {chunk.position} lies outside the image, or twice in the file")
            yield place, prior.decode(chunk.payload, self._size(encoded, place))
