"""CompressAI's architectures in the training loop of this package: "compressai/mbt2018-mean" and so on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentpress.codecs.compressai_zoo import known_architecture, model_class
from latentpress.codecs.trainable import Losses, Trainable
from latentpress.errors import InputError

# CompressAI's lambdas for its qualities 1 to 8 (mean squared error)
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)


@dataclass(frozen=True, kw_only=True)
class CompressAIOptions:
    """N, M     channels, as CompressAI's constructors take them (cheng2020 has N alone)
    lmbda    the loss is lmbda * 255^2 * MSE + bits a pixel, samples in 0..1
    quality  1 to 8: CompressAI's own N, M and lambda for that quality, in place of the three above
    """

    N: int = 128
    M: int = 192
    lmbda: float = 0.013
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.N < 1 or self.M < 1 or not 0 < self.lmbda < math.inf:
            raise InputError(f"N={self.N}, M={self.M}, lmbda={self.lmbda}: positive numbers expected")
        if self.quality is not None and not 1 <= self.quality <= 8:
            raise InputError(f"quality={self.quality}: CompressAI's 1 to 8 expected")


class CompressAITrainable(Trainable):
    """One model at one lambda. `latentpress.codecs.compressai_ladder` makes one preset of several."""

    id: ClassVar[str] = "compressai"
    domain: ClassVar[str] = "image"
    options: ClassVar[type[Any]] = CompressAIOptions
    defaults: ClassVar[Mapping[str, Any]] = {"optimiser": "adamw", "rate": 1e-4, "auxiliary_rate": 1e-3, "clip": 1.0}

    model: Any  # a CompressionModel

    def __init__(self, model: nn.Module, settings: CompressAIOptions) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    @classmethod
    def from_options(cls, options: CompressAIOptions, variant: str = "") -> CompressAITrainable:
        """variant: CompressAI's name of the architecture. Raises InputError for unknown ones, MissingExtraError."""
        architecture = known_architecture(variant)
        if options.quality is not None:
            options = _of_quality(architecture, options.quality)
        sizes = {"N": options.N} if architecture.startswith("cheng2020") else {"N": options.N, "M": options.M}
        return cls(model_class(architecture)(**sizes), options)

    @classmethod
    def import_checkpoint(cls, path: Path, variant: str, directory: Path) -> None:
        """A checkpoint of CompressAI's own training as a preset folder; variant "": as the weights look. Raises InputError."""
        from latentpress.codecs.compressai_checkpoint import freeze_checkpoint

        freeze_checkpoint(path, directory, architecture=known_architecture(variant) if variant else None)

    def forward(self, batch: Tensor) -> Losses:
        """Bits with uniform noise in training mode, of rounded latents in evaluation mode; sides that do not fit are padded."""
        decoded, likelihoods = self._run(batch)
        pixels = batch.shape[0] * batch.shape[2] * batch.shape[3]
        bpp = sum((-torch.log2(values).sum() for values in likelihoods.values()), torch.zeros((), device=batch.device)) / pixels
        error = (decoded - batch).square().mean()
        scalars = {"bpp": bpp.detach(), "psnr": -10 * torch.log10(error.detach())}
        return Losses(main=self.settings.lmbda * 255**2 * error + bpp, auxiliary=self.model.aux_loss(), scalars=scalars)

    def _run(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        from latentpress.codecs.compressai_coding import padded

        out = self.model(padded(batch, self.model.downsampling_factor))
        return out["x_hat"][:, :, : batch.shape[2], : batch.shape[3]], out["likelihoods"]

    @torch.no_grad()
    def reconstruct(self, batch: Tensor) -> Tensor:
        training = self.training
        self.eval()
        try:
            return self._run(batch)[0].clamp(0, 1)
        finally:
            self.train(training)

    def freeze(self, directory: Path, samples: Sequence[Tensor], provenance: Mapping[str, Any]) -> None:
        """Tables come from the entropy bottleneck's own densities and from Gaussians, as in CompressAI: `samples` are not looked at."""
        from latentpress.codecs.compressai_preset import freeze_model

        freeze_model(self.model, directory, lmbda=self.settings.lmbda, quality=self.settings.quality, provenance=provenance, update=True)

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """The quantiles of the entropy bottleneck."""
        return [p for name, p in self.named_parameters() if name.endswith(".quantiles")]


def _of_quality(architecture: str, quality: int) -> CompressAIOptions:
    from latentpress.codecs.compressai_env import import_compressai

    sizes: Mapping[int, tuple[int, ...]] = import_compressai().zoo.image.cfgs[architecture]
    if quality not in sizes:
        raise InputError(f"{architecture} has the qualities {min(sizes)} to {max(sizes)}, not {quality}")
    return replace(CompressAIOptions(quality=quality, lmbda=LAMBDAS[quality - 1]), N=sizes[quality][0], M=sizes[quality][-1])
