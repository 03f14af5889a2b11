"""Rows -> what was found: for each field and bound ours beside the best peer, medians over fields, exceedances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from latentpress.eval.climate.measure import setting_of
from latentpress.eval.climate.memory import memory_table
from latentpress.eval.peers.fields import not_available
from latentpress.eval.readme import table
from latentpress.eval.rows import Row

YARDSTICKS = ("sz3", "zfp", "sperr")  # what the targets are measured against
Figures = Mapping[str, Any]


def figures_of(rows: Sequence[Row], bounds: Sequence[float], own: str) -> dict[str, Any]:
    """What the figures hold of the grid of fields and bounds. own: name of our codec, "" for none."""
    bounded = {f"{b:g}": compared(rows, b, own) for b in bounds}
    lossless = compared(rows, 0, own)
    ours = [r for r in rows if r["codec"] == own and r["status"] == "ok"]
    return {
        "bounds": list(bounds),
        "pairs": len(ours),
        "exceedances": sum(r["exceedances"] for r in ours),
        "mask_errors": sum(r.get("mask_errors") or 0 for r in ours),
        "bounded": {b: {"summary": summary(e), "fields": e} for b, e in bounded.items()},
        "lossless": {"summary": summary(lossless), "fields": lossless},
        "failed": [f"{r['item']} {r['setting']} {r['codec']}: {r['error']}" for r in rows if r["status"] == "error"],
        "settings": {r["codec"]: r["options"] for r in rows},
        "own_codecs": list(dict.fromkeys(r["codec"] for r in rows if r["own"])),
        "not_available": not_available(),
        "versions": {r["codec"]: r["versions"] for r in rows},
    }


def compared(rows: Sequence[Row], percent: float, own: str) -> list[dict[str, Any]]:
    """One entry a field: ratios of all, the best of the yardsticks and the best of all peers, ours over each.

    Lossless (percent 0), every peer is a yardstick. A peer that broke its bound stays in, and the entry says by how many points.
    """
    here = [r for r in rows if r["setting"] == setting_of(percent) and r["status"] == "ok"]
    entries = []
    for item in dict.fromkeys(r["item"] for r in here):
        found = {r["codec"]: r for r in here if r["item"] == item}
        ours, peers = found.get(own), [r for r in found.values() if not r["own"]]
        entry: dict[str, Any] = {"item": item, "percent": percent, "ratios": {c: round(r["ratio"], 4) for c, r in found.items()}}
        entry["exceedances"] = {c: r["exceedances"] for c, r in found.items() if r["exceedances"]}
        for name, chosen in (("yardstick", [p for p in peers if p["codec"] in YARDSTICKS or not percent]), ("best", peers)):
            top = max(chosen, key=lambda r: r["ratio"], default=None)
            entry[name] = top["codec"] if top else None
            entry[f"over_{name}"] = round(ours["ratio"] / top["ratio"], 4) if ours and top else None
        entries.append(entry | {"ours": round(ours["ratio"], 4) if ours else None})
    return entries


def summary(entries: Sequence[Figures]) -> dict[str, Any]:
    """Of one bound: medians over fields, and the field on which ours does worst."""
    measured = [e for e in entries if e["over_yardstick"] is not None]
    found: dict[str, Any] = {"fields": len(entries), "median_yardstick": _median([e["ratios"][e["yardstick"]] for e in entries if e["yardstick"]])}
    found["fields_with_a_broken_yardstick"] = sum(e["yardstick"] in e["exceedances"] for e in entries)
    if measured:
        worst = min(measured, key=lambda e: e["over_yardstick"])
        found |= {"median": _median([e["ours"] for e in measured]), "median_over_yardstick": _median([e["over_yardstick"] for e in measured])}
        found |= {"median_over_best": _median([e["over_best"] for e in measured])}
        found |= {"worst_over_yardstick": worst["over_yardstick"], "worst_field": worst["item"]}
    return found


def _median(values: Sequence[float]) -> float | None:
    return round(median(values), 4) if values else None


def markdown(figures: Figures) -> str:
    """The README's block, from the figures alone: what of them is there."""
    parts = []
    if "grid" in figures:
        if not others_of(figures["grid"], figures["own"]) or _has_peers(figures["grid"]):
            parts += [bounded_table(figures["grid"]), _about(figures["grid"]), lossless_table(figures["grid"], figures["own"])]
        parts += [own_table(figures["grid"], figures["own"], other) for other in others_of(figures["grid"], figures["own"])]
    if "unbounded" in figures:
        parts.append(unbounded_table(figures["unbounded"]))
    if "single_planes" in figures:
        parts.append(_planes_line(figures["single_planes"]))
    if "speed" in figures:
        parts.append(speed_table(figures["speed"]))
    if "memory" in figures:
        parts.append(memory_table(figures["memory"]))
    return "\n\n".join(p for p in parts if p)


def bounded_table(found: Figures) -> str:
    """Fields down, bounds across: ratio of ours / best of the yardsticks with its name = quotient."""
    bounds = [f"{b:g}" for b in found["bounds"]]
    items = list(dict.fromkeys(e["item"] for b in bounds for e in found["bounded"][b]["fields"]))
    cells = {(e["item"], b): _cell(e) for b in bounds for e in found["bounded"][b]["fields"]}
    lines = [[f"`{i}`", *(cells.get((i, b), "") for b in bounds)] for i in items]
    return table(["field", *(f"{b} %" for b in bounds)], [*lines, ["**median**", *(_middle(found["bounded"][b]["summary"]) for b in bounds)]])


def _cell(entry: Figures) -> str:
    best = entry["yardstick"]
    peer = f"{entry['ratios'][best]:.1f} {best}{'*' if best in entry['exceedances'] else ''}" if best else ""
    if entry["ours"] is None:
        return peer
    return f"{entry['ours']:.1f} / {peer} = **{entry['over_yardstick']:.2f}**" if best else f"{entry['ours']:.1f}"


def _middle(found: Figures) -> str:
    over = found.get("median_over_yardstick")
    return f"**{over:.2f}** (least {found['worst_over_yardstick']:.2f})" if over is not None else f"{found['median_yardstick'] or 0:.1f}"


def others_of(found: Figures, own: str) -> list[str]:
    """Our codecs in the grid besides the first."""
    return [c for c in found.get("own_codecs", ()) if c != own]


def _has_peers(found: Figures) -> bool:
    return any(e["best"] for b in found["bounded"].values() for e in b["fields"])


def own_table(found: Figures, own: str, other: str) -> str:
    """Fields down, bounds across: ratio of another codec of ours / the first = quotient."""
    bounds = [f"{b:g}" for b in found["bounds"]]
    ratios = {(e["item"], b): e["ratios"] for b in bounds for e in found["bounded"][b]["fields"]}
    items = list(dict.fromkeys(item for item, _ in ratios))
    both = {k: r for k, r in ratios.items() if own in r and other in r}
    cells = {k: f"{r[other]:.1f} / {r[own]:.1f} = {'**' if r[other] > r[own] else ''}{r[other] / r[own]:.2f}{'**' if r[other] > r[own] else ''}"
             for k, r in both.items()}  # fmt: skip
    lines = [[f"`{i}`", *(cells.get((i, b), "") for b in bounds)] for i in items if any((i, b) in both for b in bounds)]
    middles = [_median([r[other] / r[own] for (_, at), r in both.items() if at == b]) for b in bounds]
    rows = [*lines, ["**median**", *("" if m is None else f"{m:.2f}" for m in middles)]]
    pairs = sum(e["exceedances"].get(other, 0) for b in bounds for e in found["bounded"][b]["fields"])
    return table([f"{other} / {own}", *(f"{b} %" for b in bounds)], rows) + f"\n\nRatios as above; {pairs} points of `{other}` beyond a bound."


def _about(found: Figures) -> str:
    middles = {b: v["summary"]["median_over_best"] for b, v in found["bounded"].items() if "median_over_best" in v["summary"]}
    over = "; ".join(f"{b} %: {m:.2f}" for b, m in middles.items())
    return (
        "Float32 bytes over compressed bytes at pointwise bounds in percent of each variable's standard deviation: ours / best of SZ3, ZFP, SPERR; "
        f"of the peers the payload alone counts. {found['pairs']} field-bound pairs of ours (lossless included): {found['exceedances']} points "
        f"beyond a bound, {found['mask_errors']} wrong mask points; * marks a peer that broke its own bound."
        + (f" Median over the best of all peers, JPEG 2000, bit rounding and pcodec included: {over}." if over else "")
    )


def lossless_table(found: Figures, own: str) -> str:
    """Fields down; ours and each lossless peer across."""
    entries = found["lossless"]["fields"]
    codecs = sorted(dict.fromkeys(c for e in entries for c in e["ratios"]), key=lambda c: c != own)
    if not codecs:
        return ""
    lines = [[f"`{e['item']}`", *(f"{e['ratios'][c]:.2f}" if c in e["ratios"] else "" for c in codecs), _number(e["over_best"])] for e in entries]
    middle = ["**median**", *[""] * len(codecs), _number(found["lossless"]["summary"].get("median_over_best"))]
    return table(["lossless", *codecs, "ours / best"], [*lines, middle])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def unbounded_table(found: Figures) -> str:
    codecs = list(dict.fromkeys(c for r in found["ratios"].values() for c in r))
    lines = [[f"`{i}`", *("-" if r.get(c) is None else f"{r[c]:.0f}" for c in codecs)] for i, r in found["ratios"].items()]
    return table([f"ratio at normalised MSE <= {found['limit']:g}", *codecs], lines)


def _planes_line(found: Figures) -> str:
    medians = ", ".join(f"{setting.removeprefix('bound=')}: {over:.2f}" for setting, over in found["medians"].items())
    return f"Single fields beside the published figures, ours over the best, median: {medians}." if medians else ""


def speed_table(found: Figures) -> str:
    """The largest size alone, and how cost grows."""
    largest = max((e["shape"] for e in found["costs"]), key=lambda s: s[0] * s[1])
    lines = []
    for e in found["costs"]:
        if e["shape"] == largest:
            numbers = [e["encode_s"], e["decode_s"], e["encode_cpu_s"], e["decode_cpu_s"], *found["slopes"][e["codec"]].values()]
            lines.append([e["codec"], *(f"{x:.2f}" for x in numbers)])
    header = ["x".join(map(str, largest)), "encode, s", "decode, s", "encode, processor s", "decode, processor s", "encode, growth", "decode, growth"]
    about = (
        f"`{found['field']}` at {found['percent']:g} %, {found['costs'][0]['threads']} threads, medians of {found['repeats']}. Processor "
        "seconds are of all threads; growth: their exponent in points, from a sixteenth of the field upwards (1: constant cost a point)."
    )
    return f"{table(header, lines)}\n\n{about}"
