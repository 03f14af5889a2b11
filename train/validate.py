"""Validation in real bytes: the averaged weights are frozen, held-out photographs coded to files in memory and decoded again.

Where the entropy coder is not installed (training does not need it), bits are those that the model counts, and the report says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs.trainable import Trainable
from latentpress.errors import LatentpressError

SEED = 1729  # of the noise and levels in the cost, the same at every validation


def validate(model: Trainable, samples: Sequence[Tensor], held_out: Sequence[Tensor], *, effort: int = 0) -> dict[str, Any]:
    """{"points": [{"quality", "bpp", "psnr"}], means over the photographs at each target; "cost": the main loss; "estimated"; "note"}.

    model: with the weights to validate; samples, held_out: uint8 [3, h, w], those that tables are fitted to and those that are coded.
    """
    cost, scalars = held_out_cost(model, held_out)
    try:
        points, note = in_bytes(model, samples, held_out, effort), ""
    except ModuleNotFoundError as error:
        points, note = estimated(scalars), f"{error.name} is not installed"
    except ImportError as error:  # of an installation that changed under a running training; what was trained must not be lost
        points, note = estimated(scalars), f"the coder cannot be imported: {error}"
    except (LatentpressError, ValueError, ArithmeticError) as error:  # weights of a bad moment may not freeze; the run goes on
        points, note = estimated(scalars), f"the weights could not be frozen and coded with: {error}"
    return {"points": points, "cost": cost, "estimated": bool(note), **({"note": note} if note else {})}


@torch.no_grad()
def held_out_cost(model: Trainable, held_out: Sequence[Tensor]) -> tuple[float, dict[str, float]]:
    """Means of the main loss and of the scalars, with the same randomness every time."""
    device = next(model.parameters()).device
    rows: list[dict[str, float]] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        for image in held_out:
            unit = 255 if image.dtype == torch.uint8 else 1
            losses = model((image[None].to(device).float() / unit).contiguous(memory_format=torch.channels_last))
            rows.append({"main": float(losses.main), **{k: float(v) for k, v in losses.scalars.items()}})
    means = {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]}
    return means.pop("main"), means


def estimated(scalars: dict[str, float]) -> list[dict[str, Any]]:
    """One point, at no quality in particular, from what the model counts."""
    if not {"bpp", "psnr"} <= scalars.keys():
        return []
    return [{"quality": None, "bpp": scalars["bpp"], "psnr": scalars["psnr"]}]


@torch.no_grad()
def in_bytes(model: Trainable, samples: Sequence[Tensor], held_out: Sequence[Tensor], effort: int) -> list[dict[str, float]]:
    """Freeze, code, decode: means of bits a pixel of whole files and of PSNR, a target."""
    with tempfile.TemporaryDirectory(prefix="latentpress-") as folder:
        preset = Path(folder) / "validation"
        model.freeze(preset, samples, {})
        return measure(preset, held_out, model.targets, effort)


def measure(preset: Path, held_out: Sequence[Tensor], targets: Sequence[float], effort: int) -> list[dict[str, float]]:
    """Of a preset folder. PSNR of photographs is that of their range, of fields that of three deviations (which are 1) to either side."""
    from latentpress.codecs.registry import load_codec

    codec, points = load_codec(preset), []
    one = _field if codec.domain == "field" else _photograph
    for quality in targets:
        rates, scores = zip(*(one(codec, sample, quality, effort) for sample in held_out), strict=True)
        points.append({"quality": float(quality), "bpp": round(float(np.mean(rates)), 5), "psnr": round(float(np.mean(scores)), 4)})
    return points


def _photograph(codec: Any, image: Tensor, quality: float, effort: int) -> tuple[float, float]:
    """(bits a pixel of the whole file, PSNR)."""
    from latentpress import api

    data = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    blob = api.encode(data, codec=codec, quality=quality, effort=effort)
    return 8 * len(blob) / (data.shape[0] * data.shape[1]), _psnr(api.decode(blob, codec=codec).data, data, 255.0)


def _field(codec: Any, planes: Tensor, quality: float, effort: int) -> tuple[float, float]:
    """(bits a point of the planes that are there, PSNR)."""
    from latentpress import container
    from latentpress.codecs.base import Signal, Target

    data = np.ascontiguousarray(planes.numpy()[[bool(p.abs().max() > 0) for p in planes]])
    blob = container.write(codec.encode(Signal(data=data, dims=("plane", "y", "x")), Target(quality=quality), effort=effort))
    return 8 * len(blob) / data.size, _psnr(codec.decode(container.read(blob).encoded).data, data, 6.0)


def _psnr(decoded: Any, data: Any, peak: float) -> float:
    error = np.square(decoded.astype(np.float64) - data).mean()
    return float(10 * np.log10(peak**2 / max(error, 1e-9)))
