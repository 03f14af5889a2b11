"""Training data: random crops of photographs (a folder or packed shards) or of fields, each a function of the seed and its number in the run.

Nothing of the data is state: item n of a run is the same whoever draws it, so a resumed run goes on where it was, the halves of a batch on two
processes are the batch of one, and accumulating two batches is one batch of twice the size. Decoding happens in a thread beside the training.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentpress.datasets.fields import FieldStacks
from latentpress.datasets.photographs import photographs, split
from latentpress.datasets.shards import Shards, is_shards
from latentpress.errors import InputError, UnsupportedError

PREFETCH = 3  # batches made ahead


class Source(Protocol):
    """A numbered collection of photographs or triples of fields. sizes: (h, w) of each, known without decoding; scale: the unit of samples."""

    scale: float

    @property
    def sizes(self) -> Sequence[tuple[int, int]]: ...

    def load(self, index: int) -> Tensor:
        """[3, h, w]: uint8 of photographs, float32 of fields."""


class Folder:
    """Image files below a folder, in the order of their paths."""

    scale = 255.0

    def __init__(self, folder: Path) -> None:
        try:
            self.files = photographs(folder)
        except FileNotFoundError as error:
            raise InputError(str(error)) from error
        self.sizes = [_size(f) for f in self.files]

    def load(self, index: int) -> Tensor:
        return load_image(self.files[index])


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: no readable image ({error}); remove it from the training data") from error


def load_image(path: Path) -> Tensor:
    """uint8 [3, h, w]. Raises InputError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).contiguous()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: no readable image ({error}); remove it from the training data") from error


def open_source(path: str, domain: str = "image") -> Source:
    """Raises InputError where there is nothing to read, UnsupportedError for domains without a loader."""
    if domain not in ("image", "field"):
        raise UnsupportedError(f"no loader of training data for the domain {domain!r} yet; there are some for images and fields")
    if not path:
        raise InputError("what to train on? give --data FOLDER")
    folder = Path(path)
    if domain == "field":
        return FieldStacks(folder)
    return Shards(folder) if is_shards(folder) else Folder(folder)


def divide(source: Source) -> tuple[list[int], list[int]]:
    """(training, held-out): every 20th photograph is held out."""
    training, held_out = split(range(len(source.sizes)))
    if not training:
        raise InputError("the training data holds one photograph: at least two expected, one of them to validate on")
    return training, held_out


def spread(source: Source, indices: Sequence[int], count: int) -> list[Tensor]:
    """At most `count` photographs, evenly over `indices` (0: all)."""
    chosen = indices[:: max(1, math.ceil(len(indices) / count))] if count else indices
    return [source.load(i) for i in chosen]


class Crops:
    """Batches of random square crops, large photographs more often, in one of eight orientations, shrunk by up to `shrink`."""

    def __init__(
        self, source: Source, indices: Sequence[int], *, crop: int, batch: int, seed: int, shrink: float = 1.0, rank: int = 0, world: int = 1,
        device: torch.device | None = None, cache_bytes: float = 4e9,
    ) -> None:  # fmt: skip
        self.source, self.crop, self.batch, self.seed, self.shrink = source, crop, batch, seed, shrink
        self.indices = [i for i in indices if min(source.sizes[i]) >= crop]
        if not self.indices:
            raise InputError(f"no photograph is at least {crop} samples on its short side: choose a smaller crop, or other data")
        self.rank, self.world, self.room = rank, world, cache_bytes
        self.device = device or torch.device("cpu")
        self.areas = torch.tensor([float(source.sizes[i][0] * source.sizes[i][1]) for i in self.indices], dtype=torch.float64).cumsum(0)
        self.cache: dict[int, Tensor] = {}

    def make(self, number: int) -> Tensor:
        """Batch `number` of this process (one for every forward): float32 [batch, 3, crop, crop] (photographs in 0..1), channels last."""
        first = (number * self.world + self.rank) * self.batch
        crops = torch.stack([self.one(first + i) for i in range(self.batch)])
        return crops.div_(self.source.scale).contiguous(memory_format=torch.channels_last)

    def one(self, item: int) -> Tensor:
        """float32 [3, crop, crop] as the source holds them: item of the whole run."""
        random = torch.Generator().manual_seed((self.seed << 40) + item)
        where, scale, down, across = torch.rand(4, generator=random, dtype=torch.float64).tolist()
        turn = int(torch.randint(8, (), generator=random))
        at = min(int(torch.searchsorted(self.areas, where * float(self.areas[-1]), right=True)), len(self.indices) - 1)
        image = self._image(self.indices[at])
        _, h, w = image.shape
        side = min(round(self.crop * self.shrink**scale), h, w)
        y, x = int(down * (h - side + 1)), int(across * (w - side + 1))
        part = image[:, y : y + side, x : x + side].float()
        if side > self.crop:
            part = F.interpolate(part[None], (self.crop, self.crop), mode="bilinear", antialias=True)[0]
        part = part.flip(2) if turn & 1 else part
        part = part.flip(1) if turn & 2 else part
        return part.transpose(1, 2) if turn & 4 else part

    def _image(self, index: int) -> Tensor:
        found = self.cache.get(index)
        if found is None:
            found = self.source.load(index).to(self.device)
            if self.room >= found.nbytes:
                self.room -= found.nbytes
                self.cache[index] = found
        return found


class Loader:
    """Batches of Crops from `first` on. In a thread of its own on the CPU; on a GPU, where photographs lie as uint8, the GPU cuts them.

    waited: seconds that `next` has kept its caller waiting.
    """

    def __init__(self, crops: Crops, first: int) -> None:
        self.crops, self.number, self.waited = crops, first, 0.0
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="crops") if crops.device.type == "cpu" else None
        self.ahead: deque[Future[Tensor]] = deque()

    def next(self) -> Tensor:
        begin = time.perf_counter()
        if self.worker is None:
            batch = self.crops.make(self.number)
        else:
            while len(self.ahead) < PREFETCH:
                self.ahead.append(self.worker.submit(self.crops.make, self.number + len(self.ahead)))
            batch = self.ahead.popleft().result()
            self.ahead.append(self.worker.submit(self.crops.make, self.number + PREFETCH))
        self.number += 1
        self.waited += time.perf_counter() - begin
        return batch

    def close(self) -> None:
        if self.worker is not None:
            self.worker.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield self.next()


def centre(image: Tensor, side: int, multiple: int = 64) -> Tensor:
    """The middle of [3, h, w], at most `side` each way, whole multiples where the photograph allows."""
    h, w = (min(side, n) // multiple * multiple or min(side, n) for n in image.shape[1:])
    top, left = ((n - m) // 2 for n, m in zip(image.shape[1:], (h, w), strict=True))
    return image[:, top : top + h, left : left + w].contiguous()
