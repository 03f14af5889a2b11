"""Peers that code the bytes of floats, through numcodecs: bit rounding with zstd, and lossless Blosc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import MissingExtraError, UnsupportedError

Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BitRoundCore:
    """The fewest mantissa bits whose rounding keeps the bound, then byte shuffle and zstd level 9."""

    name: str = "bitround-zstd"
    setting: str = "fewest bits that keep the bound, byte shuffle, zstd 9"

    @property
    def versions(self) -> Mapping[str, str]:
        return {"numcodecs": version("numcodecs")}

    def pack(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]]:
        low, high = 1, np.finfo(data.dtype).nmant
        while low < high:  # more bits, less error
            middle = (low + high) // 2
            kept = np.abs(self._rounded(data, middle).astype(np.float64) - data).max() <= bound
            low, high = (low, middle) if kept else (middle + 1, high)
        package = _numcodecs()
        shuffled = package.Shuffle(data.dtype.itemsize).encode(np.ascontiguousarray(self._rounded(data, low)))
        return bytes(package.Zstd(level=9).encode(shuffled)), {}

    def unpack(self, payload: bytes, facts: Facts, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        package = _numcodecs()
        return np.frombuffer(package.Shuffle(dtype.itemsize).decode(package.Zstd().decode(payload)), dtype).reshape(shape)

    def _rounded(self, data: NDArray[Any], bits: int) -> NDArray[Any]:
        bitround = _numcodecs().BitRound(keepbits=bits)
        return np.asarray(bitround.decode(bitround.encode(data.copy()))).view(data.dtype).reshape(data.shape)


@dataclass(frozen=True, kw_only=True)
class BloscCore:
    """Lossless: zstd level 9 within Blosc, after a shuffle of bytes or bits."""

    name: str
    bits: bool

    @property
    def setting(self) -> str:
        return f"zstd 9, {'bit' if self.bits else 'byte'} shuffle"

    @property
    def versions(self) -> Mapping[str, str]:
        return {"numcodecs": version("numcodecs"), "blosc": str(_numcodecs().blosc.VERSION_STRING)}

    def pack(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]]:
        if bound != 0:
            raise UnsupportedError(f"{self.name} is lossless")
        return bytes(self._codec().encode(np.ascontiguousarray(data))), {}

    def unpack(self, payload: bytes, facts: Facts, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        return np.frombuffer(self._codec().decode(payload), dtype).reshape(shape)

    def _codec(self) -> Any:
        blosc = _numcodecs().Blosc
        return blosc(cname="zstd", clevel=9, shuffle=blosc.BITSHUFFLE if self.bits else blosc.SHUFFLE)


def _numcodecs() -> Any:
    try:
        import numcodecs
        import numcodecs.blosc
    except ImportError as error:
        raise MissingExtraError("numcodecs", "peers") from error
    return numcodecs
