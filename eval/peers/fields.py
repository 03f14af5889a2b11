"""Other people's coders of gridded fields behind one interface: array and bound -> bytes -> array.

    blob = BOUNDED["sz3"].encode(data, 0.05)      data float32 or float64 [..., y, x], NaN where points are missing
    counted(blob), BOUNDED["sz3"].decode(blob)    |decoded - data| <= 0.05 as far as the coder keeps its word

Missing points are filled with the mean of the others; where they are goes into a bit mask, deflated and counted (lossless peers take NaN as it
is). Axes before the last two are coded together or plane by plane, whichever is smaller; `about` says which.
"""

from __future__ import annotations

import importlib.util
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError, UnsupportedError
from latentpress.eval.peers.fields_bytes import BitRoundCore, BloscCore
from latentpress.eval.peers.fields_frame import counted, frame, unframe
from latentpress.eval.peers.fields_hdf5 import SPERR, SPERR_PSNR, SZ3, ZFP
from latentpress.eval.peers.fields_integer import Jpeg2000Core, PcodecCore


class Core(Protocol):
    """A coder of dense arrays. `pack` gives what counts and JSON facts that do not; it raises UnsupportedError for what it cannot keep."""

    @property
    def name(self) -> str: ...
    @property
    def setting(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    def pack(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]]: ...
    def unpack(self, payload: bytes, facts: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...


@dataclass(frozen=True, kw_only=True)
class FieldPeer:
    """A core for whole variables with missing points. lossless: takes a bound of 0 and no other; whole: may see more than one plane at once."""

    core: Core
    lossless: bool = False
    whole: bool = True

    @property
    def name(self) -> str:
        return self.core.name

    @property
    def setting(self) -> str:
        return self.core.setting

    @property
    def versions(self) -> Mapping[str, str]:
        return self.core.versions

    @property
    def digest(self) -> str:
        return ", ".join(f"{k} {v}" for k, v in self.versions.items())

    def encode(self, data: NDArray[Any], bound: float) -> bytes:
        """Raises InputError for data that is no field, UnsupportedError where the coder cannot keep the bound."""
        check_field(data, bound)
        dense, mask = (data, b"") if self.lossless else filled(data)
        planes = dense.reshape(-1, *dense.shape[-2:])
        ways = [planes] if len(planes) == 1 or not self.whole else [planes, planes[None]]
        coded, reasons = [], []
        for way in ways:
            try:
                coded.append([self.core.pack(part, bound) for part in way])
            except UnsupportedError as error:
                reasons.append(error)
        if not coded:
            raise reasons[0]
        best = min(coded, key=lambda parts: sum(len(p) for p, _ in parts))
        facts = {"shape": data.shape, "dtype": str(data.dtype), "masked": bool(mask), "parts": [f for _, f in best]}
        return frame(facts, [*([mask] if mask else []), *(p for p, _ in best)])

    def decode(self, blob: bytes) -> NDArray[Any]:
        facts, payloads = unframe(blob)
        shape, dtype = tuple(facts["shape"]), np.dtype(facts["dtype"])
        mask = payloads.pop(0) if facts["masked"] else None
        number = math.prod(shape[:-2])
        part = shape[-2:] if len(payloads) == number else (number, *shape[-2:])
        parts = [self.core.unpack(p, f, part, dtype) for p, f in zip(payloads, facts["parts"], strict=True)]
        data = np.concatenate([p.ravel() for p in parts]).reshape(shape)
        return data if mask is None else np.where(unpacked(mask, shape), data.dtype.type(np.nan), data)

    def about(self, blob: bytes) -> str:
        """ "whole" where several planes were coded as one array, "planes" where one by one, "" for a single plane."""
        facts, payloads = unframe(blob)
        number = math.prod(facts["shape"][:-2])
        return "" if number == 1 else "planes" if len(payloads) - facts["masked"] == number else "whole"


def check_field(data: NDArray[Any], bound: float) -> None:
    """Raises InputError unless `data` is float32 or float64 with two axes or more, without infinities, and the bound 0 or more."""
    if data.dtype not in (np.float32, np.float64) or data.ndim < 2 or data.size == 0:
        raise InputError(f"{data.dtype}{data.shape}: float32 or float64 [..., y, x] expected")
    if not (math.isfinite(bound) and bound >= 0):
        raise InputError(f"bound={bound!r}: a finite number of 0 or more expected")
    if np.isinf(data).any():
        raise InputError("infinite values: the peers take finite ones and NaN")


def filled(data: NDArray[Any]) -> tuple[NDArray[Any], bytes]:
    """Dense data, and the deflated bits of its missing points, b"" for none."""
    missing = np.isnan(data)
    if not missing.any():
        return data, b""
    mean = data[~missing].mean(dtype=np.float64) if not missing.all() else 0.0
    return np.where(missing, data.dtype.type(mean), data), zlib.compress(np.packbits(missing).tobytes(), 9)


def unpacked(mask: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    bits = np.frombuffer(zlib.decompress(mask), np.uint8)
    return np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape)


BOUNDED: dict[str, FieldPeer] = {
    p.name: p
    for p in (
        FieldPeer(core=SZ3),
        FieldPeer(core=ZFP),
        FieldPeer(core=SPERR),
        FieldPeer(core=Jpeg2000Core(), whole=False),
        FieldPeer(core=BitRoundCore()),
        FieldPeer(core=PcodecCore()),
    )
}
LOSSLESS: dict[str, FieldPeer] = {
    p.name: p
    for p in (
        FieldPeer(core=PcodecCore(), lossless=True),
        FieldPeer(core=BloscCore(name="blosc-shuffle", bits=False), lossless=True),
        FieldPeer(core=BloscCore(name="blosc-bitshuffle", bits=True), lossless=True),
    )
}
PSNR = FieldPeer(core=SPERR_PSNR)  # its bound is a PSNR in dB: for the search at a mean squared error
EBCC = ("ebcc", "numcodecs_wasm_ebcc")  # modules that would bring it


def not_available() -> dict[str, str]:
    """Peers that were looked for and are not installed, with the reason."""
    found = any(importlib.util.find_spec(m) for m in EBCC)
    return {"ebcc": "installed, but not measured here" if found else f"neither {' nor '.join(EBCC)} is installed"}


__all__ = ["BOUNDED", "LOSSLESS", "PSNR", "Core", "FieldPeer", "counted", "not_available"]
