"""Ours and the peers behind one interface: a field and a bound -> bytes that count -> array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import latentpress
from latentpress import container
from latentpress.codecs.base import Signal, Target
from latentpress.eval.fields import Field
from latentpress.eval.peers.fields import FieldPeer, counted


class Coder(Protocol):
    """name, digest, setting, versions: as of a Peer (eval/peers/protocol.py). own: ours."""

    @property
    def name(self) -> str: ...
    @property
    def own(self) -> bool: ...
    @property
    def digest(self) -> str: ...
    @property
    def setting(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    def encode(self, field: Field, bound: float) -> bytes: ...
    def decode(self, blob: bytes) -> NDArray[Any]: ...
    def size(self, blob: bytes) -> int: ...
    def arrangement(self, blob: bytes) -> str: ...


@dataclass(frozen=True, kw_only=True)
class PeerCoder:
    peer: FieldPeer
    own: bool = False

    @property
    def name(self) -> str:
        return self.peer.name

    @property
    def digest(self) -> str:
        return self.peer.digest

    @property
    def setting(self) -> str:
        return self.peer.setting

    @property
    def versions(self) -> Mapping[str, str]:
        return self.peer.versions

    def encode(self, field: Field, bound: float) -> bytes:
        return self.peer.encode(field.data, bound)

    def decode(self, blob: bytes) -> NDArray[Any]:
        return self.peer.decode(blob)

    def size(self, blob: bytes) -> int:
        return counted(blob)

    def arrangement(self, blob: bytes) -> str:
        return self.peer.about(blob)


@dataclass(frozen=True, kw_only=True)
class OwnCoder:
    """One of our codecs; every byte of the .lpz counts. codec: preset, codec id or folder of a preset."""

    codec: str
    own: bool = True

    @property
    def name(self) -> str:
        return self.codec

    @property
    def digest(self) -> str:
        return str(loaded(self.codec).digest.hex())

    @property
    def setting(self) -> str:
        return "whole .lpz files"

    @property
    def versions(self) -> Mapping[str, str]:
        return {"latentpress": latentpress.__version__, f"{self.codec} weights": self.digest}

    def encode(self, field: Field, bound: float) -> bytes:
        return self._file(field, Target(max_error=bound))

    def at_quality(self, field: Field, quality: float) -> bytes:
        return self._file(field, Target(quality=quality))

    def decode(self, blob: bytes) -> NDArray[Any]:
        return np.asarray(loaded(self.codec).decode(container.read(blob).encoded).data)

    def size(self, blob: bytes) -> int:
        return len(blob)

    def arrangement(self, blob: bytes) -> str:
        return ""

    def _file(self, field: Field, target: Target) -> bytes:
        return bytes(container.write(loaded(self.codec).encode(Signal(data=field.data, dims=field.dims), target)))


@cache
def loaded(codec: str) -> Any:
    """The codec, loaded once a process. Raises MissingPresetError for unknown names."""
    return latentpress.load_codec(codec)
