"""Rows and curves for other programs: CSV of every row, and a JSON file a codec as CompressAI's `results/` lays them out."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from latentpress.eval.curves import Point
from latentpress.eval.report.load import Bench
from latentpress.eval.report.summary import Summary
from latentpress.eval.rows import Row

COMPRESSAI = {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}  # its names of our metrics; others keep theirs
_SHAPE = ("height", "width", "bands")


def csv_text(bench: Bench) -> str:
    """A header and one line a row, those with errors too: scalars as they are, shape as three columns, versions and machine as JSON."""
    rows = [_flat(r) for r in (*bench.rows, *bench.errors)]
    columns = list(dict.fromkeys(name for r in rows for name in r))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "shape":
            flat |= dict(zip(_SHAPE, [*(value or ()), None, None, None], strict=False))
        else:
            flat[name] = json.dumps(value) if isinstance(value, dict | list) else value
    return flat


def compressai_files(summary: Summary) -> dict[str, str]:
    """File name -> text, one a codec: name, description, results {bpp, psnr-rgb, ms-ssim-rgb, ..., encoding_time, decoding_time}.

    Lists by rising rate, means over the items; times in seconds an item. A metric that a point lacks is left out for that codec.
    """
    names = file_names(summary.codecs)
    return {f"{names[c]}.json": json.dumps(_compressai(summary, c), indent=2) + "\n" for c in summary.codecs}


def file_names(codecs: Sequence[str]) -> dict[str, str]:
    """Codec -> a name that is safe in a folder and unlike all others."""
    names: dict[str, str] = {}
    for codec in codecs:
        name = base = re.sub(r"[^A-Za-z0-9.]+", "-", codec).strip("-.") or "codec"
        number = 2
        while name.lower() in {n.lower() for n in names.values()}:
            name, number = f"{base}-{number}", number + 1
        names[codec] = name
    return names


def _compressai(summary: Summary, codec: str) -> dict[str, Any]:
    points = summary.curves[codec]
    results: dict[str, list[float]] = {"bpp": [p.bpp for p in points]}
    for metric in summary.bench.metrics:
        values = [p.means[metric] for p in points if metric in p.means]
        if len(values) == len(points):
            results[COMPRESSAI.get(metric, metric)] = values
    for kind, name in (("encode_s", "encoding_time"), ("decode_s", "decoding_time")):
        results[name] = [_mean_seconds(summary, codec, p, kind) for p in points]
    settings = ", ".join(p.setting for p in points)
    return {"name": codec, "description": f"mean of {len(summary.selection.items)} items at {settings}; whole files", "results": results}


def _mean_seconds(summary: Summary, codec: str, point: Point, kind: str) -> float:
    seconds = [float(r[kind]) for r in summary.selection.rows if (r["codec"], r["setting"]) == (codec, point.setting)]
    return sum(seconds) / len(seconds)
