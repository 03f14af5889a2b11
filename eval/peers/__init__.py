"""Other people's image codecs, behind one protocol: array -> bytes -> array.

    FAMILIES["webp"].at(50)      one operating point, a Peer
    at_most_bytes(FAMILIES["webp"], image, 20_000)      the best file that fits

JPEG 2000 is Pillow's: imagecodecs calls the same OpenJPEG and gives the same samples, its JP2 files are 25 to 30 bytes longer.
"""

from __future__ import annotations

from latentpress.errors import InputError
from latentpress.eval.peers.fit import Fit, at_most_bytes
from latentpress.eval.peers.jpegxl import JpegXLFamily
from latentpress.eval.peers.lossless import LOSSLESS
from latentpress.eval.peers.pillow import PILLOW
from latentpress.eval.peers.protocol import Family, Image8, Peer, check_image

FAMILIES: dict[str, Family] = {f.name: f for f in (*PILLOW, JpegXLFamily(), *LOSSLESS)}
DEFAULT = ("jpeg", "jpeg-444", "webp", "avif")


def family(name: str) -> Family:
    """The family of that name, or InputError that lists what there is."""
    if name not in FAMILIES:
        raise InputError(f"no peer {name!r}: one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


__all__ = ["DEFAULT", "FAMILIES", "Family", "Fit", "Image8", "Peer", "at_most_bytes", "check_image", "family"]
