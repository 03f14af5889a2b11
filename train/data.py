"""Random crops of photographs held in memory as uint8, on the training device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def load_image(path: Path) -> Tensor:
    """uint8 [3, h, w]."""
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


class Crops:
    """Batches of random square crops, large photographs more often, in one of eight orientations."""

    def __init__(self, images: list[Tensor], *, crop: int, batch: int, seed: int) -> None:
        self.images = [i for i in images if min(i.shape[1:]) >= crop]
        if not self.images:
            raise ValueError(f"no photograph is at least {crop} samples on its short side")
        self.crop, self.batch = crop, batch
        self.weights = torch.tensor([float(i.shape[1] * i.shape[2]) for i in self.images])
        self.random = torch.Generator().manual_seed(seed)

    def _below(self, n: int) -> int:
        return int(torch.randint(n, (1,), generator=self.random))

    def one(self, index: int) -> Tensor:
        image, c = self.images[index], self.crop
        y, x = self._below(image.shape[1] - c + 1), self._below(image.shape[2] - c + 1)
        part, turn = image[:, y : y + c, x : x + c], self._below(8)
        part = part.flip(2) if turn & 1 else part
        part = part.flip(1) if turn & 2 else part
        return part.transpose(1, 2) if turn & 4 else part

    def next(self) -> Tensor:
        """float32 [batch, 3, crop, crop] in 0..1."""
        chosen = torch.multinomial(self.weights, self.batch, replacement=True, generator=self.random)
        crops = torch.stack([self.one(i) for i in chosen.tolist()])
        return (crops.float() / 255).contiguous(memory_format=torch.channels_last)
