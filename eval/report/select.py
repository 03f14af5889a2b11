"""Which rows curves are made of: every point of every curve must be a mean over the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentpress.eval.rows import Row

Setting = tuple[str, str]  # codec, setting


@dataclass(frozen=True, kw_only=True)
class Selection:
    """items: those that every kept setting has; rows: theirs; notes: what was left out, in words."""

    items: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def comparable(rows: Sequence[Row], items: Sequence[str]) -> Selection:
    """The items and settings, each setting measured on each item, that keep the most rows.

    Items are tried by how many settings have them: of a run that goes on, those that are finished; where one setting failed on one item,
    all items without that setting. items: the order wanted, any other follows.
    """
    measured: dict[Setting, set[str]] = {}
    for row in rows:
        measured.setdefault((row["codec"], row["setting"]), set()).add(row["item"])
    known = [i for i in dict.fromkeys([*items, *(r["item"] for r in rows)]) if any(i in m for m in measured.values())]
    fullest = sorted(known, key=lambda i: -sum(i in m for m in measured.values()))
    choices = [set(fullest[: n + 1]) for n in range(len(fullest))]  # of equals the first: rather all codecs than all items
    common = max(choices, key=lambda chosen: len(chosen) * sum(chosen <= m for m in measured.values()))
    kept = {s for s, m in measured.items() if common <= m}
    ordered = tuple(i for i in known if i in common)
    return Selection(
        items=ordered,
        rows=tuple(r for r in rows if (r["codec"], r["setting"]) in kept and r["item"] in common),
        notes=tuple(_notes(measured, kept, known, ordered)),
    )


def _notes(measured: dict[Setting, set[str]], kept: set[Setting], known: Sequence[str], common: Sequence[str]) -> list[str]:
    notes = [f"{c} {s}: measured on {len(m)} of {len(known)} items, left out of the curves" for (c, s), m in measured.items() if (c, s) not in kept]
    absent = [i for i in known if i not in common]
    if absent:
        notes.append(f"curves are means over {len(common)} of {len(known)} items; not measured at every setting: {', '.join(absent)}")
    return notes
