"""The best file of a codec that fits a number of bytes."""

from __future__ import annotations

from dataclasses import dataclass

from latentpress.errors import InputError
from latentpress.eval.peers.protocol import Family, Image8, Peer


@dataclass(frozen=True, kw_only=True)
class Fit:
    peer: Peer
    quality: int
    blob: bytes


def at_most_bytes(peers: Family, image: Image8, budget: int) -> Fit:
    """The highest quality whose file has at most `budget` bytes, by bisection: about seven encodings.

    File size is taken to grow with quality; where a codec breaks that by a few bytes a neighbouring quality may be found,
    but the file always fits. Raises InputError where even the lowest quality does not.
    """
    blob = peers.at(peers.low).encode(image)
    if len(blob) > budget:
        raise InputError(f"{peers.name}: {len(blob)} bytes at its lowest quality, {budget} allowed")
    best = Fit(peer=peers.at(peers.low), quality=peers.low, blob=blob)
    low, high = peers.low + 1, peers.high
    while low <= high:
        middle = (low + high) // 2
        blob = peers.at(middle).encode(image)
        if len(blob) <= budget:
            best, low = Fit(peer=peers.at(middle), quality=middle, blob=blob), middle + 1
        else:
            high = middle - 1
    return best
