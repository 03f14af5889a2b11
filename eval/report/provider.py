"""Codecs of a bench manifest, asked for files of at most so many bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latentpress.errors import InputError
from latentpress.eval.peers import FAMILIES, Family, Image8, Peer, at_most_bytes
from latentpress.eval.report.pictures import Coded

Resolve = Callable[[Mapping[str, Any]], Sequence[Peer]]  # entry of the manifest's codecs -> one peer a setting


@dataclass(frozen=True, kw_only=True)
class ManifestProvider:
    """A `Provider` over the manifest's codecs.

    own presets  `latentpress.encode(max_bytes=...)`
    families     bisection over the whole quality scale
    others       the largest of the bench's own settings that fits, by `resolve`
    """

    codecs: Sequence[Mapping[str, Any]]
    families: Mapping[str, Family] = field(default_factory=lambda: FAMILIES)
    resolve: Resolve | None = None

    def __call__(self, codec: str, image: Image8, budget: int) -> Coded:
        entry = next((c for c in self.codecs if c["codec"] == codec), None)
        if entry is None:
            raise InputError(f"{codec}: not in the bench's last run, so it cannot be run again")
        preset = _PRESET.fullmatch(codec)
        if entry.get("own") and preset:
            return _own(preset["name"], int(preset["effort"]), image, budget)
        if not entry.get("own") and codec in self.families:
            fit = at_most_bytes(self.families[codec], image, budget)
            return Coded(bytes=len(fit.blob), setting=fit.peer.setting, decoded=fit.peer.decode(fit.blob))
        if self.resolve is None:
            raise InputError(f"{codec}: this version does not know how to run {entry.get('spec', codec)!r} again")
        return _largest(codec, self.resolve(entry), image, budget)


_PRESET = re.compile(r"(?P<name>.+), effort (?P<effort>[0-9])")  # as `OwnCodec.name` writes it


def _own(codec: str, effort: int, image: Image8, budget: int) -> Coded:
    import latentpress

    blob = latentpress.encode(image, codec=codec, max_bytes=budget, effort=effort)
    return Coded(bytes=len(blob), setting="", decoded=np.asarray(latentpress.decode(blob).data))


def _largest(codec: str, peers: Sequence[Peer], image: Image8, budget: int) -> Coded:
    best: tuple[Peer, bytes] | None = None
    smallest = None
    for peer in peers:
        blob = peer.encode(image)
        smallest = len(blob) if smallest is None else min(smallest, len(blob))
        if len(blob) <= budget and (best is None or len(blob) > len(best[1])):
            best = peer, blob
    if best is None:
        raise InputError(f"{codec}: {smallest} bytes at its smallest setting, {budget} allowed")
    peer, blob = best
    return Coded(bytes=len(blob), setting=peer.setting, decoded=peer.decode(blob))
