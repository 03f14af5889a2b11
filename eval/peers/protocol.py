"""One protocol for all that the bench measures: signal -> bytes -> signal, at one operating point or over a whole quality scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError

Image8 = NDArray[np.uint8]  # [height, width, 3]


class Peer(Protocol):
    """One codec at one operating point. Signals are arrays as the domain's reader gives them; images are uint8 [height, width, 3].

    name      the curve it belongs to ("webp", "walloc-rgb, effort 2")
    setting   what distinguishes the points of a curve ("quality=50")
    digest    what the output depends on besides the setting: library versions, weights. Asking for it loads what the codec needs
    versions  package -> version, for the record

    Objects travel to worker processes by pickle.
    """

    @property
    def name(self) -> str: ...
    @property
    def setting(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    def encode(self, image: Any) -> bytes: ...
    def decode(self, blob: bytes) -> Any: ...


class Family(Protocol):
    """A codec over its whole quality scale.

    low, high   ends of the integer quality scale; a higher number means a larger file
    points      qualities that the bench measures unless told otherwise
    """

    @property
    def name(self) -> str: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def points(self) -> tuple[int, ...]: ...
    def at(self, quality: int) -> Peer: ...


def check_image(image: NDArray[Any]) -> None:
    """Raises InputError unless `image` is uint8 [height, width, 3] with samples in it."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"{image.dtype}{image.shape}: uint8 [height, width, 3] expected")


def check_quality(family: Family, quality: int) -> None:
    """Raises InputError for a quality outside of the family's scale."""
    if not family.low <= quality <= family.high:
        raise InputError(f"{family.name}: quality={quality!r}: expected {family.low} to {family.high}")
