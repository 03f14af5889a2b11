"""Tables of the README that a bench writes: `<!-- figures:NAME -->` ... `<!-- /figures:NAME -->`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentpress.errors import InputError


def replace_block(text: str, name: str, body: str) -> str:
    """`text` with `body` between the two marks of `name`. Raises InputError unless each mark occurs once and in order."""
    start, end = f"<!-- figures:{name} -->", f"<!-- /figures:{name} -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise InputError(f"the text needs {start} and {end}, once each and in that order")
    head, tail = text[: text.index(start) + len(start)], text[text.index(end) :]
    return f"{head}\n{body.strip()}\n{tail}"


def write_block(path: Path, name: str, body: str) -> None:
    """Replace the block of `name` in a file; a file without its marks is left as it is and raises InputError that names it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file to write the table into")
    try:
        text = replace_block(path.read_text("utf-8"), name, body)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    path.write_text(text, "utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    wrong = [r for r in rows if len(r) != len(header)]
    if wrong:
        raise InputError(f"row {wrong[0]!r} has {len(wrong[0])} cells, the header {len(header)}")
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
