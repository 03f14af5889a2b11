"""Formats that Pillow writes: JPEG, WebP, AVIF, JPEG 2000. Bytes are whole files; what is decoded is what Pillow hands to its user."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentpress.eval.peers.protocol import Image8, check_image, check_quality


@dataclass(frozen=True, kw_only=True)
class PillowFamily:
    """A format that Pillow writes. options: quality -> keywords of `Image.save`; library: its name in `PIL.features`."""

    name: str
    format: str
    library: str
    options: Callable[[int], dict[str, Any]]
    points: tuple[int, ...]
    low: int = 0
    high: int = 100

    def at(self, quality: int) -> PillowPeer:
        check_quality(self, quality)
        return PillowPeer(family=self, quality=quality)


@dataclass(frozen=True, kw_only=True)
class PillowPeer:
    family: PillowFamily
    quality: int

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def setting(self) -> str:
        return ",".join(f"{k}={_plain(v)}" for k, v in self.family.options(self.quality).items())

    @property
    def digest(self) -> str:
        return ", ".join(f"{k} {v}" for k, v in self.versions.items())

    @property
    def versions(self) -> Mapping[str, str]:
        import PIL
        from PIL import features

        return {"pillow": PIL.__version__, self.family.library: str(features.version(self.family.library))}

    def encode(self, image: Image8) -> bytes:
        from PIL import Image

        check_image(image)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, self.family.format, **self.family.options(self.quality))
        return buffer.getvalue()

    def decode(self, blob: bytes) -> Image8:
        from PIL import Image

        with Image.open(io.BytesIO(blob), formats=[self.family.format]) as image:
            return np.asarray(image.convert("RGB"))


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _jpeg(quality: int) -> dict[str, Any]:
    return {"quality": quality, "subsampling": "4:2:0", "optimize": True}


def _jpeg_444(quality: int) -> dict[str, Any]:
    return {"quality": quality, "subsampling": "4:4:4", "optimize": True}


def _webp(quality: int) -> dict[str, Any]:
    return {"quality": quality, "method": 6}


def _avif(quality: int) -> dict[str, Any]:
    # the thread count is part of the setting: with 1 thread the encoder writes other bytes than with 2 or more, which all agree
    return {"quality": quality, "speed": 6, "subsampling": "4:2:0", "max_threads": 2}


def _jpeg2000(decibel: int) -> dict[str, Any]:
    return {"quality_layers": [decibel], "quality_mode": "dB", "irreversible": True, "mct": 1}  # without mct it codes R, G, B apart


_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95)
PILLOW = (
    PillowFamily(name="jpeg", format="JPEG", library="libjpeg_turbo", options=_jpeg, points=_QUALITIES, low=1),
    PillowFamily(name="jpeg-444", format="JPEG", library="libjpeg_turbo", options=_jpeg_444, points=_QUALITIES, low=1),
    PillowFamily(name="webp", format="WEBP", library="webp", options=_webp, points=(0, *_QUALITIES)),
    PillowFamily(name="avif", format="AVIF", library="avif", options=_avif, points=(10, 20, 30, 40, 50, 60, 65, 70, 75, 80, 85, 90)),
    PillowFamily(name="jpeg2000", format="JPEG2000", library="jpg_2000", options=_jpeg2000, points=tuple(range(24, 43, 2)), low=20, high=60),
)
