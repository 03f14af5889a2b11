"""Symbols of CompressAI models, as bytes and back: what `compress` and `decompress` do there, with the coder of this package.

    FactorizedCoding        y = symbols + medians
    HyperpriorCoding        z = symbols + medians --h_s--> scales (rows of tables), means;  y = symbols + means
    AutoregressiveCoding    the same, with a context of the y decoded so far, in waves of positions that do not depend on each other

A coding only says, step by step, which table row codes each symbol (`walk`); encoder, decoder and re-encoder differ in where symbols come from.

These networks are float. What picks table rows (h_s, context, entropy parameters) runs in float64 on one thread on both sides: the same bits
on one machine, and practically on all, as a scale would have to fall within about 1e-14 of a limit between rows. That is no proof:
unlike the integer networks of this package, exactness between machines is not promised.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.compressai_zoo import family_of
from latentpress.entropy.tables import Tables
from latentpress.errors import FormatError, UnsupportedError

MAX_SYMBOL = 1 << 18  # far beyond what a trained model gives; larger ones are damage
Symbols = NDArray[np.int32]
Size = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """Symbols that are coded together.

    of       "z" or "y"
    mean     what is added to them, any float, [c, h, w] (or broadcastable to it), or [n, c] at `where`
    rows     flat integers, in the order of the symbols: (channel, y, x), or (position, channel) at `where`
    where    rows and columns [n] of the positions of a wave; None for all
    """

    of: str
    mean: Tensor
    rows: NDArray[np.integer[Any]]
    tables: Tables
    where: tuple[Tensor, Tensor] | None = None


Choose = Callable[[Step], Symbols]


class Coding(ABC):
    """size: height and width of y."""

    def __init__(self, model: Any, tables: Mapping[str, Tables]) -> None:
        self.model, self.tables = model, tables
        bottleneck = model.entropy_bottleneck
        self.medians = bottleneck.quantiles.detach()[:, 0, 1].clone()[:, None, None]
        for network in (model.g_a, model.g_s):
            network.to(memory_format=torch.channels_last)  # measured: a sixth off analysis, a third off synthesis

    @abstractmethod
    def sources(self, samples: Tensor) -> dict[str, Tensor]:
        """Samples float32 [1, 3, h, w] in 0..1, sides multiples of the model's factor, to {"y": [m, h/16, w/16]} and, with a hyperprior, "z"."""

    @abstractmethod
    def walk(self, size: Size, choose: Choose) -> Tensor:
        """Ask `choose` for the symbols of each step; gives y^ [1, m, h, w], float32."""

    def encoder(self) -> Any:
        from latentpress.entropy.coder import Encoder  # here, so that training needs no constriction

        return Encoder()

    def decoder(self, payload: bytes) -> Any:
        from latentpress.entropy.coder import Decoder

        return Decoder(payload)

    def pack(self, samples: Tensor) -> tuple[bytes, Tensor]:
        """Samples as for `sources` -> payload and y^."""
        sources, encoder = self.sources(samples), self.encoder()

        def choose(step: Step) -> Symbols:
            source = sources[step.of]
            values = source if step.where is None else source[:, step.where[0], step.where[1]].T
            symbols = _integers(values - step.mean)
            encoder.push(symbols, step.rows, step.tables)
            return symbols

        latents = self.walk(_size(sources["y"]), choose)
        return encoder.finish(), latents

    def unpack(self, payload: bytes, size: Size) -> tuple[Symbols, Tensor]:
        """All symbols, flat in the order of coding, and y^. Raises FormatError on damaged bytes."""
        decoder, parts = self.decoder(payload), []

        def choose(step: Step) -> Symbols:
            symbols = decoder.pull(step.rows, step.tables)
            if len(symbols) and max(-int(symbols.min()), int(symbols.max())) >= MAX_SYMBOL:
                raise FormatError("damaged stream: a symbol is out of range")
            parts.append(symbols)
            return symbols

        latents = self.walk(size, choose)
        decoder.close()
        return np.concatenate(parts), latents

    def repack(self, flat: Symbols, size: Size) -> bytes:
        """Code the symbols that `unpack` returned again. Raises ValueError if their number does not fit."""
        encoder, at = self.encoder(), 0

        def choose(step: Step) -> Symbols:
            nonlocal at
            symbols = flat[at : at + len(step.rows)]
            at += len(step.rows)
            encoder.push(symbols, step.rows, step.tables)
            return symbols

        self.walk(size, choose)
        if at != len(flat):
            raise ValueError(f"{len(flat)} symbols given, {at} expected")
        return bytes(encoder.finish())

    def synthesise(self, latents: Tensor) -> Tensor:
        """y^ [1, m, h, w] -> samples [1, 3, 16 h, 16 w], not clamped."""
        return self.model.g_s(latents.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def _analyse(self, samples: Tensor) -> Tensor:
        return self.model.g_a(samples.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def _bottleneck(self, of: str, size: Size, tables: Tables) -> Step:
        rows = np.repeat(np.arange(tables.rows, dtype=np.uint16), size[0] * size[1])
        return Step(of, self.medians, rows, tables)


class FactorizedCoding(Coding):
    def sources(self, samples: Tensor) -> dict[str, Tensor]:
        return {"y": self._analyse(samples)[0]}

    def walk(self, size: Size, choose: Choose) -> Tensor:
        step = self._bottleneck("y", size, self.tables["y_tables"])
        return (_image(choose(step), size) + self.medians)[None]


class HyperpriorCoding(Coding):
    """has_means: h_s gives scales and means (mbt2018-mean), not scales alone (bmshj2018-hyperprior)."""

    def __init__(self, model: Any, tables: Mapping[str, Tables], *, has_means: bool) -> None:
        super().__init__(model, tables)
        self.has_means = has_means
        self.hyper_synthesis = copy.deepcopy(model.h_s).double()
        self.limits = model.gaussian_conditional.scale_table.double()[:-1].contiguous()
        self.factor = model.downsampling_factor // 16  # positions of y a position of z, on each axis

    def sources(self, samples: Tensor) -> dict[str, Tensor]:
        y = self._analyse(samples)
        return {"y": y[0], "z": self.model.h_a(y if self.has_means else y.abs())[0]}

    def hyper(self, size: Size, choose: Choose) -> Tensor:
        """h_s of the decoded z: float64 [1, c, h, w]."""
        small = (size[0] // self.factor, size[1] // self.factor)
        step = self._bottleneck("z", small, self.tables["z_tables"])
        z = (_image(choose(step), small) + self.medians)[None]
        with one_thread():
            return self.hyper_synthesis(z.double())  # type: ignore[no-any-return]

    def walk(self, size: Size, choose: Choose) -> Tensor:
        parameters = self.hyper(size, choose)[0]
        scales, means = parameters.chunk(2) if self.has_means else (parameters, torch.zeros(()))
        symbols = choose(Step("y", means, self.rows(scales), self.tables["y_tables"]))
        return (_image(symbols, size) + means)[None].float()

    def rows(self, scales: Tensor) -> NDArray[np.integer[Any]]:
        """How many entries of the scale table, the last left out, each scale exceeds: CompressAI's `build_indexes`; flat."""
        return torch.bucketize(scales.reshape(-1), self.limits, out_int32=True).numpy()


class AutoregressiveCoding(HyperpriorCoding):
    """A position sees those above and to the left, half a kernel of columns r to each side: (y, x) and (y + 1, x - r - 1) do not see each other,
    so wave t codes all positions with x + (r + 1) y = t at once, in the order of y. Slow all the same: w + (r + 1) h waves, one after the other.
    """

    def __init__(self, model: Any, tables: Mapping[str, Tables]) -> None:
        super().__init__(model, tables, has_means=True)
        context = model.context_prediction
        kernel = context.weight.shape[-1]
        self.reach = kernel // 2
        before = [(i, j) for i in range(kernel) for j in range(kernel) if (i, j) < (self.reach, self.reach)]
        self.taps = tuple(torch.tensor(axis) for axis in zip(*before, strict=True))
        weight = (context.weight * context.mask).detach().double()[:, :, self.taps[0], self.taps[1]]
        self.context = weight.permute(2, 1, 0).flatten(0, 1).contiguous()  # [taps * m, 2 m]
        self.context_bias = context.bias.detach().double()
        if any(isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != (1, 1) for layer in model.entropy_parameters.modules()):
            raise UnsupportedError("entropy_parameters of an autoregressive model must be 1x1 layers")
        self.entropy_parameters = copy.deepcopy(model.entropy_parameters).double()

    def encoder(self) -> Any:
        from latentpress.entropy.coder import SequentialEncoder

        return SequentialEncoder()

    def decoder(self, payload: bytes) -> Any:
        from latentpress.entropy.coder import SequentialDecoder

        return SequentialDecoder(payload)

    def walk(self, size: Size, choose: Choose) -> Tensor:
        base = self.hyper(size, choose)[0].permute(1, 2, 0).contiguous()
        r, channels = self.reach, base.shape[2] // 2
        known = torch.zeros(size[0] + 2 * r, size[1] + 2 * r, channels, dtype=torch.float64)
        with one_thread():
            for y, x in self.waves(size):
                around = known[y[:, None] + self.taps[0], x[:, None] + self.taps[1]].flatten(1)
                context = torch.addmm(self.context_bias, around, self.context)
                features = torch.cat([base[y, x], context], 1)
                scales, means = self.entropy_parameters(features.T[None, :, :, None])[0, :, :, 0].T.chunk(2, 1)
                symbols = choose(Step("y", means, self.rows(scales), self.tables["y_tables"], (y, x)))
                known[y + r, x + r] = torch.from_numpy(symbols).view(len(y), channels) + means
        return known[r : r + size[0], r : r + size[1]].permute(2, 0, 1)[None].float()

    def waves(self, size: Size) -> Iterator[tuple[Tensor, Tensor]]:
        slope = self.reach + 1
        for wave in range(size[1] + slope * (size[0] - 1)):
            first = max(0, -(-(wave - size[1] + 1) // slope))
            y = torch.arange(first, min(size[0] - 1, wave // slope) + 1)
            if len(y):
                yield y, wave - slope * y


def coding_of(model: Any, tables: Mapping[str, Tables]) -> Coding:
    """Raises UnsupportedError for models of other classes."""
    family = family_of(type(model))
    if family == "FactorizedPrior":
        return FactorizedCoding(model, tables)
    if family == "JointAutoregressiveHierarchicalPriors":
        return AutoregressiveCoding(model, tables)
    return HyperpriorCoding(model, tables, has_means=family == "MeanScaleHyperprior")


@contextmanager
def one_thread() -> Iterator[None]:
    """A sum split between threads may round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def padded(samples: Tensor, factor: int) -> Tensor:
    """Repeat the last row and column until both sides of [b, c, h, w] are multiples of `factor`."""
    bottom, right = -samples.shape[2] % factor, -samples.shape[3] % factor
    return F.pad(samples, (0, right, 0, bottom), mode="replicate") if bottom or right else samples


def _integers(values: Tensor) -> Symbols:
    limit = MAX_SYMBOL - 1
    symbols: Symbols = torch.round(values).clamp_(-limit, limit).to(torch.int32).reshape(-1).numpy()
    return symbols


def _image(symbols: Symbols, size: Size) -> Tensor:
    return torch.from_numpy(symbols).view(-1, *size)


def _size(latents: Tensor) -> Size:
    return int(latents.shape[-2]), int(latents.shape[-1])
