"""Rows of single images -> mean curves -> table of BD-rates.

Convention: at each setting bits per pixel and PSNR are averaged over the images; the Bjontegaard delta is taken of those mean curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from latentpress.errors import InputError
from latentpress.eval.bd import Curve, Delta, bd_rate
from latentpress.eval.rows import Row


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of one codec. bpp, psnr: means over the images; bytes_by_image, psnr_by_image: what they are means of, in image order."""

    setting: str
    bpp: float
    psnr: float
    bytes_by_image: list[int]
    psnr_by_image: list[float]


def mean_point(rows: Sequence[Row], images: Sequence[str]) -> Point:
    """The mean of one setting's rows. Raises InputError unless there is exactly one row for each of `images`."""
    by_image = {r["image"]: r for r in rows}
    if len(rows) != len(images) or set(by_image) != set(images):
        raise InputError(f"{len(rows)} rows of {len(by_image)} images, one for each of {len(images)} expected")
    ordered = [by_image[i] for i in images]
    return Point(
        setting=ordered[0]["setting"],
        bpp=sum(r["bpp"] for r in ordered) / len(ordered),
        psnr=sum(r["psnr"] for r in ordered) / len(ordered),
        bytes_by_image=[r["bytes"] for r in ordered],
        psnr_by_image=[r["psnr"] for r in ordered],
    )


def mean_curves(rows: Iterable[Row], images: Sequence[str]) -> dict[str, list[Point]]:
    """Codec -> points by rising rate."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["codec"], {}).setdefault(row["setting"], []).append(row)
    return {
        codec: sorted((mean_point(r, images) for r in settings.values()), key=lambda p: p.bpp) for codec, settings in groups.items()
    }


def rising(points: Sequence[Point]) -> list[Point]:
    """Points without those that cost more rate and give no more quality (a codec's scale may have such steps)."""
    kept = list(points[:1])
    for point in points[1:]:
        if point.bpp > kept[-1].bpp and point.psnr > kept[-1].psnr:
            kept.append(point)
    return kept


def as_curve(codec: str, points: Sequence[Point]) -> Curve:
    kept = rising(points)
    return Curve(name=codec, rate=[p.bpp for p in kept], quality=[p.psnr for p in kept])


def bd_table(curves: Mapping[str, Sequence[Point]], anchors: Sequence[str]) -> dict[str, dict[str, Delta | str]]:
    """codec -> anchor -> BD-rate, or the reason why there is none. A codec is not compared with itself."""
    table: dict[str, dict[str, Delta | str]] = {}
    for codec, points in curves.items():
        row = table.setdefault(codec, {})
        for anchor in anchors:
            if anchor != codec and anchor in curves:
                try:
                    row[anchor] = bd_rate(as_curve(anchor, curves[anchor]), as_curve(codec, points))
                except InputError as refusal:
                    row[anchor] = str(refusal)
    return table


def psnr_at(points: Sequence[Point], bpp: float) -> float | None:
    """dB at a rate, linear in log rate between the two neighbouring points; None outside the curve."""
    for a, b in pairwise(rising(points)):
        if a.bpp <= bpp <= b.bpp:
            return a.psnr + (b.psnr - a.psnr) * log(bpp / a.bpp) / log(b.bpp / a.bpp)
    return None
