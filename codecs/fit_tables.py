"""Tables of walloc-rgb fitted by counting: they start as those of the priors' densities, and the symbols that really occur sharpen them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs.presets import Preset
from latentpress.entropy.priors import GaussianConditional
from latentpress.entropy.sharpen import Counter, sharpen
from latentpress.entropy.tables import Tables

if TYPE_CHECKING:
    from latentpress.codecs.image_walloc import Quantised, WallocRGB, WallocRGBModel

SKIP = 1  # rows of the scale table that are not coded: their symbols are zero by definition
LEVEL_GROUPS = 8  # hyper-latents have tables of their own for each eighth of the levels: 4 % of their bits
PER_IMAGE = 3  # levels drawn for each photograph
SIDE = 512  # of the part of a photograph that is counted
Z_STRENGTH, Y_STRENGTH = 300, 4000  # observations that the densities weigh


def core_of(model: WallocRGBModel, z_tables: Tables, y_tables: Tables, skip: int = SKIP) -> WallocRGB:
    """The frozen codec as it will load from the preset."""
    from latentpress.codecs.image_walloc import WallocRGB, frozen_weights

    weights = frozen_weights(model, z_tables, y_tables)
    return WallocRGB(model.config, Preset(name="", description={"skip": skip}, weights=weights, digest=b""))


@torch.no_grad()
def coded_symbols(core: WallocRGB, images: Sequence[Tensor], per_image: int, seed: int) -> Iterator[Quantised]:
    """Quantised crops (at most 512 a side, whole multiples of 64) of the photographs at evenly spread random levels. Smaller ones are left out."""
    random = np.random.default_rng(seed)
    for image in images:
        h, w = (min(SIDE, n // core.align * core.align) for n in image.shape[1:])
        if not h or not w:
            continue
        y, x = random.integers(image.shape[1] - h + 1), random.integers(image.shape[2] - w + 1)
        unit = 255 if image.dtype == torch.uint8 else 1
        latents = core.analyse(image[None, :, y : y + h, x : x + w].float() / unit)
        for _ in range(per_image):
            yield core.quantise(latents, int(random.integers(core.max_level + 1)))


def fit_tables(
    model: Any, images: Sequence[Tensor], *, skip: int = SKIP, per_image: int = PER_IMAGE, seed: int = 1,
    build: Callable[[Tables, Tables], Any] | None = None,
) -> tuple[Tables, Tables]:  # fmt: skip
    """(tables of z, tables of y) from photographs uint8 or fields float32 [3, h, w]; without any, those of the densities.

    model: a WallocRGBModel, or any with a Hyperprior `prior`, whose frozen codec `build` makes of its tables.
    """
    z_tables, y_tables = repeated(model.prior.factorized.freeze(), LEVEL_GROUPS), GaussianConditional.freeze()
    core = build(z_tables, y_tables) if build else core_of(model, z_tables, y_tables, skip)
    z_counter, y_counter = Counter(z_tables), Counter(y_tables)
    for quantised in coded_symbols(core, images, per_image, seed):
        z_counter.add(quantised.symbols[0], quantised.rows[0])
        for symbols, rows in zip(quantised.symbols[1:], quantised.rows[1:], strict=True):
            y_counter.add(symbols, rows)
    return sharpen(z_tables, z_counter.counts(), Z_STRENGTH, False), sharpen(y_tables, y_counter.counts(), Y_STRENGTH, True)


def repeated(tables: Tables, times: int) -> Tables:
    """The same rows `times` times."""
    return Tables.from_counts([tables.row_counts(r) for r in range(tables.rows)] * times, [int(v) for v in tables.low] * times)
