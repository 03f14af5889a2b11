"""Other people's image codecs, behind one protocol: array -> bytes -> array.

    FAMILIES["webp"].at(50)      one operating point, a Peer
    at_most_bytes(FAMILIES["webp"], image, 20_000)      the best file that fits

Bytes are whole files, as a user would store them; what a peer decodes is what Pillow hands to its user.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError, MissingExtraError

Image8 = NDArray[np.uint8]  # [height, width, 3]


class Peer(Protocol):
    """One codec at one operating point.

    name      the curve it belongs to ("webp", "walloc-rgb, effort 2")
    setting   what distinguishes the points of a curve ("quality=50")
    digest    what the output depends on besides the setting: library versions, weights
    versions  package -> version, for the record
    """

    @property
    def name(self) -> str: ...
    @property
    def setting(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    def encode(self, image: Image8) -> bytes: ...
    def decode(self, blob: bytes) -> Image8: ...


class Family(Protocol):
    """A codec over its whole quality scale.

    low, high   ends of the integer quality scale; a higher number means a larger file
    points      qualities that the bench measures
    """

    @property
    def name(self) -> str: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def points(self) -> tuple[int, ...]: ...
    def at(self, quality: int) -> Peer: ...


def check_image(image: NDArray[Any]) -> None:
    """Raises InputError unless `image` is uint8 [height, width, 3] with samples in it."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"{image.dtype}{image.shape}: uint8 [height, width, 3] expected")


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
        if not self.low <= quality <= self.high:
            raise InputError(f"{self.name}: quality={quality!r}: expected {self.low} to {self.high}")
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


@dataclass(frozen=True, kw_only=True)
class JpegXLFamily:
    """JPEG XL through imagecodecs. quality q is the distance (100 - q) / 10, so 90 is distance 1 and 0 distance 10."""

    name: str = "jpeg-xl"
    low: int = 0
    high: int = 99
    points: tuple[int, ...] = (0, 20, 40, 55, 65, 75, 80, 85, 90, 94, 97)
    effort: int = 7

    def at(self, quality: int) -> JpegXLPeer:
        if not self.low <= quality <= self.high:
            raise InputError(f"{self.name}: quality={quality!r}: expected {self.low} to {self.high}")
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
        codecs = _imagecodecs()
        return {"imagecodecs": str(codecs.__version__), "libjxl": str(codecs.jpegxl_version()).removeprefix("libjxl ")}

    def encode(self, image: Image8) -> bytes:
        check_image(image)
        return bytes(_imagecodecs().jpegxl_encode(image, distance=self.distance, effort=self.family.effort, lossless=False))

    def decode(self, blob: bytes) -> Image8:
        return np.asarray(_imagecodecs().jpegxl_decode(blob))


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtraError("imagecodecs", "peers") from error
    return imagecodecs


_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95)
FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        PillowFamily(name="jpeg", format="JPEG", library="libjpeg_turbo", options=_jpeg, points=_QUALITIES, low=1),
        PillowFamily(name="jpeg-444", format="JPEG", library="libjpeg_turbo", options=_jpeg_444, points=_QUALITIES, low=1),
        PillowFamily(name="webp", format="WEBP", library="webp", options=_webp, points=(0, *_QUALITIES)),
        PillowFamily(name="avif", format="AVIF", library="avif", options=_avif, points=(10, 20, 30, 40, 50, 60, 65, 70, 75, 80, 85, 90)),
        PillowFamily(
            name="jpeg2000", format="JPEG2000", library="jpg_2000", options=_jpeg2000, points=tuple(range(24, 43, 2)), low=20, high=60
        ),
        JpegXLFamily(),
    )
}
DEFAULT = ("jpeg", "jpeg-444", "webp", "avif")


def family(name: str) -> Family:
    """The family of that name, or InputError that lists what there is."""
    if name not in FAMILIES:
        raise InputError(f"no peer {name!r}: one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


@dataclass(frozen=True, kw_only=True)
class Fit:
    peer: Peer
    quality: int
    blob: bytes


def at_most_bytes(peers: Family, image: Image8, budget: int) -> Fit:
    """The highest quality whose file has at most `budget` bytes, by bisection: about seven encodings.

    File size is taken to grow with quality; where a codec breaks that by a few bytes a neighbouring quality may be found,
    but the file always fits. Raises InputError where even the lowest quality does not.
    """
    blob = peers.at(peers.low).encode(image)
    if len(blob) > budget:
        raise InputError(f"{peers.name}: {len(blob)} bytes at its lowest quality, {budget} allowed")
    best = Fit(peer=peers.at(peers.low), quality=peers.low, blob=blob)
    low, high = peers.low + 1, peers.high
    while low <= high:
        middle = (low + high) // 2
        blob = peers.at(middle).encode(image)
        if len(blob) <= budget:
            best, low = Fit(peer=peers.at(middle), quality=middle, blob=blob), middle + 1
        else:
            high = middle - 1
    return best
