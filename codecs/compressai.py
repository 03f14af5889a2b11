"""compressai: any CompressAI image model as a codec of this package, with its own weights and probabilities and our files and entropy coder.

    x --pad--> g_a --> y (--> h_a --> z) --round--> symbols --compressai_coding--> bytes, one chunk

A preset holds one model, or a ladder of them for rising rates: the header's "level" is the rung, and quality 0 to 100 picks the nearest.
The last row and column are repeated up to the multiple of 16 or 64 that the model needs (CompressAI's own evaluation pads with black).
Not exact in this package's sense: see compressai_coding.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.compressai_coding import AutoregressiveCoding, Coding, Size, coding_of, padded
from latentpress.codecs.compressai_preset import load_rung, rungs_of
from latentpress.codecs.presets import Preset, read_preset
from latentpress.codecs.search import choose_level, quality_level
from latentpress.errors import FormatError, InputError, LimitError, MissingPresetError, UnsupportedError

LARGEST = 1 << 24  # padded samples a band: the networks run on the whole image at once, at about 100 bytes a sample and channel
USUAL_QUALITY = 50


class CompressAICodec(Codec):
    """Frozen CompressAI models. Loading one imports CompressAI (10 to 20 s), on first use."""

    id: ClassVar[str] = "compressai"
    domain: ClassVar[str] = "image"
    dims: ClassVar[tuple[str, ...]] = ("y", "x", "band")
    exact: ClassVar[bool] = False

    def __init__(self, preset: Preset, *, name: str) -> None:
        self.preset, self.name, self.digest = preset, name, preset.digest
        self.rungs = rungs_of(preset.description)
        self._codings: dict[int, Coding] = {}

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> CompressAICodec:
        """Raises FormatError for a damaged preset."""
        try:
            return cls(read_preset(directory, name), name=name)
        except ValueError as error:
            raise FormatError(f"{directory}: {error}") from error

    @classmethod
    def from_name(cls, rest: str) -> CompressAICodec:
        """What follows "compressai/": CompressAI's own weights, downloaded on first use. Raises InputError, MissingPresetError."""
        from latentpress.codecs.compressai_pretrained import fetched_preset, parse_name

        return cls.from_preset(fetched_preset(parse_name(rest)), f"{cls.id}/{rest}")

    @classmethod
    def from_cache(cls, rest: str) -> CompressAICodec:
        """As `from_name`, of what was downloaded before: a file's header can ask for this. Raises MissingPresetError."""
        from latentpress.codecs.compressai_pretrained import cached_preset, parse_name

        try:
            which = parse_name(rest)
        except InputError as error:
            raise MissingPresetError(str(error)) from error
        return cls.from_preset(cached_preset(which), f"{cls.id}/{rest}")

    @property
    def max_level(self) -> int:
        return len(self.rungs) - 1

    def coding(self, level: int) -> Coding:
        """The model of a rung, loaded on first use. Raises FormatError when the preset is damaged, MissingExtraError without CompressAI."""
        if level not in self._codings:
            self._codings[level] = coding_of(*load_rung(self.preset, level))
        return self._codings[level]

    # ---- encode

    @torch.no_grad()
    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """effort has no effect. Raises UnsupportedError for signals it cannot keep and targets out of reach; LimitError for large images."""
        if signal.dims not in (self.dims, self.dims[:2]):
            raise UnsupportedError(f"{self.name} codes {self.dims}, not {signal.dims}")
        if min(signal.data.shape) < 1:
            raise UnsupportedError(f"{self.name} cannot code an empty signal of shape {signal.data.shape}")
        trial = _Trial(self, signal.data)
        level = self._level(target, trial)
        return Encoded(
            codec=self.name, digest=self.digest, shape=signal.data.shape, dtype=str(signal.data.dtype), dims=signal.dims,
            parameters={"level": level}, chunks=(Chunk(payload=trial.packed(level)[0]),),
        )  # fmt: skip

    def _level(self, target: Target, trial: _Trial) -> int:
        if self.max_level:
            return choose_level(target, trial, self.max_level)
        if target.quality not in (None, USUAL_QUALITY):
            raise UnsupportedError(f"{self.name} has one fixed quality: leave it out, or make a ladder (latentpress.codecs.compressai_ladder)")
        if target.quality is None:
            raise UnsupportedError(
                f"{self.name} has one fixed rate: leave bpp, psnr and max_bytes out, or make a ladder (latentpress.codecs.compressai_ladder)"
            )
        return quality_level(target.quality, 0)

    def _samples(self, data: NDArray[Any]) -> Tensor:
        """[h, w] or [h, w, band] -> float32 [1, 3, h, w] in 0..1."""
        _check_kind(self.name, data.shape, data.dtype)
        bands = data if data.ndim == 3 else data[:, :, None]
        x = torch.from_numpy(np.ascontiguousarray(bands.transpose(2, 0, 1), dtype=np.float32)).div_(float(np.iinfo(data.dtype).max))
        return x[None].expand(1, 3, -1, -1)

    # ---- decode

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> Signal:
        """A missing chunk leaves mid-grey."""
        latents = self._latents(encoded)
        if latents is None:
            peak = np.iinfo(encoded.dtype).max
            return Signal(data=np.full(encoded.shape, peak // 2 + 1, encoded.dtype), dims=encoded.dims)
        samples = self.coding(encoded.parameters["level"]).synthesise(latents)
        return Signal(data=_data(samples, encoded.shape, np.dtype(encoded.dtype)), dims=encoded.dims)

    def _check(self, encoded: Encoded) -> Size:
        """Height and width of y. Raises FormatError, UnsupportedError or LimitError for headers that do not fit."""
        level = encoded.parameters.get("level", -1)
        shape_fits = len(encoded.shape) in (2, 3) and min(encoded.shape) > 0 and encoded.dims == self.dims[: len(encoded.shape)]
        if not (shape_fits and 0 <= level <= self.max_level and set(encoded.parameters) == {"level"}):
            raise FormatError(f"header does not fit {self.name}: shape {encoded.shape}, parameters {dict(encoded.parameters)}")
        _check_kind(self.name, encoded.shape, np.dtype(encoded.dtype))
        h, w = padded_size(encoded.shape, self.factor(level))
        return h // 16, w // 16

    def factor(self, level: int) -> int:
        """Sides are padded to multiples of this. Raises as `coding`."""
        return int(self.coding(level).model.downsampling_factor)

    def _unpacked(self, encoded: Encoded) -> tuple[NDArray[np.int32], Tensor] | None:
        size = self._check(encoded)
        if len(encoded.chunks) > 1 or any(any(c.position) for c in encoded.chunks):
            raise FormatError(f"{len(encoded.chunks)} chunks: {self.name} has one, at the origin")
        if not encoded.chunks:
            return None
        return self.coding(encoded.parameters["level"]).unpack(encoded.chunks[0].payload, size)

    def _latents(self, encoded: Encoded) -> Tensor | None:
        unpacked = self._unpacked(encoded)
        return None if unpacked is None else unpacked[1]

    def places(self, encoded: Encoded) -> int:
        self._check(encoded)
        return 1

    @torch.no_grad()
    def latents(self, encoded: Encoded) -> Tensor:
        """y^: float32 [1, m, h/16, w/16] of the padded image. Raises FormatError when the chunk is missing."""
        latents = self._latents(encoded)
        if latents is None:
            raise FormatError("the data chunk is missing")
        return latents

    @torch.no_grad()
    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        unpacked = self._unpacked(encoded)
        return () if unpacked is None else (unpacked[0],)

    @torch.no_grad()
    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        size, coding = self._check(encoded), self.coding(encoded.parameters["level"])
        chunks = tuple(dataclasses.replace(c, payload=coding.repack(s, size)) for c, s in zip(encoded.chunks, symbols, strict=True))
        return dataclasses.replace(encoded, chunks=chunks)

    def describe(self) -> Mapping[str, Any]:
        coding = self.coding(self.max_level)
        return {
            "parameters": sum(p.numel() for p in coding.model.parameters()),
            "weight_bytes": sum(w.nbytes for w in self.preset.weights.values()),
            "architecture": self.preset.description["architecture"], "rungs": len(self.rungs), "exact": self.exact,
            **({"slow": "autoregressive: waves of positions, one after the other"} if isinstance(coding, AutoregressiveCoding) else {}),
            "licence": "BSD-3-Clause-Clear (CompressAI)", **self.preset.description.get("about", {}),
        }  # fmt: skip


class _Trial:
    """One image coded at whichever rungs are asked for, for the search."""

    def __init__(self, codec: CompressAICodec, data: NDArray[Any]) -> None:
        self.codec, self.data = codec, data
        self.input = codec._samples(data)
        self.samples = data.shape[0] * data.shape[1]
        self._packed: dict[int, tuple[bytes, Tensor]] = {}

    def packed(self, level: int) -> tuple[bytes, Tensor]:
        if level not in self._packed:
            factor = self.codec.factor(level)
            padded_size(self.data.shape, factor)
            self._packed[level] = self.codec.coding(level).pack(padded(self.input, factor))
        return self._packed[level]

    def payload_bytes(self, level: int) -> float:
        return max(1, len(self.packed(level)[0]))

    def psnr(self, level: int) -> float:
        decoded = _data(self.codec.coding(level).synthesise(self.packed(level)[1]), self.data.shape, self.data.dtype)
        error = float(np.square(decoded.astype(np.float64) - self.data).mean())
        return float("inf") if error == 0 else 10 * float(np.log10(float(np.iinfo(self.data.dtype).max) ** 2 / error))


def padded_size(shape: tuple[int, ...], factor: int) -> Size:
    """Height and width as multiples of `factor`. Raises LimitError where the networks would need too much memory."""
    h, w = (-(-n // factor) * factor for n in shape[:2])
    if h * w > LARGEST:
        raise LimitError(f"{shape[0]} x {shape[1]} samples, padded to {h} x {w}: CompressAI models code at most {LARGEST}, as they have no tiles")
    return h, w


def _check_kind(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    bands = shape[2] if len(shape) == 3 else 1
    if dtype not in (np.uint8, np.uint16) or bands not in (1, 3):
        raise UnsupportedError(f"{name} codes 8- or 16-bit gray or RGB, not {dtype} with {bands} bands")


def _data(samples: Tensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """[1, 3, h', w'] -> the first rows and columns, clamped and rounded, as [h, w, band] or [h, w]; one band is the mean of three."""
    peak = int(np.iinfo(dtype).max)
    x = samples[0, :, : shape[0], : shape[1]].clamp(0, 1).nan_to_num_(0.5)
    if len(shape) == 2 or shape[2] == 1:
        x = x.mean(0, keepdim=True)
    scaled = x.permute(1, 2, 0).mul(peak).add_(0.5)
    data = (scaled.to(torch.uint8) if peak == 255 else scaled.to(torch.int32)).numpy().astype(dtype, copy=False)
    return np.ascontiguousarray(data).reshape(shape)
