"""What the training loop trains: a model that owns its loss, and knows how to freeze into a preset.

    registry.load_trainable("walloc-rgb")(options) --loop--> trained --freeze--> preset folder --load_codec--> Codec

The loop (train/) knows this contract and nothing of any codec. One `forward` gives every loss, so that data-parallel wrappers see all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of one batch.

    main       scalar, differentiated for the main optimiser
    auxiliary  scalar or None, differentiated for `auxiliary_parameters` alone (quantiles of an entropy bottleneck)
    scalars    detached, for the log: "bpp" and "psnr" where they make sense, and whatever the codec wants to show
    """

    main: Tensor
    auxiliary: Tensor | None = None
    scalars: Mapping[str, Tensor] = field(default_factory=dict)


class Trainable(nn.Module, ABC):
    """A model in training.

    id       name of its entry point (group latentpress.trainables) and of the codec it freezes into
    domain   "image", "audio", "video", "field", "array": which loader feeds it
    options  the frozen dataclass of the model's own settings: the section `model` of a training config
    defaults settings of the loop that suit this model, by name of the loop's config: {"optimiser": "soap", "rate": 6e-4}
    targets  qualities (0 to 100) at which validation writes real bytes; (50,) where quality is fixed
    """

    id: ClassVar[str]
    domain: ClassVar[str]
    options: ClassVar[type[Any]]
    defaults: ClassVar[Mapping[str, Any]] = {}
    targets: ClassVar[tuple[float, ...]] = (50,)

    @classmethod
    @abstractmethod
    def from_options(cls, options: Any, variant: str = "") -> Trainable:
        """A fresh model. variant: what follows the slash in a name like "compressai/bmshj2018-hyperprior". Raises InputError."""

    @abstractmethod
    def forward(self, batch: Tensor) -> Losses:
        """batch: images float32 [b, 3, h, w] in 0..1. Draws its own randomness (levels, noise) from torch's generator."""

    @abstractmethod
    def reconstruct(self, batch: Tensor) -> Tensor:
        """What a decoder would give for a batch at the middle quality, same shape: pictures for the log."""

    @abstractmethod
    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        """Write a preset folder: tables, exact networks, weights, description with `provenance`.

        samples: training items as the loader holds them (uint8 [3, h, w]) to count table statistics on. Leaves the model as it was.
        """

    def start(self, samples: Sequence[Tensor]) -> None:
        """Closed-form initialisation from training items (a KLT, a codebook), before the first step of a fresh run."""

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the auxiliary loss moves, with an optimiser of their own."""
        return []
