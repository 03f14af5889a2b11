"""A domain of tones, to show that the bench knows nothing of images: .npy files, kilobits a second, a peer and a metric of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentpress.errors import UnsupportedError
from latentpress.eval.domains import Domain
from latentpress.eval.metrics import Metric

HERTZ = 8000


def read(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def rate(size: int, shape: tuple[int, ...]) -> float:
    return 8 * size / (shape[0] / HERTZ) / 1000


def largest_error(reference: np.ndarray, decoded: np.ndarray) -> float:
    return float(np.abs(reference.astype(int) - decoded).max())


def of_long_ones(reference: np.ndarray, decoded: np.ndarray) -> float:
    if len(reference) < 1000:
        raise UnsupportedError(f"length: {len(reference)} samples are too few")
    return float(len(reference))


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Drops the lower `8 - bits` bits. Fails on a signal that begins with the file's name in `fail`, kills its process for `kill`."""

    bits: int
    name: str = "drop"
    digest: str = "d0"
    versions_: tuple[tuple[str, str], ...] = (("drop", "1"),)

    @property
    def setting(self) -> str:
        return f"bits={self.bits}"

    @property
    def versions(self) -> Mapping[str, str]:
        return dict(self.versions_)

    def encode(self, signal: np.ndarray) -> bytes:
        if signal[0] == 66:
            raise RuntimeError("no use for\n66")
        if signal[0] == 99:
            os._exit(1)
        return bytes([self.bits]) + (signal >> (8 - self.bits)).astype(np.uint8).tobytes()

    def decode(self, blob: bytes) -> np.ndarray:
        return np.frombuffer(blob, np.uint8, offset=1).astype(np.uint8) << (8 - blob[0])


@dataclass(frozen=True, kw_only=True)
class DropFamily:
    name: str = "drop"
    low: int = 1
    high: int = 8
    points: tuple[int, ...] = (2, 4)

    def at(self, quality: int) -> Drop:
        return Drop(bits=quality)


TONES = Domain(
    name="tones",
    suffixes=frozenset({".npy"}),
    read=read,
    rate_name="kbps",
    rate=rate,
    metrics={
        "largest": Metric(name="largest", measure=largest_error, about="lower is better", default=True),
        "length": Metric(name="length", measure=of_long_ones, about="samples"),
    },
    peers={"drop": DropFamily()},
)
