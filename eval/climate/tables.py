"""Rows -> what was found: for each field and bound ours beside the best peer, medians over fields, exceedances, the lossless table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from latentpress.eval.climate.measure import setting_of
from latentpress.eval.readme import table
from latentpress.eval.rows import Row

YARDSTICKS = ("sz3", "zfp", "sperr")  # what the targets are measured against


def compared(rows: Sequence[Row], percent: float, own: str) -> list[dict[str, Any]]:
    """One entry a field: ratio of ours, the best of the yardsticks and the best of all peers with their names, ours over each.

    own: name of our codec; where it has no row the entries are of the peers alone. A peer that broke its bound stays in, and the entry says so.
    """
    here = [r for r in rows if r["setting"] == setting_of(percent) and r["status"] == "ok"]
    entries = []
    for item in dict.fromkeys(r["item"] for r in here):
        peers = {r["codec"]: r for r in here if r["item"] == item and not r["own"]}
        ours = next((r for r in here if r["item"] == item and r["codec"] == own), None)
        entry: dict[str, Any] = {"item": item, "percent": percent, "ours": _rounded(ours), "exceedances": ours["exceedances"] if ours else None}
        for name, chosen in (("yardstick", [p for n, p in peers.items() if n in YARDSTICKS or not percent]), ("best", list(peers.values()))):
            top = max(chosen, key=lambda r: r["ratio"], default=None)
            entry[name] = {"codec": top["codec"], "ratio": _rounded(top), "exceedances": top["exceedances"]} if top else None
            entry[f"over_{name}"] = round(ours["ratio"] / top["ratio"], 4) if ours and top else None
        entries.append(entry)
    return entries


def _rounded(row: Row | None) -> float | None:
    return round(row["ratio"], 4) if row else None


def summary(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of one bound: medians and the worst field of ours over the peers, points of ours beyond the bound."""
    measured = [e for e in entries if e["over_yardstick"] is not None]
    found: dict[str, Any] = {"fields": len(entries), "pairs_of_ours": len(measured)}
    found["median_yardstick_ratio"] = _median([e["yardstick"]["ratio"] for e in entries if e["yardstick"]])
    found["fields_with_a_broken_yardstick"] = sum(bool(e["yardstick"] and e["yardstick"]["exceedances"]) for e in entries)
    if measured:
        worst = min(measured, key=lambda e: e["over_yardstick"])
        found |= {"median_ratio": _median([e["ours"] for e in measured]), "median_over_yardstick": _median([e["over_yardstick"] for e in measured])}
        found |= {"median_over_best": _median([e["over_best"] for e in measured]), "worst_over_yardstick": worst["over_yardstick"]}
        found |= {"worst_field": worst["item"], "exceedances": sum(e["exceedances"] for e in measured)}
    return found


def _median(values: Sequence[float]) -> float | None:
    return round(median(values), 4) if values else None


def bounded_table(figures: Mapping[str, Any]) -> str:
    """Fields down, bounds across: ratio of ours, best of the yardsticks with its name, ours over it."""
    bounds = figures["bounds"]
    by_item: dict[str, dict[str, Any]] = {}
    for bound in bounds:
        for e in figures["bounded"][f"{bound:g}"]["fields"]:
            by_item.setdefault(e["item"], {})[f"{bound:g}"] = e
    header = ["field", *(f"{b:g} %" for b in bounds)]
    lines = [[f"`{item}`", *(_cell(entries.get(f"{b:g}")) for b in bounds)] for item, entries in by_item.items()]
    medians = [_summary_cell(figures["bounded"][f"{b:g}"]["summary"]) for b in bounds]
    return table(header, [*lines, ["**median**", *medians]])


def _cell(entry: Mapping[str, Any] | None) -> str:
    if not entry or not entry["yardstick"]:
        return ""
    peer = f"{entry['yardstick']['ratio']:.1f} {entry['yardstick']['codec']}{'*' if entry['yardstick']['exceedances'] else ''}"
    if entry["ours"] is None:
        return peer
    return f"{entry['ours']:.1f} / {peer} = **{entry['over_yardstick']:.2f}**"


def _summary_cell(found: Mapping[str, Any]) -> str:
    over = found.get("median_over_yardstick")
    return f"**{over:.2f}** (least {found['worst_over_yardstick']:.2f})" if over is not None else f"{found['median_yardstick_ratio'] or 0:.1f}"


def lossless_table(figures: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Fields down; ours and each lossless peer across."""
    here = [r for r in rows if r["setting"] == setting_of(0) and r["status"] == "ok"]
    codecs = list(dict.fromkeys(sorted((r["codec"] for r in here), key=lambda c: c != figures["own"])))
    found = {(r["item"], r["codec"]): r["ratio"] for r in here}
    items = [e["item"] for e in figures["lossless"]["fields"]]
    cells = {i: [f"{found[i, c]:.2f}" if (i, c) in found else "" for c in codecs] for i in items}
    lines = [[f"`{e['item']}`", *cells[e["item"]], _over(e)] for e in figures["lossless"]["fields"]]
    return table(["field", *codecs, "ours / best"], lines)


def _over(entry: Mapping[str, Any]) -> str:
    return "" if entry["over_best"] is None else f"{entry['over_best']:.2f}"
