"""Tiles: the samples of the untiled transform, damage that stays where it is, refusal of headers that do not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from latentpress import api, container
from latentpress.codecs.base import Chunk, Encoded, Signal, Target
from latentpress.codecs.registry import load_codec
from latentpress.codecs.tiled import Tiled
from latentpress.errors import FormatError, LatentpressError, LimitError
from tests.helpers import natural, psnr

DIMS = ("y", "x", "band")


def codec(tile: int) -> Tiled:
    loaded = load_codec("walloc-rgb")
    assert isinstance(loaded, Tiled)
    return Tiled(loaded.core, name=loaded.name, digest=loaded.digest, tile=tile)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return natural(200, 330, top=60, left=100)


@pytest.fixture(scope="module")
def tiled(image: np.ndarray) -> Encoded:
    # effort 1: from 2 on, latents near tiles' edges are not corrected, which in tiles of 128 is half of them
    return codec(128).encode(Signal(data=image, dims=DIMS), Target(quality=50), effort=1)


def test_tiles_have_the_latents_of_the_whole_image(image: np.ndarray) -> None:
    small, whole = codec(64), codec(1024)
    grid = small._grid(image.shape, 64)
    with torch.no_grad():
        (span,) = whole._grid(image.shape, 1024)
        expected = whole._analyse(image, span, whole._grid(image.shape, 1024))
        for span in grid:
            part = small._analyse(image, span, grid)
            torch.testing.assert_close(part, expected[:, :, span.y0 : span.y1, span.x0 : span.x1], atol=1e-4, rtol=1e-4)


def test_synthesis_in_tiles_shows_no_seam(tiled: Encoded) -> None:
    one_pass = codec(128)
    with torch.no_grad():
        latents = one_pass._latents(tiled)
        samples = one_pass.core.synthesise(latents, tiled.parameters["level"])
        h, w, _ = tiled.shape
        whole = one_pass.core.to_data(samples[:, :, :h, :w], np.dtype(np.uint8), 3)
    by_tiles = one_pass.decode(tiled).data
    difference = np.abs(by_tiles.astype(int) - whole)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # a rounding in the last place of float32


def test_tiling_costs_little_quality_and_little_rate(image: np.ndarray, tiled: Encoded) -> None:
    whole = codec(1024).encode(Signal(data=image, dims=DIMS), Target(quality=50), effort=1)
    assert len(tiled.chunks) == 6 and len(whole.chunks) == 1
    assert abs(psnr(image, codec(1024).decode(tiled).data) - psnr(image, codec(1024).decode(whole).data)) < 0.1
    assert sum(len(c.payload) for c in tiled.chunks) < 1.15 * len(whole.chunks[0].payload)  # tiles of 128: worst case


def test_a_missing_tile_costs_only_its_surroundings(tiled: Encoded) -> None:
    decoder = codec(128)
    whole = decoder.decode(tiled).data
    holed = decoder.decode(dataclasses.replace(tiled, chunks=tiled.chunks[1:])).data
    changed = (whole != holed).any(2)
    reach = 16 * decoder.core.synthesis_reach
    assert changed[: 128 - reach, : 128 - reach].mean() > 0.9
    assert not changed[128 + reach :].any() and not changed[:, 128 + reach :].any()


def test_partial_decoding_of_a_damaged_file_keeps_the_rest(tiled: Encoded) -> None:
    blob = bytearray(container.write(tiled))
    file = container.read(bytes(blob))
    entry = file.chunk_table[-1]
    blob[entry.offset + entry.length // 2] ^= 1
    with pytest.raises(FormatError):
        api.decode(bytes(blob))
    signal = api.decode(bytes(blob), partial=True)
    assert len(signal.meta["damage"]) == 1
    assert np.array_equal(signal.data[:90, :200], api.decode(container.write(tiled)).data[:90, :200])


@pytest.mark.parametrize("chunks", [((5, 5),), ((0, 0), (0, 0))], ids=["outside", "twice"])
def test_chunks_outside_or_twice_are_refused(tiled: Encoded, chunks: tuple[tuple[int, int], ...]) -> None:
    bad = dataclasses.replace(tiled, chunks=tuple(Chunk(payload=tiled.chunks[0].payload, position=p) for p in chunks))
    with pytest.raises(FormatError, match="outside the signal"):
        codec(128).decode(bad)


@pytest.mark.parametrize("parameters", [{}, {"level": 10**6}, {"level": 3, "tile": 63}, {"level": 3, "tile": 0}])
def test_headers_that_do_not_fit_are_refused(tiled: Encoded, parameters: dict[str, int]) -> None:
    with pytest.raises(LatentpressError):
        codec(128).decode(dataclasses.replace(tiled, parameters=parameters))


def test_one_tile_for_a_huge_image_is_refused_before_anything_is_made(tiled: Encoded) -> None:
    with pytest.raises(LimitError, match="largest tile"):
        codec(128).decode(dataclasses.replace(tiled, shape=(16000, 16000, 3), parameters={"level": 3, "tile": 1 << 20}))


def test_the_overhead_of_one_image_is_at_most_forty_bytes() -> None:
    blob = api.encode(natural(512, 768, top=0, left=0), quality=50)
    assert container.read(blob).overhead <= 40
    assert len(blob) - len(container.read(blob).encoded.chunks[0].payload) <= 40
