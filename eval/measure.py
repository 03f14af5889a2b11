"""One image through one codec: bytes written, bytes read, what was lost."""

from __future__ import annotations

import time
from pathlib import Path

from latentpress.eval.images import fingerprint, read_rgb
from latentpress.eval.metrics import bits_per_pixel, psnr
from latentpress.eval.peers import Peer
from latentpress.eval.rows import Key, Row

KEY = ("codec", "digest", "setting", "image", "image_digest")


def row_key(peer: Peer, path: Path) -> Key:
    return (peer.name, peer.digest, peer.setting, path.stem, fingerprint(path))


def measure_row(peer: Peer, path: Path) -> Row:
    """Encode, decode from the bytes alone, compare. Seconds are wall time, for orientation only: other work may run beside."""
    image = read_rgb(path)
    start = time.perf_counter()
    blob = peer.encode(image)
    middle = time.perf_counter()
    decoded = peer.decode(blob)
    end = time.perf_counter()
    return {
        **dict(zip(KEY, row_key(peer, path), strict=True)),
        "height": image.shape[0],
        "width": image.shape[1],
        "bytes": len(blob),
        "bpp": bits_per_pixel(len(blob), image.shape),
        "psnr": psnr(image, decoded),
        "encode_s": round(middle - start, 4),
        "decode_s": round(end - middle, 4),
    }
