"""Rows -> everything the page, the static figures and the exports show, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentpress.eval.bd import METHODS, Delta, Method
from latentpress.eval.curves import Point, bd_table, mean_curves
from latentpress.eval.quality import Quality, qualities
from latentpress.eval.report.load import Bench
from latentpress.eval.report.palette import Look, looks
from latentpress.eval.report.select import Selection, comparable
from latentpress.eval.rows import Row

Table = dict[str, dict[str, Delta | str]]  # codec -> anchor -> delta or refusal


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Megapixels a second of one setting over all items; entropy: share of that time in the entropy coder, None where not measured."""

    encode: float | None
    decode: float | None
    encode_entropy: float | None
    decode_entropy: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """codecs: those with a curve, in manifest order; speeds: codec -> in the order of its points; bd: quality key -> method -> table."""

    bench: Bench
    selection: Selection
    codecs: tuple[str, ...]
    looks: dict[str, Look]
    qualities: tuple[Quality, ...]
    curves: dict[str, list[Point]]
    speeds: dict[str, list[Speed]]
    bd: dict[str, dict[Method, Table]]
    notes: tuple[str, ...]


def summarise(bench: Bench) -> Summary:
    selection = comparable(bench.rows, [i["item"] for i in bench.manifest["items"]])
    axes = tuple(qualities(bench.metrics))
    found = mean_curves(selection.rows, selection.items, bench.metrics)
    curves = {c: found[c] for c in bench.codecs if c in found}
    silent = [f"{c}: no measurement" for c in bench.codecs if c not in curves]
    return Summary(
        bench=bench,
        selection=selection,
        codecs=tuple(curves),
        looks=looks(bench.codecs, bench.own),
        qualities=axes,
        curves=curves,
        speeds={c: [_speed([r for r in selection.rows if (r["codec"], r["setting"]) == (c, p.setting)]) for p in ps] for c, ps in curves.items()},
        bd={q.key: {m: bd_table(curves, list(curves), q, m) for m in METHODS} for q in axes},
        notes=(*bench.notes, *selection.notes, *silent),
    )


def _speed(rows: Sequence[Row]) -> Speed:
    megapixels = sum(r["shape"][0] * r["shape"][1] for r in rows) / 1e6
    return Speed(
        encode=_ratio(megapixels, _total(rows, "encode_s")),
        decode=_ratio(megapixels, _total(rows, "decode_s")),
        encode_entropy=_ratio(_total(rows, "encode_entropy_s"), _total(rows, "encode_s")),
        decode_entropy=_ratio(_total(rows, "decode_entropy_s"), _total(rows, "decode_s")),
    )


def _total(rows: Sequence[Row], name: str) -> float | None:
    """Sum over the rows, None unless each has a number."""
    values = [r.get(name) for r in rows]
    numbers = [v for v in values if isinstance(v, int | float)]
    return float(sum(numbers)) if len(numbers) == len(values) else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
