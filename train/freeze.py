"""Averaged weights of a run to a preset folder: integer prior, tables fitted by counting on training photographs, provenance.

    python -m latentpress.train.freeze runs/RUN.safetensors latentpress/presets/walloc-rgb --data DIR

Tables start as those of the priors' densities; counts of the symbols that really occur (training split only) sharpen them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from latentpress.codecs.image_walloc import Quantised, WallocRGB, WallocRGBModel, frozen_weights
from latentpress.codecs.presets import Preset, write_preset
from latentpress.datasets.photographs import photographs, split
from latentpress.entropy.hyperprior import LEVEL_STEPS
from latentpress.entropy.priors import GaussianConditional
from latentpress.entropy.tables import Tables
from latentpress.train.data import load_image

SKIP = 1  # rows of the scale table that are not coded: their symbols are zero by definition
LEVEL_GROUPS = 8  # hyper-latents have tables of their own for each eighth of the levels: 4 % of their bits


def core_of(model: WallocRGBModel, z_tables: Tables, y_tables: Tables, skip: int) -> WallocRGB:
    """The frozen codec as it will load from the preset."""
    weights = frozen_weights(model, z_tables, y_tables)
    return WallocRGB(model.config, Preset(name="", description={"skip": skip}, weights=weights, digest=b""))


@torch.no_grad()
def coded_symbols(core: WallocRGB, images: list[Tensor], per_image: int, seed: int) -> Iterator[Quantised]:
    """Quantised crops (at most 512 a side) of the photographs at evenly spread random levels."""
    random = np.random.default_rng(seed)
    for image in images:
        h, w = (min(512, n // 64 * 64) for n in image.shape[1:])
        y, x = random.integers(image.shape[1] - h + 1), random.integers(image.shape[2] - w + 1)
        latents = core.analyse(image[None, :, y : y + h, x : x + w].float() / 255)
        for _ in range(per_image):
            yield core.quantise(latents, int(random.integers(core.max_level + 1)))


def sharpen(tables: Tables, counts: list[NDArray[np.float64]], strength: float, symmetric: bool) -> Tables:
    """Posterior mean of each row: its masses weigh `strength` observations. counts[r]: occurrences of each symbol of row r, escape last."""
    rows = []
    for r in range(tables.rows):
        seen = counts[r]
        if symmetric:
            seen = np.append((seen[:-1] + seen[-2::-1]) / 2, seen[-1])
        rows.append(tables.row_counts(r) / 2.0**24 * strength + seen)
    return Tables.from_masses(rows, [int(v) for v in tables.low])


def repeated(tables: Tables, times: int) -> Tables:
    """The same rows `times` times."""
    return Tables.from_counts([tables.row_counts(r) for r in range(tables.rows)] * times, [int(v) for v in tables.low] * times)


class Counter:
    """Occurrences by row and symbol."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.flat = tables, np.zeros(len(tables.cdf), np.float64)

    def add(self, symbols: NDArray[np.int32], rows: NDArray[np.integer[Any]]) -> None:
        low, high = self.tables.low[rows], self.tables.high[rows]
        inside = np.where((symbols < low) | (symbols >= high), high, symbols) - low
        self.flat += np.bincount(self.tables.start[rows] + inside, minlength=len(self.flat))

    def counts(self) -> list[NDArray[np.float64]]:
        start = self.tables.start
        return [self.flat[start[r] : start[r + 1] - 1] for r in range(self.tables.rows)]


def fit_tables(model: WallocRGBModel, images: list[Tensor], skip: int, per_image: int, seed: int) -> tuple[Tables, Tables]:
    z_tables, y_tables = repeated(model.prior.factorized.freeze(), LEVEL_GROUPS), GaussianConditional.freeze()
    core = core_of(model, z_tables, y_tables, skip)
    z_counter, y_counter = Counter(z_tables), Counter(y_tables)
    for quantised in coded_symbols(core, images, per_image, seed):
        z_counter.add(quantised.symbols[0], quantised.rows[0])
        for symbols, rows in zip(quantised.symbols[1:], quantised.rows[1:], strict=True):
            y_counter.add(symbols, rows)
    return sharpen(z_tables, z_counter.counts(), 300, False), sharpen(y_tables, y_counter.counts(), 4000, True)


@torch.no_grad()
def rate_and_quality(core: WallocRGB, images: list[Tensor], level: int) -> tuple[float, float]:
    """Mean ideal bpp and PSNR of whole-64 crops at an integer level."""
    rate = quality = 0.0
    for image in images:
        h, w = (n // 64 * 64 for n in image.shape[1:])
        x = image[None, :, :h, :w].float() / 255
        quantised = core.quantise(core.analyse(x), level)
        decoded = core.synthesise(core.reconstructed(quantised), level).clamp(0, 1)
        rate += core.bits(quantised) / (h * w) / len(images)
        quality += 10 * float(torch.log10(1 / ((decoded * 255).round() / 255 - x).pow(2).mean())) / len(images)
    return rate, quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("preset", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--skip", type=int, default=SKIP)
    parser.add_argument("--images", type=int, default=300, help="training photographs to count on")
    parser.add_argument("--per-image", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = WallocRGBModel()
    model.load_state_dict({k: v.float() for k, v in load_file(args.weights).items()})
    model.eval().requires_grad_(False)
    training, validation = split(photographs(args.data))
    chosen = training[:: max(1, len(training) // args.images)]
    z_tables, y_tables = fit_tables(model, [load_image(f) for f in chosen], args.skip, args.per_image, args.seed)
    core, held_out = core_of(model, z_tables, y_tables, args.skip), [load_image(f)[:, :512, :512] for f in validation]
    figures = {}
    for row in range(model.config.levels):
        rate, quality = rate_and_quality(core, held_out, row * LEVEL_STEPS)
        figures[str(row * LEVEL_STEPS)] = {"bpp": round(rate, 4), "psnr": round(quality, 3)}
        print(f"level {row * LEVEL_STEPS}: {rate:.4f} bpp {quality:.3f} dB", flush=True)
    with safe_open(args.weights, "numpy") as file:
        run = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
    run.get("config", {}).pop("data", None)
    description = {
        "codec": "walloc-rgb", "config": asdict(model.config), "skip": args.skip,
        "about": {"licence": "Apache-2.0", "paper": "WaLLoC (Jacobellis and Yadwadkar 2024), reworked"},
        "provenance": {"data": "317 photographs of the shared training set (SOURCES.tsv), every 20th held out", "run": run,
                       "tables": {"images": len(chosen), "per_image": args.per_image, "seed": args.seed}, "validation": figures},
    }  # fmt: skip
    write_preset(args.preset, description, frozen_weights(model, z_tables, y_tables))


if __name__ == "__main__":
    main()
