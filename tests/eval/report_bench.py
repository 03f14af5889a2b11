"""A bench folder as `latentpress bench` leaves it, with curves that are easy to predict, and a codec that quantises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from latentpress.errors import InputError
from latentpress.eval.report.pictures import Coded
from tests.eval.fakes import photograph

CODECS = {"jpeg": 2.0, "webp": 1.4, "walloc-rgb, effort 2": 1.0}  # codec -> bytes against ours at equal quality
ITEMS = ("kodim01", "kodim02", "kodim03")
RATES = (0.1, 0.2, 0.4, 0.8)
SHAPE = (48, 64, 3)
MACHINE = {"system": "Linux", "architecture": "x86_64", "cores": 2, "cpu": "Some CPU"}


def row(codec: str, rate: float, item: str, **changes: Any) -> dict[str, Any]:
    """Every codec has the same qualities at `rate`; its bytes are CODECS[codec] times as many; items differ by a constant."""
    factor = CODECS.get(codec, 1.0)
    shift = int(item[-1])
    bpp = rate * factor * (1 + shift / 10)
    good: dict[str, Any] = {
        "schema": 1, "domain": "image", "codec": codec, "digest": "d1", "setting": f"rate={rate:g}", "item": item, "item_digest": f"i{shift}",
        "status": "ok", "error": None, "shape": list(SHAPE), "bytes": round(bpp * SHAPE[0] * SHAPE[1] / 8), "bpp": bpp,
        "psnr": 36 + 10 * math.log10(rate) + shift, "ms_ssim": 1 - 0.02 / rate ** 0.5, "lpips": 0.05 / rate,
        "encode_s": 0.002 / factor, "decode_s": 0.001, "runs": 3, "peak_bytes": 1 << 20, "threads": 1, "versions": {codec: "1.0"}, "machine": MACHINE,
    }  # fmt: skip
    if codec.startswith("walloc"):
        good |= {"encode_entropy_s": 0.0005, "decode_entropy_s": 0.0004}
    return good | changes


def all_rows() -> list[dict[str, Any]]:
    return [row(c, r, i) for c in CODECS for r in RATES for i in ITEMS]


def failed(item: str = "kodim02", **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("bytes", "bpp", "psnr", "ms_ssim", "lpips", "encode_s", "decode_s"))
    return row("webp", 0.1, item) | nothing | {"status": "error", "error": "OSError: <encoder> refused"} | changes


def manifest(folder: Path) -> dict[str, Any]:
    return {
        "schema": 1, "latentpress": "0.0.1", "domain": "image", "command": "latentpress bench kodak -o out", "data": "data/kodak",
        "codecs": [
            {"codec": c, "own": c.startswith("walloc"), "spec": c.partition(",")[0], "settings": [f"rate={r:g}" for r in RATES], "digests": ["d1"]}
            for c in CODECS
        ],
        "items": [{"item": i, "item_digest": f"i{i[-1]}", "path": str(folder / f"{i}.png")} for i in ITEMS],
        "metrics": ["psnr", "ms_ssim", "lpips"], "threads": 1, "jobs": 1,
    }  # fmt: skip


def write_bench(folder: Path, rows: Iterable[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """bench.json, rows.jsonl and the pictures themselves in `folder`."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(manifest(folder) | changes), "utf-8")
    lines = [json.dumps(r) for r in (all_rows() if rows is None else rows)]
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    for number, item in enumerate(ITEMS):
        Image.fromarray(photograph(SHAPE[0], SHAPE[1], seed=number)).save(folder / f"{item}.png")
    return folder


def quantiser(codec: str, image: np.ndarray, budget: int) -> Coded:
    """A provider: each codec keeps another number of bits; webp is not to be had."""
    if codec == "webp":
        raise InputError("webp: encoder is gone")
    step = 64 if codec == "jpeg" else 16
    return Coded(bytes=budget - step, setting=f"step={step}", decoded=(image // step * step + step // 2).astype(np.uint8))
