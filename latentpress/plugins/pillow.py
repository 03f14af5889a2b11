"""Pillow reads and writes .lpz once this module is imported.

    >>> import latentpress.plugins.pillow                                    # doctest: +SKIP
    >>> Image.open("photo.png").save("photo.lpz", quality=60)                # doctest: +SKIP
    >>> Image.open("photo.lpz").size                                         # doctest: +SKIP
    (768, 512)

Opening reads the header and the metadata; nothing is decoded before `load()`. `save` takes quality, bpp, psnr or max_bytes, and effort,
codec, icc_profile, exif, xmp, dpi. Metadata of the image is kept; give None to leave a kind out. Pillow's own limit of pixels
(`Image.MAX_IMAGE_PIXELS`) and `ImageFile.LOAD_TRUNCATED_IMAGES` hold here too.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from latentpress import api, container
from latentpress.codecs.base import Signal
from latentpress.container import HEADER_MAX, MAGIC, Header, Limits
from latentpress.errors import InputError, LatentpressError
from latentpress.formats.image import bare_exif, image_signal, pillow_exif

FORMAT, SUFFIX, MIME = "LPZ", ".lpz", "image/x-lpz"
_MODES = {("uint8", 1): "L", ("uint8", 2): "LA", ("uint8", 3): "RGB", ("uint8", 4): "RGBA", ("uint16", 1): "I;16",
          ("uint16", 2): "LA", ("uint16", 3): "RGB", ("uint16", 4): "RGBA"}  # fmt: skip
_SETTINGS = ("quality", "bpp", "psnr", "max_bytes", "effort", "codec")
_OPTIONS = {"icc_profile": "icc", "exif": "exif", "xmp": "xmp", "dpi": "dpi"}
_PILLOW_LIMITS = Limits(pixels=2**62, samples=2**62)  # Image.open has compared the size with Image.MAX_IMAGE_PIXELS


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except LatentpressError as error:
        raise OSError(str(error)) from error


class LpzImageFile(ImageFile.ImageFile):
    """16-bit gray is mode I;16. Pillow has no mode for 16-bit colour: it is reduced to 8 bits, with a warning."""

    format = FORMAT
    format_description = "latentpress"
    _undecoded = False
    text: dict[str, str]

    def _open(self) -> None:
        assert self.fp is not None
        prefix = self.fp.read(HEADER_MAX)
        if not _accept(prefix):
            raise SyntaxError("not an .lpz file")
        with _as_os_error():
            header = container.read_header(prefix, limits=_PILLOW_LIMITS)
            chunks = container.read_metadata(self.fp, limits=_PILLOW_LIMITS)  # type: ignore[arg-type]
            meta = api.metadata_of(chunks)
        self._mode = _mode(header, "alpha" in chunks)
        self._size = header.shape[1], header.shape[0]
        self.text = meta.get("text", {})
        self.info |= {option: meta[key] for option, key in _OPTIONS.items() if key in meta}
        if "exif" in self.info:
            self.info["exif"] = pillow_exif(self.info["exif"])
        self._undecoded = True

    def load(self) -> Any:
        if self._undecoded and self.fp is not None:
            samples = _samples(self._decoded(), self.mode)
            if self._exclusive_fp:
                self.fp.close()
            self.fp, self._exclusive_fp, self._undecoded = io.BytesIO(samples.tobytes()), True, False
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()

    def _decoded(self) -> Signal:
        with _as_os_error():
            signal = api.decode(self._bytes(), partial=ImageFile.LOAD_TRUNCATED_IMAGES, limits=_PILLOW_LIMITS)
        for line in signal.meta.get("damage", ()):
            warnings.warn(line, stacklevel=4)
        if signal.data.dtype == np.uint16 and self.mode != "I;16":
            warnings.warn("16-bit colour is reduced to 8 bits for Pillow; latentpress.decode keeps it all", stacklevel=4)
        return signal

    def _bytes(self) -> bytes:
        assert self.fp is not None
        self.fp.seek(0)
        return self.fp.read()

    def verify(self) -> None:
        """Checks every checksum; decodes nothing. As with other formats, the image must be opened again afterwards."""
        if self._undecoded and self.fp is not None:
            with _as_os_error():
                container.read(self._bytes(), limits=_PILLOW_LIMITS)
        super().verify()


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _mode(header: Header, alpha: bool) -> str:
    bands = (header.shape[2] if len(header.shape) == 3 else 1) + alpha
    mode = _MODES.get((header.dtype, bands)) if header.dims[:2] == ("y", "x") and header.dims[2:] in ((), ("band",)) else None
    if mode is None:
        raise OSError(f"{' x '.join(map(str, header.shape))} {header.dtype} over {', '.join(header.dims)}: no image; use latentpress.decode")
    return mode


def _samples(signal: Signal, mode: str) -> NDArray[Any]:
    if signal.data.dtype == np.uint8:
        return signal.data
    if mode == "I;16":
        return signal.data.astype("<u2")
    return ((signal.data.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    given: dict[str, Any] = image.encoderinfo  # type: ignore[attr-defined]
    try:
        signal = image_signal(image, "image")
    except InputError as error:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}: convert it first") from error
    meta = dict(signal.meta) | {key: given[option] for option, key in _OPTIONS.items() if option in given}
    if meta.get("exif"):
        meta["exif"] = bare_exif(meta["exif"])
    if isinstance(meta.get("xmp"), str):
        meta["xmp"] = meta["xmp"].encode()
    settings = {k: given[k] for k in _SETTINGS if given.get(k) is not None}
    try:
        blob = api.encode(Signal(data=signal.data, dims=signal.dims, meta={k: v for k, v in meta.items() if v}), **settings)
    except InputError as error:
        raise ValueError(str(error)) from error
    except LatentpressError as error:
        raise OSError(str(error)) from error
    fp.write(blob)


Image.register_open(FORMAT, LpzImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, MIME)
