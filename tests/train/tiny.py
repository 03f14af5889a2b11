"""A Trainable of a few dozen weights: deterministic, or noisy on wish, with an auxiliary parameter that the main loss sees too."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from latentpress.codecs.trainable import Losses, Trainable
from latentpress.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TinyOptions:
    width: int = 4
    noise: float = 0.0
    bad_from: int = -1  # forwards from this one on give a loss that is no number, `bad` of them
    bad: int = 0


class Tiny(Trainable):
    id: ClassVar[str] = "tiny"
    domain: ClassVar[str] = "image"
    options: ClassVar[type[Any]] = TinyOptions

    def __init__(self, options: TinyOptions) -> None:
        super().__init__()
        self.settings, self.forwards = options, 0
        self.down, self.up = nn.Conv2d(3, options.width, 3, padding=1), nn.Conv2d(options.width, 3, 1)
        self.unused = nn.Parameter(torch.ones(3))  # of no loss: several processes must not wait for its gradient
        self.quantile = nn.Parameter(torch.full((options.width,), 0.5))

    @classmethod
    def from_options(cls, options: TinyOptions, variant: str = "") -> Tiny:
        return cls(options)

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        return [self.quantile]

    def forward(self, batch: Tensor) -> Losses:
        time.sleep(float(os.environ.get("TINY_SLEEP", "0")))
        y = self.down(batch)
        y = y + self.settings.noise * (torch.rand_like(y) - 0.5)
        decoded = self.up(torch.tanh(y * self.quantile[:, None, None]))  # the main loss would move the auxiliary parameter
        main = (decoded - batch).pow(2).mean() * 10
        auxiliary = (self.quantile - y.mean((0, 2, 3)) - 1).pow(2).sum()  # and the auxiliary loss the layers
        if self.training:
            self.forwards += 1
            if self.settings.bad_from < self.forwards <= self.settings.bad_from + self.settings.bad:
                main = main * math.nan
        return Losses(main=main, auxiliary=auxiliary, scalars={"bpp": y.detach().abs().mean(), "psnr": -10 * torch.log10(main.detach() / 10)})

    def reconstruct(self, batch: Tensor) -> Tensor:
        return self.up(torch.tanh(self.down(batch) * self.quantile[:, None, None]))

    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        raise ValueError("tiny has no tables")


def photographs(folder: Path, count: int = 6, size: int = 40) -> Path:
    """PNG files of smooth noise, each of another size."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(i))
        image = torch.nn.functional.interpolate(noise, size=(size + i, size + 2 * i), mode="bicubic")[0].clamp(0, 1)
        Image.fromarray((image * 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()).save(folder / f"{i:02d}.png")
    return folder


def config(run: Path, data: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "codec": "tiny", "run": str(run), "data": str(data), "steps": 12, "batch": 2, "crop": 16, "rate": 0.01, "warmup": 3, "log_every": 3,
        "save_every": 5, "validate_every": 1000, "validation_images": 1, "threads": 1, "accelerator": "cpu",
    }  # fmt: skip
    return TrainConfig(**(values | changes))


def same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> bool:
    return a.keys() == b.keys() and all(np.allclose(a[k].numpy(), b[k].numpy(), rtol=tolerance, atol=tolerance) for k in a)
