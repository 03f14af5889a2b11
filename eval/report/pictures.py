"""Original and decodes of every codec at matched bytes, as pictures that a page can embed.

    codec name, image, budget --Provider--> Coded (real bytes, what decoding gives) --crop, lossless WebP--> Side

The page needs nothing but sides; whatever a provider cannot do becomes a side without a picture that says why.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from latentpress.errors import InputError, LatentpressError
from latentpress.eval.images import read_rgb
from latentpress.eval.metrics import bits_per_pixel, psnr
from latentpress.eval.peers import Image8

WIDTH, HEIGHT = 768, 768  # largest part of a picture that is embedded, in samples
PAGE_BYTES = 18_000_000  # of pictures as base64; with plotly.js the page stays under 25 MB


@dataclass(frozen=True, kw_only=True)
class Coded:
    """One image through one codec. bytes: of the whole file; setting: in words, may be empty; decoded: uint8 [height, width, 3]."""

    bytes: int
    setting: str
    decoded: Image8


class Provider(Protocol):
    def __call__(self, codec: str, image: Image8, budget: int) -> Coded:
        """The best that `codec` (a curve's name) gives in at most `budget` bytes. Raises LatentpressError where it cannot."""
        ...


@dataclass(frozen=True, kw_only=True)
class Side:
    """One choice of a side of the slider. source: data URI, empty where missing says why there is none."""

    name: str
    caption: str
    source: str = ""
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """sides: the original first, then every codec; width, height: of what is shown, in samples; note: what part of the image that is."""

    item: str
    note: str
    width: int
    height: int
    sides: tuple[Side, ...]


def spread(items: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """`count` entries evenly over the list, the first among them."""
    if count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def make_pictures(
    items: Iterable[Mapping[str, Any]], codecs: Sequence[str], provider: Provider, bpp: float, report: Callable[[str], None] = lambda line: None
) -> list[Picture]:
    """One picture an item of the manifest (item, path), each codec at no more than `bpp` bits per pixel of file.

    Pictures stop where the page would become too large; the last one then says so. report: gets one line a codec and item.
    """
    pictures: list[Picture] = []
    spent = 0
    for entry in items:
        picture = _picture(entry, codecs, provider, bpp, report)
        size = sum(len(s.source) for s in picture.sides)
        if spent and spent + size > PAGE_BYTES:
            picture = _without_pictures(picture, "left out: the page would become too large; ask for fewer with --pictures")
            size = 0
        spent += size
        pictures.append(picture)
    return pictures


def _picture(entry: Mapping[str, Any], codecs: Sequence[str], provider: Provider, bpp: float, report: Callable[[str], None]) -> Picture:
    name = entry["item"]
    try:
        image = _read(Path(str(entry.get("path", ""))))
    except LatentpressError as error:
        return Picture(item=name, note=str(error), width=0, height=0, sides=())
    budget = int(bpp * image.shape[0] * image.shape[1] / 8)
    top, left, height, width = window(image.shape)
    part = (slice(top, top + height), slice(left, left + width))
    sides = [Side(name="original", caption=f"{image.nbytes:,} bytes as samples", source=data_uri(image[part]))]
    for codec in codecs:
        report(f"{name}: {codec}")
        sides.append(_side(codec, image, budget, part, provider))
    whole = (height, width) == image.shape[:2]
    note = f"{image.shape[1]}x{image.shape[0]}" + ("" if whole else f", a part of {width}x{height} shown")
    return Picture(item=name, note=f"{note}; every file at most {budget:,} bytes ({bpp:g} bpp)", width=width, height=height, sides=tuple(sides))


def _read(path: Path) -> Image8:
    try:
        return read_rgb(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read, so it is not shown ({type(error).__name__})") from error


def _side(codec: str, image: Image8, budget: int, part: tuple[slice, slice], provider: Provider) -> Side:
    try:
        coded = provider(codec, image, budget)
        quality = psnr(image, coded.decoded)
    except LatentpressError as error:
        return Side(name=codec, caption="", missing=str(error).removeprefix(f"{codec}: "))
    except Exception as error:  # somebody else's codec: whatever it raises, the page is made
        return Side(name=codec, caption="", missing=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
    rate = bits_per_pixel(coded.bytes, image.shape)
    return Side(
        name=codec, source=data_uri(coded.decoded[part]), caption=f"{coded.bytes:,} bytes, {rate:.3f} bpp, {quality:.2f} dB{_brackets(coded.setting)}"
    )


def _brackets(setting: str) -> str:
    return f" ({setting})" if setting else ""


def _without_pictures(picture: Picture, why: str) -> Picture:
    return Picture(item=picture.item, note=why, width=0, height=0, sides=())


def window(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """top, left, height, width: the middle of the image, at most HEIGHT x WIDTH."""
    height, width = min(shape[0], HEIGHT), min(shape[1], WIDTH)
    return (shape[0] - height) // 2, (shape[1] - width) // 2, height, width


def data_uri(image: Image8) -> str:
    """uint8 [height, width, 3] -> lossless WebP as a data URI."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "WEBP", lossless=True, quality=50, method=3)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
