"""Transparency: kept losslessly beside the codec's colours, as a PNG of one band in the metadata chunk "alpha"."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Signal
from latentpress.errors import FormatError, UnsupportedError


def split_alpha(signal: Signal) -> tuple[Signal, bytes | None]:
    """[y, x, 2 or 4 bands] -> (the same without its last band, PNG of it); other signals pass."""
    if signal.data.ndim != 3 or signal.data.shape[2] not in (2, 4) or signal.dims[-1] != "band":
        return signal, None
    if signal.data.dtype not in (np.uint8, np.uint16) or not signal.data.size:
        raise UnsupportedError(f"transparency of {signal.data.dtype}, shape {signal.data.shape}: uint8 or uint16 expected")
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(signal.data[:, :, -1])).save(buffer, "PNG", optimize=True)
    return dataclasses.replace(signal, data=signal.data[:, :, :-1]), buffer.getvalue()


def merge_alpha(signal: Signal, png: bytes) -> Signal:
    """Inverse of `split_alpha`. Raises FormatError when the PNG is damaged or of another size."""
    data = signal.data[:, :, None] if signal.data.ndim == 2 else signal.data
    alpha = _read(png, data.shape[:2], "L" if data.dtype == np.uint8 else "I;16")
    return dataclasses.replace(signal, data=np.concatenate([data, alpha[:, :, None].astype(data.dtype)], axis=2), dims=(*signal.dims[:2], "band"))


def _read(png: bytes, size: tuple[int, ...], mode: str) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.size != (size[1], size[0]) or image.mode != mode:
                raise FormatError(f"alpha plane: {image.size[0]} x {image.size[1]} {image.mode}, {size[1]} x {size[0]} {mode} expected")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError(f"alpha plane: damaged ({error})") from error
