"""Summary and pictures -> the JSON that page.js draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentpress.eval.bd import Delta
from latentpress.eval.curves import Point
from latentpress.eval.quality import Quality
from latentpress.eval.report.pictures import Picture
from latentpress.eval.report.summary import Speed, Summary, Table
from latentpress.eval.rows import Row


def page_model(summary: Summary, pictures: Sequence[Picture], anchor: str) -> dict[str, Any]:
    """Plain lists, dicts, strings and numbers; anchor: the codec whose column of the BD matrix comes first."""
    ordered = [c for c in summary.codecs if c == anchor] + [c for c in summary.codecs if c != anchor]
    return {
        "codecs": [_codec(summary, c) for c in summary.codecs],
        "anchors": ordered,
        "qualities": [_quality(q) for q in summary.qualities],
        "curves": {
            c: [_point(p, s, summary.qualities) for p, s in zip(summary.curves[c], summary.speeds[c], strict=True)] for c in summary.codecs
        },
        "bd": {q.key: {m: _matrix(t, q) for m, t in summary.bd[q.key].items()} for q in summary.qualities},
        "items": _items(summary),
        "pictures": [_picture(p) for p in pictures],
    }


def _codec(summary: Summary, name: str) -> dict[str, Any]:
    look = summary.looks[name]
    return {"name": name, "own": look.own, "light": look.light, "dark": look.dark, "symbol": look.symbol, "dash": look.dash}


def _quality(quality: Quality) -> dict[str, Any]:
    return {"key": quality.key, "label": quality.label, "unit": quality.unit, "digits": quality.digits, "lower": quality.lower_is_better}


def _point(point: Point, speed: Speed, qualities: Sequence[Quality]) -> dict[str, Any]:
    values = {q.key: _shown(q, point.means.get(q.metric)) for q in qualities}
    return {
        "setting": point.setting, "bpp": round(point.bpp, 6), "q": values, "encode": _short(speed.encode), "decode": _short(speed.decode),
        "encode_entropy": _short(speed.encode_entropy), "decode_entropy": _short(speed.decode_entropy),
    }  # fmt: skip


def _shown(quality: Quality, value: float | None) -> float | None:
    shown = None if value is None else quality.shown(value)
    return None if shown is None else round(shown, 6)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _matrix(table: Table, quality: Quality) -> dict[str, dict[str, Any]]:
    return {codec: {anchor: _cell(d, quality) for anchor, d in row.items()} for codec, row in table.items()}


def _cell(delta: Delta | str, quality: Quality) -> dict[str, Any]:
    if isinstance(delta, str):
        return {"why": delta}
    ends = sorted((quality.from_rising(delta.low), quality.from_rising(delta.high)))
    return {"value": round(delta.value, 3), "low": round(ends[0], 4), "high": round(ends[1], 4), "share": round(delta.share, 3)}


def _items(summary: Summary) -> list[dict[str, Any]]:
    """One entry an item that has rows: size, and codec -> its points as [bpp, bytes, setting, values by quality], by rising rate."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in summary.bench.rows:
        groups.setdefault(row["item"], {}).setdefault(row["codec"], []).append(row)
    asked = [i["item"] for i in summary.bench.manifest["items"]]
    names = [i for i in dict.fromkeys([*asked, *groups]) if i in groups]
    return [{"item": n, "shape": _shape(groups[n]), "points": {c: _item_points(r, summary.qualities) for c, r in groups[n].items()}} for n in names]


def _shape(by_codec: dict[str, list[Row]]) -> list[int]:
    return list(next(iter(by_codec.values()))[0]["shape"])


def _item_points(rows: Sequence[Row], qualities: Sequence[Quality]) -> list[list[Any]]:
    ordered = sorted(rows, key=lambda r: float(r["bpp"]))
    return [[round(r["bpp"], 6), r["bytes"], r["setting"], [_shown(q, r.get(q.metric)) for q in qualities]] for r in ordered]


def _picture(picture: Picture) -> dict[str, Any]:
    sides = [{"name": s.name, "caption": s.caption, "source": s.source, "missing": s.missing} for s in picture.sides]
    return {"item": picture.item, "note": picture.note, "width": picture.width, "height": picture.height, "sides": sides}
