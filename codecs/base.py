"""The contract of all codecs: Signal in, Encoded out, and back.

    Signal --encode--> Encoded(chunks of streams) --container--> .lpz
    .lpz --container--> Encoded --decode--> Signal

Nothing here knows files. A codec is one class; `registry.py` finds it by entry point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Samples with named axes.

    data  any shape; dtype as the domain allows (images: uint8 or uint16, [y, x, band] with 1 to 4 bands)
    dims  one name an axis: ("y", "x", "band"), ("time", "channel"), ...
    meta  what travels beside the samples: "icc", "exif", "xmp" as bytes, "text" as dict, ...
    """

    data: NDArray[Any]
    dims: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim != len(self.dims):
            raise ValueError(f"dims={self.dims!r} name {len(self.dims)} axes, data has {self.data.ndim}")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The unit of random access. position: index of the chunk on the codec's grid, () or all zeros for the first; payload: its streams."""

    payload: bytes
    position: tuple[int, ...] = ()
    kind: str = "data"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """All that a file needs to say about one signal.

    codec       preset or codec name, as given to `load_codec`
    digest      first 8 bytes of the SHA-256 of tables and weights; b"" for codecs without
    shape, dtype, dims   of the signal that `decode` returns
    parameters  small non-negative integers by name ("level", "tile", ...): part of the header
    chunks      data chunks in raster order; on a partial read the damaged ones are missing
    """

    codec: str
    digest: bytes
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    parameters: Mapping[str, int]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the encoder aims for; exactly one is set.

    quality    0 to 100, continuous
    bpp        bits per pixel of the payload, at most
    psnr       dB, at least
    max_bytes  size of all payload, at most
    max_error  for bounded codecs: |decoded - source| of every point, at most; 0: lossless, bit for bit. An array (what numpy broadcasts to
               the signal's shape): a bound for each point
    max_rel_error  for bounded codecs: |decoded - source| / |source| of every point, at most
    """

    quality: float | None = None
    bpp: float | None = None
    psnr: float | None = None
    max_bytes: int | None = None
    max_error: float | NDArray[np.float64] | None = None
    max_rel_error: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(vars(self))} expected, got {given!r}")
        name, value = next(iter(given.items()))
        if name == "max_error":
            if not np.isfinite(value).all() or np.min(value, initial=0) < 0:
                raise ValueError("max_error: finite numbers of 0 and more expected")
            return
        high = 100 if name == "quality" else float("inf")
        if not (0 <= value <= high) or (name != "quality" and value == 0):
            raise ValueError(f"{name}={value!r}: expected {'0 to 100' if name == 'quality' else 'a positive number'}")


class Codec(ABC):
    """What every codec offers once its weights are frozen. Trainable models are separate classes that `freeze()` into one of these.

    id         literal name of the codec class, on disk for ever
    name       preset name (equals id where there is but one)
    domain     "image", "audio", "video", "field", "array"
    dims       axis names it codes
    lossless   decode(encode(x)) == x
    bounded    keeps a pointwise bound
    exact      promises the same symbols from the same file on every machine; False where floats pick coding tables
    drift      how far decoded values of one file may differ between machines, in standard deviations of a plane; None: not stated
    """

    id: ClassVar[str]
    domain: ClassVar[str]
    dims: ClassVar[tuple[str, ...]]
    lossless: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    drift: ClassVar[float | None] = None
    name: str
    digest: bytes = b""

    @abstractmethod
    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        """Encode one signal. effort 0 to 9 buys rate with encoder time. Raises UnsupportedError for signals it cannot keep."""

    @abstractmethod
    def decode(self, encoded: Encoded) -> Signal:
        """Inverse of `encode`. Missing chunks (partial reading) leave neutral samples. Raises FormatError on damaged streams."""

    @abstractmethod
    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        """The decoded integers, one flat array a chunk: identical on every machine."""

    @abstractmethod
    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        """Code `symbols` again under the header of `encoded`: gives the same bytes."""

    def places(self, encoded: Encoded) -> int:
        """How many data chunks a whole file of this header has. Raises FormatError for headers that do not fit the codec."""
        return 1

    def latents(self, encoded: Encoded) -> Any:
        """Decoded latents as a float tensor, no synthesis. Raises UnsupportedError where a codec has none."""
        from latentpress.errors import UnsupportedError

        raise UnsupportedError(f"{self.name} has no latents")

    def describe(self) -> Mapping[str, Any]:
        """Facts for `latentpress codecs`: parameters, macs_per_sample (encode, decode), weight_bytes, licence, paper."""
        return {}
