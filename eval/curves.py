"""Rows of single items -> mean curves -> table of BD-rates.

Convention: at each setting bits per pixel and quality are averaged over the items; the Bjontegaard delta is taken of those mean curves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log

from latentpress.errors import InputError
from latentpress.eval.bd import Curve, Delta, Method, bd_rate
from latentpress.eval.quality import PSNR, Quality
from latentpress.eval.rows import Row


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of one codec. bpp, psnr: means over the items; bytes_by_image, psnr_by_image: what they are means of, in item order.

    means: metric -> mean over the items, of those asked for that every item has a finite value of.
    """

    setting: str
    bpp: float
    psnr: float
    bytes_by_image: list[int]
    psnr_by_image: list[float]
    means: dict[str, float] = field(default_factory=dict)


def mean_point(rows: Sequence[Row], items: Sequence[str], metrics: Sequence[str] = ()) -> Point:
    """The mean of one setting's rows. Raises InputError unless there is exactly one row for each of `items`."""
    by_item = {r["item"]: r for r in rows}
    if len(rows) != len(items) or set(by_item) != set(items):
        raise InputError(f"{len(rows)} rows of {len(by_item)} items, one for each of {len(items)} expected")
    ordered = [by_item[i] for i in items]
    psnrs = [math.inf if (value := r.get("psnr")) is None else value for r in ordered]  # null: lossless, or not measured
    return Point(
        setting=ordered[0]["setting"],
        bpp=sum(r["bpp"] for r in ordered) / len(ordered),
        psnr=sum(psnrs) / len(ordered),
        bytes_by_image=[r["bytes"] for r in ordered],
        psnr_by_image=psnrs,
        means={m: mean for m in metrics if (mean := _mean_of(m, ordered)) is not None},
    )


def _mean_of(metric: str, rows: Sequence[Row]) -> float | None:
    values = [r.get(metric) for r in rows]
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else None


def mean_curves(rows: Iterable[Row], items: Sequence[str], metrics: Sequence[str] = ()) -> dict[str, list[Point]]:
    """Codec -> points by rising rate."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["codec"], {}).setdefault(row["setting"], []).append(row)
    return {
        codec: sorted((mean_point(r, items, metrics) for r in settings.values()), key=lambda p: p.bpp) for codec, settings in groups.items()
    }


def rising(points: Sequence[Point], quality: Quality = PSNR) -> list[Point]:
    """Points without those that cost more rate and give no more quality (a codec's scale may have such steps) or have no finite quality."""
    kept: list[Point] = []
    best = -math.inf
    for point in points:
        value = _rising_value(point, quality)
        if value is not None and value > best and (not kept or point.bpp > kept[-1].bpp):
            kept.append(point)
            best = value
    return kept


def _rising_value(point: Point, quality: Quality) -> float | None:
    value = point.psnr if quality.metric == "psnr" else point.means.get(quality.metric)
    return None if value is None else quality.rising(value)


def as_curve(codec: str, points: Sequence[Point], quality: Quality = PSNR) -> Curve:
    kept = rising(points, quality)
    values = [v for p in kept if (v := _rising_value(p, quality)) is not None]
    return Curve(name=codec, rate=[p.bpp for p in kept], quality=values, unit=curve_unit(quality))


def curve_unit(quality: Quality) -> str:
    """Name of the scale a Bjontegaard delta of `quality` is taken over."""
    if quality.metric == "psnr":
        return "dB"
    return f"-{quality.label}" if quality.lower_is_better else f"{quality.label} in dB" if quality.metric in ("ms_ssim", "ssim") else quality.label


def bd_table(
    curves: Mapping[str, Sequence[Point]], anchors: Sequence[str], quality: Quality = PSNR, method: Method = "pchip"
) -> dict[str, dict[str, Delta | str]]:
    """codec -> anchor -> BD-rate, or the reason why there is none. A codec is not compared with itself."""
    table: dict[str, dict[str, Delta | str]] = {}
    for codec, points in curves.items():
        row = table.setdefault(codec, {})
        for anchor in anchors:
            if anchor != codec and anchor in curves:
                try:
                    row[anchor] = bd_rate(as_curve(anchor, curves[anchor], quality), as_curve(codec, points, quality), method=method)
                except InputError as refusal:
                    row[anchor] = str(refusal)
    return table


def psnr_at(points: Sequence[Point], bpp: float) -> float | None:
    """dB at a rate, linear in log rate between the two neighbouring points; None outside the curve."""
    for a, b in pairwise(rising(points)):
        if a.bpp <= bpp <= b.bpp:
            return a.psnr + (b.psnr - a.psnr) * log(bpp / a.bpp) / log(b.bpp / a.bpp)
    return None
