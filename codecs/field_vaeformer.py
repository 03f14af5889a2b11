"""vaeformer-field: gridded fields of any size, lossy, at a continuous quality, from one small set of transformer weights.

    planes --unit, mask--> groups of up to three --analysis--> latents --four-step prior--> one chunk a group and tile

The last two axes are the grid (latitude, longitude or rows, columns), all before them count planes. What picks coding tables is integer
arithmetic, so the symbols are the same everywhere; the synthesis is float, and decoded values may differ in the last places between machines.
VAEformer: Han et al. 2024 (arXiv 2405.03376); sizes, prior and file are our own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.field_planes import FIELD, Unit, is_ring, normalised, pack_units, padded, restored, unit_of, unpack_units
from latentpress.codecs.presets import Preset, built
from latentpress.codecs.search import choose_level
from latentpress.codecs.tiled import Span
from latentpress.codecs.vaeformer_core import Core, Quantised, tiles
from latentpress.codecs.vaeformer_net import ALIGN, PLANES, STRIDE, FieldConfig
from latentpress.errors import FormatError, InputError, LimitError, UnsupportedError

TILE = 2048  # samples a side
LARGEST_TILE = 4096
DTYPES = ("float32", "float64")
PARAMETERS = {"level", "wrap", "group", "tile"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How planes of h x w lie in groups and tiles."""

    planes: int
    h: int
    w: int
    group: int
    tile: int
    ring: bool

    @property
    def latent_size(self) -> tuple[int, int]:
        return tuple(-(-n // ALIGN) * (ALIGN // STRIDE) for n in (self.h, self.w))  # type: ignore[return-value]

    @property
    def side(self) -> int:
        return self.tile // STRIDE

    def groups(self) -> Iterator[tuple[int, slice]]:
        for g in range(-(-self.planes // self.group)):
            yield g, slice(g * self.group, min((g + 1) * self.group, self.planes))

    def tiles(self) -> Iterator[Span]:
        return tiles(*self.latent_size, self.side)

    def part(self, tile: Span) -> tuple[slice, slice]:
        """Grid points under a tile; none where a tile holds filling alone."""
        ys, xs = (slice(min(a * STRIDE, n), min(b * STRIDE, n)) for a, b, n in ((tile.y0, tile.y1, self.h), (tile.x0, tile.x1, self.w)))
        return ys, xs

    @property
    def places(self) -> int:
        return -(-self.planes // self.group) * math.prod(-(-n // self.side) for n in self.latent_size)


class FieldVAEformer(Codec):
    """One chunk a group of planes and tile, at (group, row, column)."""

    id: ClassVar[str] = "vaeformer-field"
    domain: ClassVar[str] = "field"
    dims: ClassVar[tuple[str, ...]] = ("lat", "lon")
    drift: ClassVar[float | None] = 2.0**-14  # measured: up to 2^-16, AVX2 or none, with oneDNN or without, float64

    def __init__(self, config: FieldConfig, preset: Preset, *, tile: int = TILE) -> None:
        self.core, self.preset, self.name, self.digest, self.tile = Core(config, preset), preset, preset.name, preset.digest, tile

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> FieldVAEformer:
        """Raises FormatError for a damaged preset."""
        return built(directory, name, lambda preset: cls(FieldConfig(**preset.description["config"]), preset))

    # ---- encode

    @torch.no_grad()
    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """signal: float32 or float64 [..., h, w], NaN where missing. meta "wrap": True or False where the caller knows whether the last column
        goes on at the first; else the field is looked at. Effort changes nothing.

        Targets: quality; max_bytes; bpp (bits a value); psnr (dB; the peak is each plane's range, squared errors are averaged in its units).
        Raises UnsupportedError for other signals, for bounds and for targets out of reach; InputError for infinities.
        """
        data = signal.data
        layout = self._layout_of(data, signal.meta.get("wrap"))
        if target.max_error is not None or target.max_rel_error is not None:
            raise UnsupportedError(f"{self.name} keeps no pointwise bound: take the codec lattice, or a quality")
        planes = data.reshape(layout.planes, layout.h, layout.w)
        groups = [self._prepare(planes[rows], layout) for _, rows in layout.groups()]
        level = choose_level(target, _Trial(self, planes, layout, groups), self.core.max_level)
        chunks = []
        for (g, _), (units, latents) in zip(layout.groups(), groups, strict=True):
            for tile in layout.tiles():
                payload = self._payload(units, latents, layout, tile, level)
                chunks.append(Chunk(payload=payload, position=(g, *tile.position) if layout.places > 1 else ()))
        parameters = {"level": level} | ({"wrap": 1} if layout.ring else {}) | ({"group": layout.group} if layout.planes > 1 else {})
        if max(layout.latent_size) > layout.side:
            parameters["tile"] = layout.tile
        return Encoded(codec=self.name, digest=self.digest, shape=data.shape, dtype=str(data.dtype), dims=signal.dims, parameters=parameters,
                       chunks=tuple(chunks))  # fmt: skip

    def _layout_of(self, data: NDArray[Any], wrap: bool | None) -> Layout:
        if str(data.dtype) not in DTYPES or data.ndim < 2 or min(data.shape) < 1:
            raise UnsupportedError(f"{self.name} codes float32 or float64 fields of two or more axes, not {data.dtype}{data.shape}")
        if np.isinf(data).any():
            raise InputError(f"{self.name}: the field has infinite values; replace them by NaN, or take a codec with a bound")
        if np.abs(data).max(initial=0, where=np.isfinite(data)) > np.finfo(np.float32).max / 4:
            raise UnsupportedError(f"{self.name}: values beyond what float32 holds; scale the field")
        planes = math.prod(data.shape[:-2])
        group = -(-planes // -(-planes // PLANES))  # as even as they come: four planes are two and two
        ring = _looks_like_a_ring(data.reshape(planes, *data.shape[-2:])) if wrap is None else wrap
        layout = Layout(planes, data.shape[-2], data.shape[-1], group, self.tile, ring)
        _check_size(layout)
        return layout

    def _prepare(self, planes: NDArray[Any], layout: Layout) -> tuple[list[Unit], Tensor | None]:
        """Units of whole planes, and the latents of the group before gains."""
        units = [unit_of(p) for p in planes]
        h, w = (n * STRIDE for n in layout.latent_size)
        samples = torch.zeros(1, PLANES, h, w)
        for i, (plane, unit) in enumerate(zip(planes, units, strict=True)):
            if unit.kind == FIELD:
                samples[0, i] = torch.from_numpy(padded(normalised(plane, unit)[None], h, w, layout.ring)[0])
        if not present(units):
            return units, None
        return units, self.core.analyse(samples, ring=layout.ring, side=layout.side)

    def _payload(self, units: list[Unit], latents: Tensor | None, layout: Layout, tile: Span, level: int) -> bytes:
        stream = b"" if latents is None else self.core.pack(self._quantised(units, latents, tile, level))
        return pack_units([_cut(u, layout.part(tile)) for u in units]) + stream

    def _quantised(self, units: list[Unit], latents: Tensor, tile: Span, level: int) -> Quantised:
        return self.core.quantise(latents[:, :, tile.y0 : tile.y1, tile.x0 : tile.x1], level, present(units))

    # ---- decode

    @torch.no_grad()
    def decode(self, encoded: Encoded) -> Signal:
        """Missing chunks leave NaN."""
        layout = self._layout(encoded)
        out = np.full((layout.planes, layout.h, layout.w), np.nan, encoded.dtype)
        found: dict[int, list[tuple[Span, list[Unit], Tensor | None]]] = {}
        for g, tile, units, _, latents in self._unpacked(encoded, layout):
            found.setdefault(g, []).append((tile, units, latents))
            if len(found[g]) == layout.places // -(-layout.planes // layout.group):
                self._restore(out, layout, g, found.pop(g), encoded)
        for g, parts in found.items():
            self._restore(out, layout, g, parts, encoded)
        return Signal(data=out.reshape(encoded.shape), dims=encoded.dims)

    def _restore(self, out: NDArray[Any], layout: Layout, g: int, parts: list[tuple[Span, list[Unit], Tensor | None]], encoded: Encoded) -> None:
        there = sorted({i for _, units, _ in parts for i in present(units)})
        samples = None
        if there:
            latents = torch.zeros(1, PLANES * self.core.config.latents, *layout.latent_size)
            for tile, _, y in parts:
                if y is not None:
                    latents[:, :, tile.y0 : tile.y1, tile.x0 : tile.x1] = y
            samples = self.core.synthesise(latents, encoded.parameters["level"], there, ring=layout.ring, side=layout.side).numpy()
        for tile, units, _ in parts:
            rows, columns = layout.part(tile)
            for i, unit in enumerate(units):
                x = None if samples is None or i not in there else samples[there.index(i), rows, columns]
                target = out[g * layout.group + i, rows, columns]
                target[:] = restored(x, unit, target.shape, encoded.dtype)

    def _layout(self, encoded: Encoded) -> Layout:
        shape, given = encoded.shape, encoded.parameters
        level, wrap, tile = given.get("level", -1), given.get("wrap", 0), given.get("tile", LARGEST_TILE)
        planes = math.prod(shape[:-2]) if len(shape) >= 2 else 0
        group = given.get("group", 1)
        fits = planes > 0 and min(shape) > 0 and encoded.dtype in DTYPES and set(given) <= PARAMETERS and len(encoded.dims) == len(shape)
        named = 0 <= level <= self.core.max_level and wrap <= 1 and 1 <= group <= PLANES
        if not fits or not named or tile % ALIGN or not ALIGN <= tile <= LARGEST_TILE:
            raise FormatError(f"header does not fit {self.name}: {encoded.dtype} {shape}, {dict(given)}")
        layout = Layout(planes, shape[-2], shape[-1], group, tile, bool(wrap))
        if "tile" not in given and max(layout.latent_size) > layout.side:
            raise FormatError(f"header does not fit {self.name}: {shape} in one tile")
        _check_size(layout)
        return layout

    def _unpacked(self, encoded: Encoded, layout: Layout) -> Iterator[tuple[int, Span, list[Unit], NDArray[np.int32], Tensor | None]]:
        """(group, tile, units, symbols, latents) of each chunk."""
        for chunk, g, tile in self._placed(encoded, layout):
            rows = dict(layout.groups())[g]
            units, at = self._units(chunk, layout, tile, rows)
            if present(units):
                yield g, tile, units, *self.core.unpack(chunk.payload[at:], tile.size, encoded.parameters["level"], present(units))
            elif at != len(chunk.payload):
                raise FormatError("damaged chunk: a stream without a plane to decode")
            else:
                yield g, tile, units, np.empty(0, np.int32), None

    def _units(self, chunk: Chunk, layout: Layout, tile: Span, rows: slice) -> tuple[list[Unit], int]:
        ys, xs = layout.part(tile)
        return unpack_units(chunk.payload, rows.stop - rows.start, (ys.stop - ys.start, xs.stop - xs.start))

    def _placed(self, encoded: Encoded, layout: Layout) -> Iterator[tuple[Chunk, int, Span]]:
        across = {tile.position: tile for tile in layout.tiles()}
        groups, seen = -(-layout.planes // layout.group), set()
        for chunk in encoded.chunks:
            position = chunk.position or (0, 0, 0)
            tile = across.get(position[1:]) if len(position) == 3 else None  # type: ignore[call-overload]
            if tile is None or position[0] >= groups or position in seen:
                raise FormatError(f"chunk {chunk.position} lies outside the field, or twice in the file")
            seen.add(position)
            yield chunk, position[0], tile

    @torch.no_grad()
    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        """Of each chunk; none where all its planes are constant or missing."""
        return tuple(symbols for _, _, _, symbols, _ in self._unpacked(encoded, self._layout(encoded)))

    @torch.no_grad()
    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        """Units and masks are taken from the chunks as they are."""
        layout, chunks = self._layout(encoded), []
        for (chunk, g, tile), s in zip(self._placed(encoded, layout), symbols, strict=True):
            units, at = self._units(chunk, layout, tile, dict(layout.groups())[g])
            stream = self.core.repack(s, tile.size, encoded.parameters["level"], present(units)) if present(units) else b""
            chunks.append(dataclasses.replace(chunk, payload=chunk.payload[:at] + stream))
        return dataclasses.replace(encoded, chunks=tuple(chunks))

    def places(self, encoded: Encoded) -> int:
        return self._layout(encoded).places

    def describe(self) -> Mapping[str, Any]:
        return self.core.describe()


def present(units: list[Unit]) -> list[int]:
    """Which planes of a group the stream codes."""
    return [i for i, unit in enumerate(units) if unit.kind == FIELD]


def _looks_like_a_ring(planes: NDArray[Any]) -> bool:
    """Of the first plane that is no constant."""
    varied = (p for p in planes if unit_of(p).kind == FIELD)
    first = next(varied, None)
    return first is not None and is_ring(first)


def _cut(unit: Unit, part: tuple[slice, slice]) -> Unit:
    """The unit of a tile: that of the plane, with the mask of the tile."""
    if unit.known is None:
        return unit
    known = unit.known[part]
    return dataclasses.replace(unit, known=None if known.all() else known)


def _check_size(layout: Layout) -> None:
    h, w = (n * STRIDE for n in layout.latent_size)
    if h * w > 4 * layout.h * layout.w + LARGEST_TILE**2:
        raise LimitError(f"{layout.h} x {layout.w} points would be filled up to {h} x {w}: give such a field other axes")


class _Trial:
    """Rate and distortion of one signal at any level, for the search."""

    def __init__(self, codec: FieldVAEformer, planes: NDArray[Any], layout: Layout, groups: list[tuple[list[Unit], Tensor | None]]) -> None:
        self.codec, self.planes, self.layout, self.groups, self.samples = codec, planes, layout, groups, planes.size

    def payload_bytes(self, level: int) -> float:
        total = 0.0
        for units, latents in self.groups:
            for tile in self.layout.tiles():
                total += len(pack_units([_cut(u, self.layout.part(tile)) for u in units]))
                if latents is not None:  # a stream ends on a 32-bit word: about two more than the ideal length
                    total += self.codec.core.bits(self.codec._quantised(units, latents, tile, level)) / 8 + 8
        return total

    def psnr(self, level: int) -> float:
        core, layout, errors = self.codec.core, self.layout, []
        for (_, rows), (units, latents) in zip(layout.groups(), self.groups, strict=True):
            if latents is None:
                continue
            decoded = torch.zeros_like(latents)
            for tile in layout.tiles():
                decoded[:, :, tile.y0 : tile.y1, tile.x0 : tile.x1] = self.codec._quantised(units, latents, tile, level).known / 16
            there = present(units)
            samples = core.synthesise(decoded, level, there, ring=layout.ring, side=layout.side).numpy()
            for i, x in zip(there, samples, strict=True):
                source = self.planes[rows][i].astype(np.float64)
                back = restored(x[: layout.h, : layout.w], units[i], source.shape, "float64")
                errors.append(np.nanmean((back - source) ** 2) / (np.nanmax(source) - np.nanmin(source)) ** 2)
        return float("inf") if not errors or not np.mean(errors) else float(-10 * np.log10(np.mean(errors)))
