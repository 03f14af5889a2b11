"""Which rows curves are made of: every point of every curve must be a mean over the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentpress.eval.rows import Row


@dataclass(frozen=True, kw_only=True)
class Selection:
    """items: those that every kept setting has; rows: theirs; notes: what was left out, in words."""

    items: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def comparable(rows: Sequence[Row], items: Sequence[str]) -> Selection:
    """Settings that lack more than half of the items go first, then the items that a kept setting lacks."""
    measured: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        measured.setdefault((row["codec"], row["setting"]), set()).add(row["item"])
    known = [i for i in dict.fromkeys([*items, *(r["item"] for r in rows)]) if any(i in m for m in measured.values())]
    kept = {s for s, m in measured.items() if 2 * len(m) > len(known)}
    common = [i for i in known if all(i in measured[s] for s in kept)]
    if not common or not kept:  # a run at its beginning: whatever is complete for the item that most settings have
        item = max(known, key=lambda i: sum(i in m for m in measured.values()))
        common, kept = [item], {s for s, m in measured.items() if item in m}
    return Selection(
        items=tuple(common),
        rows=tuple(r for r in rows if (r["codec"], r["setting"]) in kept and r["item"] in common),
        notes=tuple(_notes(measured, kept, known, common)),
    )


def _notes(measured: dict[tuple[str, str], set[str]], kept: set[tuple[str, str]], known: Sequence[str], common: Sequence[str]) -> list[str]:
    notes = [f"{c} {s}: measured on {len(m)} of {len(known)} items, left out of the curves" for (c, s), m in measured.items() if (c, s) not in kept]
    absent = [i for i in known if i not in common]
    if absent:
        notes.append(f"curves are means over {len(common)} of {len(known)} items; not measured at every setting: {', '.join(absent)}")
    return notes
