"""Our codecs as peers: whole .lpz files, so that bytes and seconds are what a user gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import latentpress
from latentpress import api, container
from latentpress.codecs.base import Target
from latentpress.eval.peers import Image8, check_image

FINE = 32  # levels from which on a quality scale is not taken as steps


@dataclass(frozen=True, kw_only=True)
class OwnCodec:
    """codec: preset name, codec id or folder of a preset; quality 0 to 100, continuous, None for codecs of one rate.

    effort  0 to 9; None for codecs that have but one, whose names then do not speak of it
    curve   name of the curve, where it is not to be that of codec and effort: operating points of several presets may make one curve
    point   setting, where the quality does not tell the points of the curve apart
    """

    codec: str
    quality: float | None
    effort: int | None = 2
    curve: str = ""
    point: str = ""

    @property
    def name(self) -> str:
        plain = os.path.basename(os.path.abspath(self.codec)) if is_folder(self.codec) else self.codec
        return self.curve or (plain if self.effort is None else f"{plain}, effort {self.effort}")

    @property
    def setting(self) -> str:
        return self.point or ("fixed" if self.quality is None else f"quality={self.quality:g}")

    @property
    def digest(self) -> str:
        return str(loaded(self.codec).digest.hex())

    @property
    def versions(self) -> Mapping[str, str]:
        import torch

        return {"latentpress": latentpress.__version__, "torch": str(torch.__version__), f"{self.codec} weights": self.digest}

    def prepare(self) -> None:
        """Loads all that coding needs, once a process: a codec may put off much until its first call."""
        _warmed(self.codec)

    def encode(self, image: Image8) -> bytes:
        check_image(image)
        quality = 50.0 if self.quality is None else self.quality  # a codec of one rate takes the usual one
        effort = api.DEFAULT_EFFORT if self.effort is None else self.effort
        if is_folder(self.codec):  # `latentpress.encode` would load the folder again at every call
            return bytes(container.write(loaded(self.codec).encode(api.as_signal(image), Target(quality=quality), effort=effort)))
        return bytes(latentpress.encode(image, codec=self.codec, quality=quality, effort=effort))

    def decode(self, blob: bytes) -> Image8:
        if is_folder(self.codec):  # a file's header cannot ask for a folder
            return np.asarray(loaded(self.codec).decode(container.read(blob).encoded).data)
        return np.asarray(latentpress.decode(blob).data)


def is_folder(codec: str) -> bool:
    return os.path.isdir(codec)


def loaded(codec: str) -> Any:
    """The codec, loaded once a process. Raises MissingPresetError for unknown names, FormatError for a damaged preset."""
    return _folder(os.path.abspath(codec)) if is_folder(codec) else latentpress.load_codec(codec)


@lru_cache(maxsize=8)
def _folder(path: str) -> Any:
    return latentpress.load_codec(path)


@lru_cache(maxsize=64)
def _warmed(codec: str) -> None:
    peer = OwnCodec(codec=codec, quality=None, effort=0)
    peer.decode(peer.encode(np.full((64, 64, 3), 128, np.uint8)))


def levels(codec: str) -> int:
    """How many rates the codec has; FINE where quality is as good as continuous."""
    found = loaded(codec)
    highest = getattr(found, "max_level", getattr(getattr(found, "core", None), "max_level", None))
    return FINE if highest is None else min(FINE, int(highest) + 1)
