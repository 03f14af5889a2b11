"""Measured rows in a JSON-lines file: written one by one, so that an interrupted bench goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentpress.errors import FormatError

Row = dict[str, Any]
Key = tuple[str, ...]


class RowCache:
    """Rows by key; the last row of a key wins. A last line that was cut short is dropped, any other damage raises FormatError."""

    def __init__(self, path: Path, fields: tuple[str, ...]) -> None:
        """fields: the row entries that make up the key, all strings."""
        self.path, self.fields = path, fields
        self._rows: dict[Key, Row] = {}
        if path.exists():
            self._load(path.read_text("utf-8"))

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def add(self, row: Row) -> None:
        """Keep `row` and append it to the file at once."""
        self._rows[self._key(row)] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _key(self, row: Row) -> Key:
        return tuple(str(row[f]) for f in self.fields)

    def _load(self, text: str) -> None:
        whole, _, rest = text.rpartition("\n")
        if rest:  # the process died while it wrote: cut the file back, so that the next row starts a line
            self.path.write_text(whole + "\n" if whole else "", "utf-8")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self._rows[self._key(row)] = row
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(f"{self.path} line {number} is no row with {', '.join(self.fields)}: delete the file") from error
