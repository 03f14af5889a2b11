"""Measured rows in a JSON-lines file: written one by one, so that an interrupted bench goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentpress.container import write_file
from latentpress.errors import FormatError, InputError

Row = dict[str, Any]
Key = tuple[str, ...]
SCHEMA = 1
KEY = ("codec", "digest", "setting", "item", "item_digest")


class RowCache:
    """Rows by key; the last row of a key wins. A last line that was cut short is dropped, any other damage raises FormatError."""

    def __init__(self, path: Path, fields: tuple[str, ...] = KEY) -> None:
        """fields: the row entries that make up the key, all strings."""
        self.path, self.fields = path, fields
        self._rows: dict[Key, Row] = {}
        self._in_file: list[Key] = []
        if path.exists():
            self._load(path.read_text("utf-8"))

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def add(self, row: Row) -> None:
        """Keep `row` and append it to the file at once. Raises InputError where the disk refuses; the file then ends with the row before."""
        key, line = self._key(row), (json.dumps(row) + "\n").encode()
        size = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                size = file.tell()
                written = file.write(line)
                if written != len(line):  # a full disk takes a part before it refuses
                    file.write(line[written:])
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, size)
            raise InputError(
                f"{self.path}: a row cannot be written ({error.strerror or error}); "
                f"the {len(self._in_file)} rows before are whole: make room and run again"
            ) from error
        self._rows[key] = row
        self._in_file.append(key)

    def arrange(self, first: Sequence[Key]) -> None:
        """Put the rows of `first` in that order, all others behind them as they are, one line a key; the file is replaced in one step."""
        order = list(dict.fromkeys([*(k for k in first if k in self._rows), *self._rows]))
        self._rows = {k: self._rows[k] for k in order}
        if order != self._in_file:
            write_file(self.path, "".join(json.dumps(r) + "\n" for r in self).encode(), overwrite=True)
            self._in_file = order

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
                self._in_file.append(self._key(row))
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(f"{self.path} line {number} is no row with {', '.join(self.fields)}: delete the file") from error
