"""JPEG XL, which Pillow does not write, through imagecodecs (extra `peers`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentpress.errors import MissingExtraError
from latentpress.eval.peers.protocol import Image8, check_image, check_quality


@dataclass(frozen=True, kw_only=True)
class JpegXLFamily:
    """JPEG XL through imagecodecs. quality q is the distance (100 - q) / 10, so 90 is distance 1 and 0 distance 10."""

    name: str = "jxl"
    low: int = 0
    high: int = 99
    points: tuple[int, ...] = (0, 20, 40, 55, 65, 75, 80, 85, 90, 94, 97)
    effort: int = 7

    def at(self, quality: int) -> JpegXLPeer:
        check_quality(self, quality)
        return JpegXLPeer(family=self, quality=quality)


@dataclass(frozen=True, kw_only=True)
class JpegXLPeer:
    family: JpegXLFamily
    quality: int

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def distance(self) -> float:
        return (100 - self.quality) / 10

    @property
    def setting(self) -> str:
        return f"distance={self.distance:g},effort={self.family.effort}"

    @property
    def digest(self) -> str:
        return ", ".join(f"{k} {v}" for k, v in self.versions.items())

    @property
    def versions(self) -> Mapping[str, str]:
        codecs = imagecodecs()
        return {"imagecodecs": str(codecs.__version__), "libjxl": str(codecs.jpegxl_version()).removeprefix("libjxl ")}

    def encode(self, image: Image8) -> bytes:
        check_image(image)
        return bytes(imagecodecs().jpegxl_encode(image, distance=self.distance, effort=self.family.effort, lossless=False))

    def decode(self, blob: bytes) -> Image8:
        return np.asarray(imagecodecs().jpegxl_decode(blob))


def imagecodecs() -> Any:
    """The package. Raises MissingExtraError."""
    try:
        import imagecodecs as package
    except ImportError as error:
        raise MissingExtraError("imagecodecs", "peers") from error
    return package
