"""What a bench left in its folder: bench.json (what was asked for) and rows.jsonl (what came out). Reads only, changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentpress.errors import FormatError, InputError, UnsupportedError
from latentpress.eval.rows import Row

SCHEMA = 1
DOMAIN = "image"  # the one whose rows have bpp and shape [height, width, bands]
KEY = ("codec", "digest", "setting", "item", "item_digest")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """folder: as given; manifest: bench.json; rows: those with status ok; errors: those without; notes: what was left out, in words."""

    folder: Path
    manifest: dict[str, Any]
    rows: tuple[Row, ...]
    errors: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def codecs(self) -> list[str]:
        """Curve names: those of the manifest in its order, then any other that has rows."""
        asked = [c["codec"] for c in self.manifest["codecs"]]
        return list(dict.fromkeys([*asked, *(r["codec"] for r in (*self.rows, *self.errors))]))

    @property
    def own(self) -> frozenset[str]:
        return frozenset(c["codec"] for c in self.manifest["codecs"] if c.get("own"))

    @property
    def metrics(self) -> list[str]:
        """Metrics that at least one row has a finite number for."""
        asked = self.manifest.get("metrics") or ["psnr"]
        return [m for m in asked if any(_number(r.get(m)) for r in self.rows)]


def load_bench(folder: Path) -> Bench:
    """Raises InputError where files are missing or hold no measurement, FormatError where damaged, UnsupportedError for another schema."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that `latentpress bench -o` wrote")
    manifest = _read_manifest(folder / "bench.json")
    rows, notes = _read_rows(folder / "rows.jsonl")
    rows, stale = _current(rows, manifest)
    if stale:
        notes.append(f"{stale} rows of older weights or library versions are left out")
    good = tuple(r for r in rows if r["status"] == "ok")
    if not good:
        raise InputError(f"{folder / 'rows.jsonl'}: no measurement in it ({len(rows)} rows with errors); run `latentpress bench` again")
    bench = Bench(folder=folder, manifest=manifest, rows=good, errors=tuple(r for r in rows if r["status"] != "ok"), notes=tuple(notes))
    if not bench.metrics:
        raise InputError(f"{folder / 'rows.jsonl'}: no row has a finite quality, so there is no curve; run `latentpress bench` with lossy settings")
    return bench


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder that `latentpress bench -o` wrote")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the bench again into a new folder") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_text(path))
    except ValueError as error:
        raise FormatError(f"{path}: damaged ({error}); run the same `latentpress bench` again, which writes it anew and keeps the rows") from error
    _check_schema(manifest, str(path))
    if manifest.get("domain", DOMAIN) != DOMAIN:
        raise UnsupportedError(f"{path}: a bench of {manifest['domain']!r}; the report shows {DOMAIN} so far: read rows.jsonl itself")
    for name, member in (("codecs", "codec"), ("items", "item")):
        entries = manifest.get(name)
        if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get(member), str) for e in entries):
            raise FormatError(f"{path}: {name!r} is no list of objects with {member!r}; run the same `latentpress bench` again")
    return dict(manifest)


def _check_schema(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: a JSON object expected; run the bench again into a new folder")
    if value.get("schema") != SCHEMA:
        raise UnsupportedError(
            f"{where}: schema {value.get('schema')!r}, this version reads {SCHEMA}; report it with the version that measured it, "
            "or run the bench again into a new folder"
        )


def _read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Rows in file order, the last of a key alone; notes on what was left out."""
    whole, _, rest = _text(path).rpartition("\n")
    rows: dict[tuple[str, ...], Row] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        if line.strip():
            row = _parse_row(line, f"{path} line {number}")
            key = tuple(row[k] for k in KEY)
            rows.pop(key, None)
            rows[key] = row
    return list(rows.values()), ["the last row was cut short and is left out"] if rest.strip() else []


def _parse_row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise FormatError(f"{where}: damaged ({error}); delete that line, and the bench measures it again") from error
    _check_schema(row, where)
    wrong = wrong_field(row)
    if wrong:
        raise FormatError(f"{where}: {wrong!r} is missing or wrong; delete that line, and the bench measures it again")
    return dict(row)


def wrong_field(row: Row) -> str | None:
    """The first field that a row of this schema cannot have so, or None."""
    for name in KEY:
        if not isinstance(row.get(name), str):
            return name
    if row.get("status") == "error":
        return None
    shape = row.get("shape")
    checks = {
        "status": row.get("status") == "ok",
        "shape": isinstance(shape, list) and len(shape) >= 2 and all(isinstance(n, int) and n > 0 for n in shape),
        "bytes": isinstance(row.get("bytes"), int) and row["bytes"] > 0,
        "bpp": _number(row.get("bpp")) and row["bpp"] > 0,
        **{name: _number(row.get(name)) and row[name] >= 0 for name in ("encode_s", "decode_s")},
        "psnr": row.get("psnr") is None or isinstance(row["psnr"], int | float),
    }
    return next((name for name, good in checks.items() if not good), None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _current(rows: Sequence[Row], manifest: dict[str, Any]) -> tuple[list[Row], int]:
    """Rows of today's weights and library versions, and how many others there are: a folder keeps the rows of all its runs.

    Of a codec in the manifest those with one of its digests (several presets may make one curve), of any other the last of each setting.
    """
    digests = {c["codec"]: set(c["digests"]) for c in manifest["codecs"] if c.get("digests")}
    last = {(r["codec"], r["setting"]): r["digest"] for r in rows}
    kept = [r for r in rows if r["digest"] in digests.get(r["codec"], {last[r["codec"], r["setting"]]})]
    return kept, len(rows) - len(kept)
