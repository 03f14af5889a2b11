"""Other people's lossless coders for arrays of small gray images: one file an image, or one for the raw array.

    PEERS["jpeg-xl-7"].encode(images) -> list of files        images uint8 [sample, y, x]
    PEERS["jpeg-xl-7"].decode(files, shape) -> images
"""

from __future__ import annotations

import bz2
import io
import lzma
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import MissingExtraError

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class ArrayPeer:
    """pack, unpack: of one image [y, x], or of the whole array's bytes where `whole`. threads: how many images at once."""

    name: str
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]
    whole: bool = False

    def encode(self, images: Images, threads: int = 1) -> list[bytes]:
        if self.whole:
            return [self.pack(images.tobytes())]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.pack, images))

    def decode(self, files: list[bytes], shape: tuple[int, ...], threads: int = 1) -> Images:
        if self.whole:
            return np.frombuffer(self.unpack(files[0]), np.uint8).reshape(shape)
        with ThreadPoolExecutor(threads) as pool:
            return np.stack(list(pool.map(self.unpack, files))).reshape(shape)


def _codecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtraError("imagecodecs", "peers") from error
    return imagecodecs


def _pillow(kind: str, **options: Any) -> tuple[Callable[[Images], bytes], Callable[[bytes], Images]]:
    def pack(image: Images) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        return buffer.getvalue()

    def unpack(blob: bytes) -> Images:
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(blob), formats=[kind]).convert("L"))

    return pack, unpack


def _jpeg_xl(effort: int) -> tuple[Callable[[Images], bytes], Callable[[bytes], Images]]:
    return (lambda image: bytes(_codecs().jpegxl_encode(image, lossless=True, effort=effort))), lambda blob: np.asarray(_codecs().jpegxl_decode(blob))


def _jpeg_2000() -> tuple[Callable[[Images], bytes], Callable[[bytes], Images]]:
    def pack(image: Images) -> bytes:
        return bytes(_codecs().jpeg2k_encode(image, reversible=True, codecformat="j2k", level=0))

    return pack, lambda blob: np.asarray(_codecs().jpeg2k_decode(blob))


PEERS: dict[str, ArrayPeer] = {
    p.name: p
    for p in (
        ArrayPeer("png", *_pillow("PNG", optimize=True)),
        ArrayPeer("webp", *_pillow("WEBP", lossless=True, quality=100, method=6)),
        ArrayPeer("jpeg-xl-7", *_jpeg_xl(7)),
        ArrayPeer("jpeg-xl-9", *_jpeg_xl(9)),
        ArrayPeer("jpeg-2000", *_jpeg_2000()),
        ArrayPeer("xz", lambda b: lzma.compress(b, preset=9 | lzma.PRESET_EXTREME), lzma.decompress, whole=True),
        ArrayPeer("bz2", lambda b: bz2.compress(b, 9), bz2.decompress, whole=True),
        ArrayPeer("zstd", lambda b: bytes(_codecs().zstd_encode(b, level=19)), lambda b: bytes(_codecs().zstd_decode(b)), whole=True),
    )
}


def versions() -> dict[str, str]:
    import PIL

    return {"pillow": PIL.__version__, "imagecodecs": str(_codecs().__version__)}
