"""Photographs: any file Pillow reads to a Signal, and back. 16-bit colour PNG through imagecodecs (extra `peers`).

Nothing is dropped silently: ICC, EXIF (orientation included), XMP, PNG texts and resolution travel in `meta`; what cannot be kept is refused
or warned about.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Signal
from latentpress.errors import InputError, LimitError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

READABLE = frozenset([".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pnm", ".gif", ".jp2"])
WRITABLE = frozenset([".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm"])
DIMS = ("y", "x", "band")
_DIRECT = {"L", "LA", "RGB", "RGBA"}
_VIA = {"1": "L", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "La": "LA", "RGBa": "RGBA"}
# TIFF tags that say how samples are stored, or that travel apart (resolution, XMP, ICC): no part of what EXIF says about a picture.
# Pillow writes them into TIFF files as they come, so those of another file would scramble the samples.
_STORAGE_TAGS = frozenset([*range(254, 260), *range(262, 267), 273, *range(277, 285), *range(288, 294), 296, 297, 301, 317, 320, *range(322, 326),
                           330, 332, *range(338, 342), 347, *range(512, 522), *range(529, 533), 700, 34675])  # fmt: skip
_X_RESOLUTION = 282
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def read_image(source: Path | bytes, *, name: str | None = None) -> Signal:
    """data uint8 or uint16 [y, x, band] with 1 to 4 bands. Raises InputError that names the file and the remedy."""
    name = name or (str(source) if isinstance(source, Path) else "image")
    try:
        blob = source.read_bytes() if isinstance(source, Path) else bytes(source)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error
    data, meta = _open(blob, name)
    return Signal(data=_deep_pixels(blob, name) if _deep_colour_png(blob) else data, dims=DIMS, meta=meta)


def _deep_colour_png(blob: bytes) -> bool:
    """16-bit PNG with more than one band, which Pillow would cut to 8 bits."""
    return blob[:8] == _PNG_MAGIC and len(blob) > 25 and blob[24] == 16 and blob[25] in (2, 4, 6)


def _deep_pixels(blob: bytes, name: str) -> NDArray[Any]:
    try:
        return np.asarray(_imagecodecs().png_decode(blob))
    except (RuntimeError, ValueError) as error:  # its PngError is a RuntimeError
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: damaged image ({_one_line(error)}); give a PNG, JPEG, WebP, AVIF or TIFF file")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtraError("imagecodecs", "peers") from error
    return imagecodecs


def _open(blob: bytes, name: str) -> tuple[NDArray[Any], dict[str, Any]]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(blob)) as image:
            image.load()
            return _pixels(image, name), _metadata(image, name)
    except Image.DecompressionBombError as error:
        raise LimitError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: no image file; give a PNG, JPEG, WebP, AVIF or TIFF file") from error
    except InputError:
        raise
    except Exception as error:  # on damaged bytes Pillow's readers raise whatever they stumble over: struct.error, TypeError, ...
        raise _damaged(name, error) from error


def _pixels(image: Image, name: str) -> NDArray[Any]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[:, :, None]
    if image.mode == "I" and image.format == "PPM":  # what Pillow makes of 16-bit PGM
        return np.asarray(image).clip(0, 65535).astype(np.uint16)[:, :, None]
    mode = image.mode if image.mode in _DIRECT else _VIA.get(image.mode)
    if mode is None:
        raise InputError(f"{name}: mode {image.mode} is not supported; convert it to 8- or 16-bit gray or RGB first")
    if "transparency" in image.info and not mode.endswith("A"):
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    data = np.asarray(image if image.mode == mode else image.convert(mode))
    return data if data.ndim == 3 else data[:, :, None]


def _metadata(image: Image, name: str) -> dict[str, Any]:
    if getattr(image, "n_frames", 1) > 1:
        warnings.warn(f"{name}: only the first of {image.n_frames} frames is kept", stacklevel=4)  # type: ignore[attr-defined]
    meta: dict[str, Any] = {}
    if image.info.get("icc_profile"):
        meta["icc"] = bytes(image.info["icc_profile"])
    exif = image.info.get("exif") or (image.getexif().tobytes() if len(image.getexif()) else b"")
    if exif and image.format == "TIFF":
        exif = _without_storage_tags(exif)
    if exif:
        meta["exif"] = bytes(exif)
    xmp = image.info.get("xmp")
    if xmp:
        meta["xmp"] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    texts = {k: str(v) for k, v in getattr(image, "text", {}).items() if k != "XML:com.adobe.xmp"}
    if texts:
        meta["text"] = texts
    if "dpi" in image.info and (image.format != "TIFF" or _X_RESOLUTION in image.tag_v2):  # type: ignore[attr-defined]
        meta["dpi"] = tuple(float(v) for v in image.info["dpi"])
    return meta


def _without_storage_tags(exif: bytes) -> bytes:
    """b"" when nothing is left."""
    from PIL import Image

    tags = Image.Exif()
    tags.load(exif)
    for tag in _STORAGE_TAGS & set(tags):
        del tags[tag]
    return tags.tobytes() if len(tags) else b""


def image_bytes(signal: Signal, suffix: str) -> bytes:
    """A file of the format that `suffix` (".png", ...) names. Raises InputError for unknown ones and what they cannot hold."""
    suffix = suffix.lower()
    if suffix not in WRITABLE:
        raise InputError(f"{suffix!r}: images are written as {', '.join(sorted(WRITABLE))}")
    data = signal.data[:, :, None] if signal.data.ndim == 2 else signal.data
    if data.dtype == np.uint16 and data.shape[2] > 1:
        if suffix != ".png":
            raise InputError(f"16-bit colour is written as .png only, not {suffix}")
        if signal.meta:
            warnings.warn("16-bit colour PNG: metadata is not written", stacklevel=3)
        return bytes(_imagecodecs().png_encode(data))
    if data.dtype == np.uint16 and suffix not in (".png", ".tif", ".tiff", ".pgm"):
        raise InputError(f"16-bit gray is written as .png or .tif, not {suffix}")
    return _pillow_bytes(data, signal, suffix)


def _pillow_bytes(data: NDArray[Any], signal: Signal, suffix: str) -> bytes:
    from PIL import Image

    image = Image.fromarray(data[:, :, 0] if data.shape[2] == 1 else np.ascontiguousarray(data))
    formats = Image.registered_extensions()
    options: dict[str, Any] = {"quality": 95} if suffix in (".jpg", ".jpeg", ".webp", ".avif") else {}
    if suffix in (".jpg", ".jpeg", ".ppm", ".bmp") and data.shape[2] in (2, 4):
        raise InputError(f"{suffix} holds no transparency: write .png or .webp")
    for key, option in (("icc", "icc_profile"), ("exif", "exif"), ("xmp", "xmp"), ("dpi", "dpi")):
        if key in signal.meta:
            options[option] = signal.meta[key]
    if suffix == ".png":
        options |= _png_texts(signal)
        options.pop("xmp", None)
    buffer = io.BytesIO()
    try:
        if suffix in (".tif", ".tiff") and "exif" in options:
            options["exif"] = _without_storage_tags(options["exif"])
        image.save(buffer, formats[suffix], **options)
    except Exception as error:  # sizes and metadata that the format cannot hold; Pillow's writers raise ValueError, SyntaxError, ...
        raise InputError(f"{suffix} cannot hold this image or its metadata ({_one_line(error)}): write another format, or .npy") from error
    return buffer.getvalue()


def _png_texts(signal: Signal) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if "xmp" in signal.meta:
        info.add_itxt("XML:com.adobe.xmp", signal.meta["xmp"].decode("utf-8", "replace"))
    for key, value in signal.meta.get("text", {}).items():
        try:
            info.add_itxt(key.encode("latin-1"), value)
        except UnicodeEncodeError:
            warnings.warn(f"the text {key!r} is not written: PNG keywords are Latin-1", stacklevel=5)
    return {"pnginfo": info}
