"""Our codecs as peers: whole .lpz files, so that bytes and seconds are what a user gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import latentpress
from latentpress.eval.peers import Image8, check_image


@dataclass(frozen=True, kw_only=True)
class OwnCodec:
    """codec: preset name, codec id or folder of a preset; quality 0 to 100, continuous, None for codecs of one rate; effort 0 to 9.

    label: name of the curve where it is not to be that of the codec; points of several presets under one label are one curve
    """

    codec: str
    quality: float | None
    effort: int = 2
    label: str = ""

    @property
    def name(self) -> str:
        plain = os.path.basename(os.path.abspath(self.codec)) if is_folder(self.codec) else self.codec
        return self.label or (plain if self.quality is None else f"{plain}, effort {self.effort}")

    @property
    def setting(self) -> str:
        parts = {} if self.quality is None else {"quality": f"{self.quality:g}"}
        if self.label:
            parts = {"preset": self.codec, "effort": str(self.effort)} | parts
        return ",".join(f"{k}={v}" for k, v in parts.items()) or "fixed"

    @property
    def digest(self) -> str:
        return str(loaded(self.codec).digest.hex())

    @property
    def versions(self) -> Mapping[str, str]:
        import torch

        return {"latentpress": latentpress.__version__, "torch": str(torch.__version__), f"{self.codec} weights": self.digest}

    def encode(self, image: Image8) -> bytes:
        check_image(image)
        quality = 50.0 if self.quality is None else self.quality  # a codec of one rate takes any
        if is_folder(self.codec):  # `latentpress.encode` would load the folder again at every call
            return _encode_by(loaded(self.codec), image, quality, self.effort)
        return bytes(latentpress.encode(image, codec=self.codec, quality=quality, effort=self.effort))

    def decode(self, blob: bytes) -> Image8:
        if is_folder(self.codec):  # a file's header cannot ask for a folder
            from latentpress import container

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


def has_one_rate(codec: str) -> bool:
    """Whether quality and effort change nothing."""
    return getattr(getattr(loaded(codec), "core", None), "max_level", None) == 0


def _encode_by(codec: Any, image: Image8, quality: float, effort: int) -> bytes:
    from latentpress import api, container
    from latentpress.codecs.base import Target

    return bytes(container.write(codec.encode(api.as_signal(image), Target(quality=quality), effort=effort)))
