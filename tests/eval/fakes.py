"""Codecs for tests: tiny, exact to predict."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Keeps the `bits` upper bits of each sample: header of 4 bytes, then one byte a kept bit and sample of the first row and column."""

    bits: int
    name: str = "shift"
    digest: str = "d0"
    overhead: int = 4

    @property
    def setting(self) -> str:
        return f"bits={self.bits}"

    @property
    def versions(self) -> Mapping[str, str]:
        return {"shift": "1"}

    def encode(self, image: np.ndarray) -> bytes:
        kept = image >> (8 - self.bits)
        shape = np.array(image.shape[:2], "<u2").tobytes()
        return shape + kept.tobytes() + b"\0" * (self.overhead - 4 + 10 * self.bits)

    def decode(self, blob: bytes) -> np.ndarray:
        h, w = np.frombuffer(blob[:4], "<u2")
        kept = np.frombuffer(blob, np.uint8, int(h) * int(w) * 3, 4).reshape(h, w, 3)
        return (kept << (8 - self.bits)) + np.uint8((1 << (8 - self.bits)) // 2)


@dataclass(frozen=True, kw_only=True)
class ShiftFamily:
    low: int = 1
    high: int = 8
    points: tuple[int, ...] = (2, 4, 6)
    name: str = "shift"

    def at(self, quality: int) -> Shift:
        return Shift(bits=quality)


def photograph(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: gradients, an edge and a little noise."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([2 * x + y, x + 2 * y, 200 - x], axis=2) + 60 * ((x + y) > width)[..., None]
    noise = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    return np.clip(base + noise, 0, 255).astype(np.uint8)
