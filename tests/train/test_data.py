"""Training data: folders and shards, crops that are functions of their number, and what is held out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from latentpress.datasets.photographs import photographs as files_of
from latentpress.datasets.photographs import split
from latentpress.datasets.shards import Shards, pack
from latentpress.errors import InputError, UnsupportedError
from latentpress.train.data import Crops, Folder, Loader, centre, divide, open_source, spread
from tests.train.tiny import photographs


class Memory:
    """Images in memory, which counts how often each is loaded."""

    scale = 255.0

    def __init__(self, images: Sequence[Tensor], seconds: float = 0.0) -> None:
        self.images, self.loads, self.seconds = images, [0] * len(images), seconds
        self.sizes = [(i.shape[1], i.shape[2]) for i in images]
        self.threads: set[int] = set()

    def load(self, index: int) -> Tensor:
        self.loads[index] += 1
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        return self.images[index]


def ramp(h: int = 32, w: int = 40) -> Tensor:
    """Every sample other than its neighbours."""
    return torch.arange(3 * h * w).reshape(3, h, w).remainder(251).to(torch.uint8)


def test_crops_are_parts_of_the_photographs_in_all_orientations() -> None:
    batch = Crops(Memory([ramp()]), [0], crop=32, batch=64, seed=3).make(0)
    assert batch.shape == (64, 3, 32, 32) and batch.min() >= 0 and batch.max() <= 1
    starts = {tuple((b[0, 0, :2] * 255).round().int().tolist()) for b in batch}
    assert len(starts) > 8
    part = (batch[0] * 255).round().to(torch.uint8)
    turns = [t for f in (part, part.flip(1), part.flip(2), part.flip(1, 2)) for t in (f, f.transpose(1, 2))]
    assert any(torch.equal(t, ramp()[:, :, x : x + 32]) for t in turns for x in range(9))


def test_the_halves_of_a_batch_and_two_accumulated_ones_are_the_batch() -> None:
    source = Memory([ramp(), ramp(48, 33)])
    common = {"crop": 16, "seed": 7, "shrink": 1.5}
    whole = Crops(source, [0, 1], batch=4, **common)  # type: ignore[arg-type]
    ranks = [Crops(source, [0, 1], batch=2, rank=r, world=2, **common) for r in range(2)]  # type: ignore[arg-type]
    parts = Crops(source, [0, 1], batch=2, **common)  # type: ignore[arg-type]
    assert torch.equal(torch.cat([r.make(5) for r in ranks]), whole.make(5))
    assert torch.equal(torch.cat([parts.make(10), parts.make(11)]), whole.make(5))
    assert not torch.equal(whole.make(5), whole.make(6))


def test_shrinking_averages_and_never_takes_more_than_there_is() -> None:
    checkers = (torch.arange(64)[:, None] + torch.arange(64)[None]).remainder(2).mul(255).to(torch.uint8).expand(3, 64, 64)
    plain = Crops(Memory([checkers]), [0], crop=32, batch=16, seed=1).make(0)
    shrunk = Crops(Memory([checkers]), [0], crop=32, batch=16, seed=1, shrink=4.0).make(0)
    assert plain.var() > 0.24 and shrunk.shape == plain.shape
    assert float(shrunk.var((1, 2, 3)).min()) < 0.01  # the finest pattern there is, averaged away


def test_large_photographs_are_drawn_more_often() -> None:
    source = Memory([ramp(20, 20), ramp(60, 60), ramp(10, 90)])
    crops = Crops(source, [0, 1, 2], crop=16, batch=200, seed=1, cache_bytes=0)
    crops.make(0)
    assert source.loads[2] == 0 and 10 <= source.loads[0] <= 40 and sum(source.loads) == 200  # a tenth of the area


def test_photographs_are_decoded_once_while_there_is_room() -> None:
    source = Memory([ramp(20, 20), ramp(20, 20)])
    crops = Crops(source, [0, 1], crop=16, batch=50, seed=1, cache_bytes=1300)
    crops.make(0)
    assert min(source.loads) == 1 and max(source.loads) > 5


def test_the_loader_gives_batches_in_order_from_anywhere_and_works_beside() -> None:
    source = Memory([ramp()], seconds=0.002)
    crops = Crops(source, [0], crop=16, batch=2, seed=1, cache_bytes=0)
    loader = Loader(crops, 4)
    try:
        assert all(torch.equal(loader.next(), crops.make(n)) for n in range(4, 12))
        loader.waited = 0.0
        for _ in range(5):
            time.sleep(0.03)
            loader.next()
        assert loader.waited < 0.05 and threading.get_ident() in source.threads and len(source.threads) == 2
    finally:
        loader.close()


def test_an_image_that_cannot_be_read_ends_in_one_line_that_names_it(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p", count=3)
    (folder / "99.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"99.png: no readable image .*; remove it"):
        Folder(folder)
    whole = (folder / "01.png").read_bytes()
    (folder / "99.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"99.png: no readable image"):
        Folder(folder).load(3)


def test_data_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photographs"):
        open_source(str(tmp_path))
    with pytest.raises(InputError, match="give --data"):
        open_source("")
    with pytest.raises(UnsupportedError, match="'audio'"):
        open_source(str(tmp_path), "audio")
    with pytest.raises(InputError, match="at least two"):
        divide(Memory([ramp()]))
    with pytest.raises(InputError, match="at least 64 samples"):
        Crops(Memory([ramp()]), [0], crop=64, batch=1, seed=1)


def test_validation_photographs_are_not_trained_on(tmp_path: Path) -> None:
    for i in range(41):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i:03d}.png")
    training, validation = split(files_of(tmp_path))
    assert len(validation) == 3 and not set(training) & set(validation) and len(training) == 38
    assert divide(Folder(tmp_path))[1] == [0, 20, 40]
    assert len(spread(Folder(tmp_path), list(range(41)), 10)) <= 10


def test_packed_shards_are_the_photographs_of_the_folder(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p", count=7)
    files = pack(folder, tmp_path / "s", megabytes=0.012)
    assert len(files) > 2
    source, shards = Folder(folder), open_source(str(tmp_path / "s"))
    assert isinstance(shards, Shards) and shards.sizes == source.sizes and shards.names == [f.name for f in source.files]
    assert all(torch.equal(shards.load(i), source.load(i)) for i in range(7))
    settings = {"crop": 16, "batch": 3, "seed": 1}
    assert torch.equal(Crops(shards, [1, 2], **settings).make(0), Crops(source, [1, 2], **settings).make(0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="holds shards already"):
        pack(folder, tmp_path / "s")


def test_shards_can_be_shrunk_and_foreign_files_are_refused(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p", count=1, size=40)
    pack(folder, tmp_path / "s", shrink=2)
    assert Shards(tmp_path / "s").sizes == [(20, 20)]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.safetensors").write_bytes(b"12")
    with pytest.raises(InputError, match=r"x.safetensors: no readable shard"):
        open_source(str(tmp_path / "bad"))


def test_the_middle_has_whole_multiples_where_it_can() -> None:
    assert centre(ramp(200, 300), 192).shape == (3, 192, 192) and centre(ramp(200, 100), 192).shape == (3, 192, 64)
    assert centre(ramp(30, 40), 192).shape == (3, 30, 40)
    assert torch.equal(centre(ramp(70, 70), 64), ramp(70, 70)[:, 3:67, 3:67])
