"""Our codecs as peers: through `latentpress.encode` and `decode`, so that bytes and seconds are what a user gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import latentpress
from latentpress.eval.peers import Image8, check_image


@dataclass(frozen=True, kw_only=True)
class OwnCodec:
    """codec: name as given to `load_codec`; quality 0 to 100, continuous; effort 0 to 9."""

    codec: str
    quality: float
    effort: int = 2

    @property
    def name(self) -> str:
        return f"{self.codec}, effort {self.effort}"

    @property
    def setting(self) -> str:
        return f"quality={self.quality:g}"

    @property
    def digest(self) -> str:
        return latentpress.load_codec(self.codec).digest.hex()

    @property
    def versions(self) -> Mapping[str, str]:
        return {"latentpress": latentpress.__version__, f"{self.codec} weights": self.digest}

    def encode(self, image: Image8) -> bytes:
        check_image(image)
        return bytes(latentpress.encode(image, codec=self.codec, quality=self.quality, effort=self.effort))

    def decode(self, blob: bytes) -> Image8:
        return np.asarray(latentpress.decode(blob).data)
