"""The words of the page: what was measured, what was left out, what failed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from latentpress.eval.report.summary import Summary
from latentpress.eval.rows import Row


def headline(summary: Summary) -> tuple[str, str]:
    """Title and the line below it: what, on what, and what its timings mean."""
    bench = summary.bench
    data = Path(str(bench.manifest.get("data", bench.folder))).name or str(bench.folder)
    count = len(summary.selection.items)
    items = f"{count} {bench.manifest.get('domain', 'image')}{'s' if count != 1 else ''}"
    measured = f"{len(summary.codecs)} codecs on {items}; sizes of whole files, quality of what decoding gives"
    machines = _distinct(_machine(r.get("machine")) for r in bench.rows)
    where = f"on {machines[0]}: " if len(machines) == 1 else f"on {len(machines)} machines: " if machines else "with "
    timed = _timing(bench.rows)
    return f"Rate and distortion, {data}", f"{measured}." + (f" Timed {where}{timed}." if timed else "")


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Name and value, in the order of the page; what no row states is left out."""
    manifest, rows = summary.bench.manifest, summary.bench.rows
    versions = [(k, str(v)) for r in rows for k, v in (r.get("versions") or {}).items()]
    if manifest.get("latentpress"):
        versions.insert(0, ("latentpress", str(manifest["latentpress"])))
    found = [
        ("data", str(manifest.get("data", ""))),
        ("items", _items(summary)),
        ("rows", f"{len(rows)} measured, {len(summary.bench.errors)} with errors"),
        ("timing", _timing(rows)),
        ("machine", "; ".join(_distinct(_machine(r.get("machine")) for r in rows))),
        ("versions", ", ".join(_distinct(f"{k} {v}" for k, v in versions if not k.endswith(" weights")))),
        ("weights", ", ".join(_distinct(f"{k.removesuffix(' weights')} {v[:16]}" for k, v in versions if k.endswith(" weights")))),
        ("command", str(manifest.get("command", ""))),
    ]
    return [(name, value) for name, value in found if value]


def _items(summary: Summary) -> str:
    shapes = [r["shape"] for r in summary.selection.rows]
    megapixels = sorted({s[0] * s[1] / 1e6 for s in shapes})
    size = f"{megapixels[0]:.2f}" if len(megapixels) == 1 else f"{megapixels[0]:.2f} to {megapixels[-1]:.2f}"
    return f"{', '.join(summary.selection.items)} ({size} megapixels each)"


def _timing(rows: Sequence[Row]) -> str:
    threads, runs = (_distinct(str(r[k]) for r in rows if r.get(k)) for k in ("threads", "runs"))
    parts = [f"{' or '.join(threads)} thread{'' if threads == ['1'] else 's'}"] if threads else []
    if runs:
        parts.append("single runs" if runs == ["1"] else f"medians of {' or '.join(runs)} runs")
    return ", ".join(parts)


def _machine(machine: Any) -> str:
    if not isinstance(machine, dict):
        return ""
    cores = f"{machine['cores']} cores" if machine.get("cores") else ""
    return ", ".join(str(v) for v in (machine.get("cpu"), cores, machine.get("system"), machine.get("architecture")) if v)


def _distinct(values: Iterable[str]) -> list[str]:
    return [v for v in dict.fromkeys(values) if v]


def fact_list(summary: Summary) -> str:
    return "".join(f"<dt>{html.escape(k)}</dt><dd>{_code(v) if k == 'command' else html.escape(v)}</dd>" for k, v in facts(summary))


def _code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>"


def note_list(summary: Summary) -> str:
    if not summary.notes:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{html.escape(n)}</li>" for n in summary.notes) + "</ul>"


def error_table(summary: Summary) -> str:
    """Section of failed rows, empty where all went well."""
    if not summary.bench.errors:
        return ""
    cells = ("codec", "setting", "item", "error")
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(str(r.get(c) or ''))}</td>" for c in cells) + "</tr>" for r in summary.bench.errors)
    head = "".join(f"<th>{c}</th>" for c in cells)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<section id="errors"><h2>Errors</h2><div class="scroll">{table}</div></section>'
