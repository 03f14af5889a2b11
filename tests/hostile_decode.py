"""Decoding broken files completely: what `test_hostile.py` runs, here and in a process of little memory.

    python -m tests.hostile_decode COUNT SEED MEBIBYTES        (a line of JSON)
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np

from latentpress import api, container
from latentpress.codecs import registry
from latentpress.codecs.base import Signal, Target
from latentpress.container import Limits
from latentpress.errors import LatentpressError
from tests.helpers import natural
from tests.hostile import mutations, time_limit

LIMITS = Limits(pixels=64 * 64, samples=4 * 64 * 64, metadata_bytes=1 << 20, file_bytes=1 << 20)
SECONDS = 4.0  # twice what is promised: the clock is that of a machine which may do other work


def victims() -> Iterator[tuple[str, bytes]]:
    """Small healthy files of every preset that codes images."""
    for name in registry.names():
        codec = registry.load_codec(name)
        if codec.domain != "image":
            continue
        for quality, shape in ((0, (64, 64)), (60, (32, 48)), (100, (40, 64))):
            yield f"{name} {quality}", api.encode(natural(*shape), codec=name, quality=quality)
        meta = {"text": {"a": "b"}, "dpi": (72.0, 72.0), "icc": b"profile", "exif": b"Exif\0\0"}
        with_alpha = np.concatenate([natural(16, 40), natural(16, 40)[:, :, :1]], axis=2)
        yield f"{name} alpha", api.encode(Signal(data=with_alpha, dims=("y", "x", "band"), meta=meta), codec=name)
        if hasattr(codec, "tile"):
            yield f"{name} tiled", tiled(name, natural(30, 130))


def tiled(name: str, image: np.ndarray) -> bytes:
    """A file of several chunks."""
    codec = registry.load_codec(name)
    usual, codec.tile = codec.tile, 64  # type: ignore[attr-defined]
    try:
        return container.write(codec.encode(Signal(data=image, dims=("y", "x", "band")), Target(quality=40)))
    finally:
        codec.tile = usual  # type: ignore[attr-defined]


def same(a: Signal, b: Signal) -> bool:
    return a.data.dtype == b.data.dtype and a.data.shape == b.data.shape and bool((a.data == b.data).all()) and dict(a.meta) == dict(b.meta)


def outcome(bad: bytes, sealed: bool, whole: Signal) -> str:
    """One word for what decoding gives; words with capitals are faults."""
    try:
        with time_limit(SECONDS):
            got = api.decode(bad, limits=LIMITS)
    except LatentpressError as error:
        return "refused" if "\n" not in str(error) else f"Error of several lines: {error!r}"
    except TimeoutError:
        return "Hang"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if same(got, whole):
        return "same"
    if not sealed:
        return "Silently wrong"
    shape = container.read_header(bad).shape
    return "decoded" if got.data.shape in (shape, (*shape[:-1], shape[-1] + 1)) else f"Shape {got.data.shape} for {shape}"


def campaign(count: int, seed: int) -> dict[str, int]:
    """Outcomes of about `count` mutants."""
    files = list(victims())
    outcomes: Counter[str] = Counter()
    for number, (name, blob) in enumerate(files):
        whole = api.decode(blob, limits=LIMITS)
        for i, bad in enumerate(mutations(blob, -(-count // len(files)), seed=1000 * seed + number)):
            word = outcome(bad, i % 2 == 1, whole)
            outcomes[word if word.islower() else f"{word} ({name}, mutant {i} of seed {1000 * seed + number})"] += 1
    return dict(outcomes)


def main() -> None:
    import resource

    import torch

    torch.set_num_threads(1)
    count, seed, mebibytes = map(int, sys.argv[1:])
    for _, blob in victims():  # everything loaded and warm: what comes on top is for the mutants
        api.decode(blob)
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (mebibytes << 20), resource.RLIM_INFINITY))
    print(json.dumps(campaign(count, seed)))


if __name__ == "__main__":
    main()
