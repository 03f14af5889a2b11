"""Peers that code integers: pcodec and JPEG 2000 of values rounded to a lattice whose step keeps the bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import MissingExtraError, UnsupportedError
from latentpress.eval.peers.jpegxl import imagecodecs

Facts = Mapping[str, Any]
LEVEL = 8  # of pcodec: its default, and what BASELINES.md was made with


def rounded(data: NDArray[Any], bound: float) -> tuple[NDArray[np.int64], float, float]:
    """Integers k with |low + k step - data| <= bound in the dtype of `data`, the step as wide as rounding allows; k, low, step.

    Raises UnsupportedError where floats are too coarse for the bound.
    """
    x, low = data.astype(np.float64), float(data.min())
    for margin in (0.0, *(2.0**-k for k in range(12, 1, -1))):
        step = 2 * bound * (1 - margin)
        codes = np.rint((x - low) / step)
        if np.abs(values(codes, low, step, data.dtype).astype(np.float64) - x).max() <= bound:
            return codes.astype(np.int64), low, step
    raise UnsupportedError(f"a bound of {bound:g} is below the spacing of {data.dtype} here")


def values(codes: NDArray[Any], low: float, step: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    return (low + codes.astype(np.float64) * step).astype(dtype)


@dataclass(frozen=True, kw_only=True)
class PcodecCore:
    """pcodec; with a bound of 0 of the samples themselves, else of int32 lattice indices."""

    name: str = "pcodec"
    setting: str = f"level {LEVEL}; bounded: int32 of values rounded to 2 bounds"

    @property
    def versions(self) -> Mapping[str, str]:
        return {"pcodec": version("pcodec")}

    def pack(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]]:
        if bound == 0:
            return self._compress(data), {}
        codes, low, step = rounded(data, bound)
        if codes.max() >= 2**31:
            raise UnsupportedError(f"a bound of {bound:g} asks for more than 31 bits")
        return self._compress(codes.astype(np.int32)), {"low": low, "step": step}

    def unpack(self, payload: bytes, facts: Facts, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        codes = np.asarray(_pcodec().standalone.simple_decompress(payload)).reshape(shape)
        return values(codes, facts["low"], facts["step"], dtype) if facts else codes

    def _compress(self, array: NDArray[Any]) -> bytes:
        package = _pcodec()
        return bytes(package.standalone.simple_compress(np.ascontiguousarray(array).ravel(), package.ChunkConfig(compression_level=LEVEL)))


@dataclass(frozen=True, kw_only=True)
class Jpeg2000Core:
    """JPEG 2000 of single planes scaled to 16 bits, the smaller of two ways to keep the bound.

    reversible (5/3)    of values rounded to 2 bounds, where these are fewer than 2^16
    irreversible (9/7)  of values scaled to 0 .. 65535, at the lowest PSNR (steps of 1 dB) whose decoded values keep the bound
    """

    name: str = "jpeg2000"
    setting: str = "16 bit; 5/3 of values rounded to 2 bounds or 9/7 at a searched PSNR"
    planes_only: bool = True

    @property
    def versions(self) -> Mapping[str, str]:
        return {"imagecodecs": version("imagecodecs")}

    def pack(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]]:
        ways = [w for w in (self._reversible(data, bound), self._searched(data, bound)) if w]
        if not ways:
            raise UnsupportedError(f"a bound of {bound:g} asks for more than 16 bits")
        return min(ways, key=lambda w: len(w[0]))

    def unpack(self, payload: bytes, facts: Facts, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        return values(np.asarray(imagecodecs().jpeg2k_decode(payload)).reshape(shape), facts["low"], facts["step"], dtype)

    def at_level(self, data: NDArray[Any], decibel: float) -> tuple[bytes, dict[str, Any]]:
        """The 9/7 transform at a PSNR over 16 bits."""
        low, step = float(data.min()), (float(np.ptp(data.astype(np.float64))) or 1.0) / 65535
        codes = np.rint((data.astype(np.float64) - low) / step).astype(np.uint16)
        return bytes(imagecodecs().jpeg2k_encode(codes, level=decibel, codecformat="j2k", reversible=False)), {"low": low, "step": step}

    def _reversible(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]] | None:
        codes, low, step = rounded(data, bound)
        if codes.max() > 65535:
            return None
        return bytes(imagecodecs().jpeg2k_encode(codes.astype(np.uint16), level=0, codecformat="j2k", reversible=True)), {"low": low, "step": step}

    def _searched(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]] | None:
        span = float(np.ptp(data.astype(np.float64)))
        if span / 65535 / 2 >= bound:
            return None
        low, found = int(20 * math.log10(span / bound)), None
        high = low + 32  # errors of a transform codec have tails: the worst is up to some 15 dB above their root mean square
        while low < high:
            middle = (low + high) // 2
            payload, facts = self.at_level(data, middle)
            worst = np.abs(self.unpack(payload, facts, data.shape, data.dtype).astype(np.float64) - data).max()
            if worst <= bound:
                found, high = (payload, facts), middle
            else:
                low = middle + 1
        return found


def _pcodec() -> Any:
    try:
        import pcodec
        import pcodec.standalone
    except ImportError as error:
        raise MissingExtraError("pcodec", "peers") from error
    return pcodec
