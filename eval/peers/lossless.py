"""Lossless photographs: PNG, WebP, JPEG 2000 (Pillow) and JPEG XL (imagecodecs) at stated efforts. Each has one point, quality 100."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from latentpress.eval.peers.jpegxl import JpegXLFamily, JpegXLPeer, imagecodecs
from latentpress.eval.peers.pillow import PillowFamily
from latentpress.eval.peers.protocol import Image8, check_image, check_quality


@dataclass(frozen=True, kw_only=True)
class LosslessJpegXLPeer(JpegXLPeer):
    @property
    def setting(self) -> str:
        return f"lossless,effort={self.family.effort}"

    def encode(self, image: Image8) -> bytes:
        check_image(image)
        return bytes(imagecodecs().jpegxl_encode(image, effort=self.family.effort, lossless=True))


@dataclass(frozen=True, kw_only=True)
class LosslessJpegXLFamily(JpegXLFamily):
    name: str = "jxl-lossless"
    points: tuple[int, ...] = (100,)
    low: int = 100
    high: int = 100

    def at(self, quality: int) -> LosslessJpegXLPeer:
        check_quality(self, quality)
        return LosslessJpegXLPeer(family=self, quality=quality)


@dataclass(frozen=True)
class _Fixed:
    """The same keywords at every quality; unlike a lambda it travels to worker processes."""

    options: tuple[tuple[str, Any], ...]

    def __call__(self, quality: int) -> dict[str, Any]:
        return dict(self.options)


def _pillow(name: str, kind: str, library: str, **options: Any) -> PillowFamily:
    return PillowFamily(name=name, format=kind, library=library, options=_Fixed(tuple(options.items())), points=(100,), low=100, high=100)


LOSSLESS = (
    _pillow("png", "PNG", "zlib", optimize=True),
    _pillow("webp-lossless", "WEBP", "webp", lossless=True, quality=100, method=6),
    _pillow("jpeg2000-lossless", "JPEG2000", "jpg_2000", irreversible=False, mct=1),
    LosslessJpegXLFamily(),
    replace(LosslessJpegXLFamily(), name="jxl-lossless-9", effort=9),
)
