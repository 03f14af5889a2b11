"""Photographs: any file Pillow reads to a Signal, and back. 16-bit colour PNG through imagecodecs (extra `peers`).

Nothing is dropped silently: ICC, EXIF (orientation included), XMP, texts and resolution travel in `meta`; what cannot be kept is refused or
warned about. EXIF in `meta` begins with its byte-order mark, as in the file format; Pillow's six bytes in front of it are cut and put back.
"""

from __future__ import annotations

import dataclasses
import io
import math
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
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_X_RESOLUTION = 282
_EXIF_PREFIX = b"Exif\0\0"
_XMP_KEY = "XML:com.adobe.xmp"  # where PNG keeps XMP among its texts
# what a writer keeps of `meta`; the rest is warned about
_KEEPS = {
    ".png": {"icc", "exif", "xmp", "dpi", "text"}, ".jpg": {"icc", "exif", "xmp", "dpi"}, ".webp": {"icc", "exif", "xmp"},
    ".avif": {"icc", "exif", "xmp"}, ".tif": {"icc", "exif", "xmp", "dpi"}, ".bmp": {"dpi"}, ".ppm": set(), ".pgm": set(),
}  # fmt: skip
_ALIASES = {".jpeg": ".jpg", ".tiff": ".tif"}
# tags that say how a TIFF file lays out its samples, or that repeat XMP, ICC, IPTC and resolution: no business of other files
_TIFF_LAYOUT = frozenset([254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 292, 293, 296, 297, 317, 320, 322, 323, 324,
                          325, 330, 332, 338, 339, 347, 700, 34675])  # fmt: skip


def read_image(source: Path | bytes, *, name: str | None = None) -> Signal:
    """data uint8 or uint16 [y, x, band] with 1 to 4 bands. Raises InputError that names the file and the remedy."""
    name = name or (str(source) if isinstance(source, Path) else "image")
    try:
        blob = source.read_bytes() if isinstance(source, Path) else bytes(source)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from error
    signal = _open(blob, name)
    return dataclasses.replace(signal, data=_deep_pixels(blob, name)) if _deep_colour_png(blob) else signal


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


def _open(blob: bytes, name: str) -> Signal:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(blob)) as image:
            _refuse_deep_colour(image, name)
            image.load()
            signal = image_signal(image, name)
            _warn_of_frames(image, name)
            return signal
    except Image.DecompressionBombError as error:
        raise LimitError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: no image file; give a PNG, JPEG, WebP, AVIF or TIFF file") from error
    except InputError:
        raise
    except Exception as error:  # on damaged bytes Pillow's readers raise whatever they stumble over: struct.error, TypeError, ...
        raise _damaged(name, error) from error


def image_signal(image: Image, name: str) -> Signal:
    """A loaded Pillow image as a Signal. Raises InputError for modes that have no place here."""
    return Signal(data=_pixels(image, name), dims=DIMS, meta=_metadata(image))


def _pixels(image: Image, name: str) -> NDArray[Any]:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _gray16(image, name)
    mode = image.mode if image.mode in _DIRECT else _VIA.get(image.mode)
    if mode is None:
        raise InputError(f"{name}: mode {image.mode} is not supported; convert it to 8- or 16-bit gray or RGB first")
    if image.has_transparency_data and not mode.endswith("A"):
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    data = np.asarray(image if image.mode == mode else image.convert(mode))
    return data if data.ndim == 3 else data[:, :, None]


def _gray16(image: Image, name: str) -> NDArray[Any]:
    """[y, x, 1], or [y, x, 2] where one gray value stands for transparency."""
    wide = np.asarray(image)
    if wide.size and (wide.min() < 0 or wide.max() > 0xFFFF):
        raise InputError(f"{name}: gray values from {wide.min()} to {wide.max()}; scale them to 0 to 65535 first")
    data = wide.astype(np.uint16)[:, :, None]
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return data
    return np.concatenate([data, np.where(data == clear, 0, 0xFFFF).astype(np.uint16)], axis=2)


def _refuse_deep_colour(image: Image, name: str) -> None:
    """Colour of more than 8 bits that Pillow would cut to 8."""
    deep = False
    if image.format == "TIFF" and not image.mode.startswith(("I", "F")):
        deep = max(image.tag_v2.get(258, (8,))) > 8  # type: ignore[attr-defined]
    elif image.format == "PPM" and image.mode == "RGB":
        tiles: list[Any] = getattr(image, "tile", [])
        deep = bool(tiles) and isinstance(tiles[0].args, tuple) and tiles[0].args[-1] > 255
    if deep:
        raise InputError(f"{name}: {image.format} colour of more than 8 bits would be cut to 8; convert it to a 16-bit PNG first")


def _warn_of_frames(image: Image, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        warnings.warn(f"{name}: only the first of {frames} frames is kept", stacklevel=4)


def _metadata(image: Image) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if image.info.get("icc_profile"):
        meta["icc"] = bytes(image.info["icc_profile"])
    if exif := _exif(image):
        meta["exif"] = exif
    if xmp := image.info.get("xmp"):
        meta["xmp"] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    texts = {k: str(v) for k, v in getattr(image, "text", {}).items() if k != _XMP_KEY}
    comment = image.info.get("comment")
    if comment and "Comment" not in texts:
        texts["Comment"] = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    if texts:
        meta["text"] = texts
    dpi = tuple(float(v) for v in image.info.get("dpi", ()))
    # Pillow makes up a resolution for TIFF files without one
    stated = image.format != "TIFF" or _X_RESOLUTION in image.tag_v2  # type: ignore[attr-defined]
    if stated and len(dpi) == 2 and all(math.isfinite(v) and v > 0 for v in dpi):
        meta["dpi"] = dpi
    return meta


def _exif(image: Image) -> bytes:
    stored = image.info.get("exif")
    if stored:
        return bare_exif(stored)
    exif = image.getexif()
    if image.format == "TIFF":
        exif = _without_layout(exif)
    return bare_exif(exif) if len(exif) else b""


def _without_layout(exif: Any) -> Any:
    from PIL import ExifTags
    from PIL.Image import Exif

    kept = Exif()
    for tag, value in exif.items():
        if tag not in _TIFF_LAYOUT:
            kept[tag] = value
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        kept.pop(tag, None)
        if values := exif.get_ifd(tag):
            kept[tag] = {k: v for k, v in values.items() if k != ExifTags.IFD.Interop}  # an offset into the old file
    return kept


def bare_exif(exif: Any) -> bytes:
    """EXIF bytes, or Pillow's Exif object, from the byte-order mark on."""
    blob = bytes(exif) if isinstance(exif, bytes | bytearray | memoryview) else exif.tobytes()
    return blob.removeprefix(_EXIF_PREFIX)


def pillow_exif(exif: bytes) -> bytes:
    """As Pillow wants it in `info` and in `save`."""
    return _EXIF_PREFIX + exif.removeprefix(_EXIF_PREFIX)


def image_bytes(signal: Signal, suffix: str) -> bytes:
    """A file of the format that `suffix` (".png", ...) names. Raises InputError for unknown ones and what they cannot hold."""
    suffix = _ALIASES.get(suffix.lower(), suffix.lower())
    if suffix not in WRITABLE:
        raise InputError(f"{suffix!r}: images are written as {', '.join(sorted(WRITABLE))}")
    data = signal.data[:, :, None] if signal.data.ndim == 2 else signal.data
    _refuse_what_does_not_fit(data, suffix)
    deep_colour = data.dtype == np.uint16 and data.shape[2] > 1
    warn_of_lost_metadata(signal, suffix, set() if deep_colour else _KEEPS[suffix])
    if deep_colour:
        return bytes(_imagecodecs().png_encode(np.ascontiguousarray(data)))
    return _pillow_bytes(data, signal, suffix)


def _refuse_what_does_not_fit(data: NDArray[Any], suffix: str) -> None:
    bands = data.shape[2]
    if data.dtype not in (np.uint8, np.uint16) or not 1 <= bands <= 4:
        raise InputError(f"{bands} bands of {data.dtype} are no image: write .npy")
    if data.dtype == np.uint16 and bands > 1 and suffix != ".png":
        raise InputError(f"16-bit colour is written as .png only, not {suffix}")
    if data.dtype == np.uint16 and suffix not in (".png", ".tif", ".pgm"):
        raise InputError(f"16-bit gray is written as .png, .tif or .pgm, not {suffix}")
    if bands in (2, 4) and suffix in (".jpg", ".ppm", ".pgm", ".bmp"):
        raise InputError(f"{suffix} holds no transparency: write .png or .webp")
    if bands == 3 and suffix == ".pgm":
        raise InputError(".pgm holds no colour: write .ppm")


def warn_of_lost_metadata(signal: Signal, suffix: str, kept: set[str]) -> None:
    lost = sorted(k for k in ("icc", "exif", "xmp", "dpi", "text") if signal.meta.get(k) and k not in kept)
    if suffix == ".jpg" and signal.meta.get("text", {}).keys() == {"Comment"}:
        lost.remove("text")
    if lost:
        advice = "" if suffix == ".png" else "; .png keeps all"
        warnings.warn(f"{suffix} files are written without {', '.join(lost)}{advice}", stacklevel=4)


def _pillow_bytes(data: NDArray[Any], signal: Signal, suffix: str) -> bytes:
    from PIL import Image

    image = Image.fromarray(data[:, :, 0] if data.shape[2] == 1 else np.ascontiguousarray(data))
    buffer = io.BytesIO()
    try:
        image.save(buffer, Image.registered_extensions()[suffix], **_options(signal.meta, suffix))
    except Exception as error:  # sizes and metadata that the format cannot hold; Pillow's writers raise ValueError, SyntaxError, ...
        raise InputError(f"{suffix} cannot hold this image or its metadata ({_one_line(error)}): write another format, or .npy") from error
    return buffer.getvalue()


def _options(meta: Any, suffix: str) -> dict[str, Any]:
    options: dict[str, Any] = {"quality": 95} if suffix in (".jpg", ".webp", ".avif") else {}
    for key, option in (("icc", "icc_profile"), ("exif", "exif"), ("xmp", "xmp"), ("dpi", "dpi")):
        if meta.get(key) and key in _KEEPS[suffix]:
            options[option] = pillow_exif(meta[key]) if key == "exif" else meta[key]
    if suffix == ".png":
        options.pop("xmp", None)
        options["pnginfo"] = _png_texts(meta)
    elif suffix == ".jpg" and "Comment" in meta.get("text", {}):
        options["comment"] = meta["text"]["Comment"]
    elif suffix == ".tif" and (exif := _tiff_exif(options.pop("exif", b""), options.pop("xmp", b""))):
        options["exif"] = exif
    return options


def _tiff_exif(exif: bytes, xmp: bytes) -> Any:
    from PIL.Image import Exif

    tags = Exif()
    if exif:
        tags.load(exif)
    # sizes and storage tags of another file would scramble the samples of this one
    for tag in _TIFF_LAYOUT & set(tags):
        del tags[tag]
    if xmp:
        tags[700] = xmp
    return tags if len(tags) else None


def _png_texts(meta: Any) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if meta.get("xmp"):
        info.add_itxt(_XMP_KEY, meta["xmp"].decode("utf-8", "replace"))
    for key, value in meta.get("text", {}).items():
        try:
            keyword = key.encode("latin-1")
        except UnicodeEncodeError:
            keyword = b""
        if 1 <= len(keyword) <= 79 and b"\0" not in keyword:
            info.add_itxt(key, value)
        else:
            warnings.warn(f"the text {key!r} is not written: PNG wants 1 to 79 Latin-1 characters as its name", stacklevel=6)
    return info
