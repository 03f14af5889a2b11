"""Published figures of the peers on twelve single fields (BASELINES.md beside the data), read from its tables, and the same fields here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from latentpress.errors import InputError
from latentpress.eval.climate.measure import LOSSLESS, setting_of
from latentpress.eval.fields import Field
from latentpress.eval.rows import Row

NAME = "BASELINES.md"
# label there -> variable here and index of its plane, () for the whole; "step 20" of the source is the first step of the evaluation file
ITEMS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ERA5 1.0 t2m step 20": ("era5_global_1p0_surface/t2m", (0,)),
    "ERA5 1.0 msl step 20": ("era5_global_1p0_surface/msl", (0,)),
    "ERA5 1.0 u10 step 20": ("era5_global_1p0_surface/u10", (0,)),
    "ERA5 1.0 tp step 20": ("era5_global_1p0_surface/tp", (0,)),
    "ERA5 0.25 msl": ("era5_global_0p25_msl/msl", ()),
    "ERA5 0.25 vo850": ("era5_global_0p25_vo850/vo850", ()),
    "ERA-Int 0.75 u, level 2": ("eraint_global_0p75_uvz/u", (0, 1)),  # the second of three levels, 500 hPa
    "GFS 0.25 gh500": ("gfs_global_0p25_gh500/gh500", ()),
    "AIFS 0.25 swh (NaN)": ("aifs_global_0p25_swh/swh", ()),
    "HRRR 3 km u10": ("hrrr_conus_3km_u10/u10", ()),
    "ERSST 2.0 sst x12 (NaN)": ("ersstv5_global_2p0_sst/sst", ()),
    "ERA5 2.5 msl x16 6-hourly": ("era5_global_2p5_6hourly/msl", ()),
}
CODECS = {"SZ3": "sz3", "ZFP": "zfp", "SPERR": "sperr"}
LOSSLESS_COLUMNS = {"pcodec level 8": "pcodec", "blosc zstd-9 + shuffle": "blosc-shuffle", "blosc zstd-9 + bitshuffle": "blosc-bitshuffle"}
LATTICE_COLUMNS = ("pcodec 8 on integer codes", "pcodec 8 on 2-D Lorenzo residual", "xz -9e on Lorenzo residual (int32 shuffled)")

Published = dict[str, dict[str, dict[str, float]]]  # label -> setting -> codec -> ratio


def single_planes(fields: Sequence[Field]) -> dict[str, Field]:
    """Label -> the field, for those whose variable is among `fields`."""
    known = {f.name: f for f in fields}
    return {label: known[n].plane(i) if i else known[n] for label, (n, i) in ITEMS.items() if n in known}


def read_baselines(path: Path) -> Published:
    """Raises InputError where the file cannot be read or a table lacks a column."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    found: Published = {}
    for row in _table_rows(text):
        settings = found.setdefault(row["field"], {})
        if row.get("codec") in CODECS:
            for column, value in row.items():
                if column.endswith(" %"):
                    settings.setdefault(setting_of(float(column[:-2])), {})[CODECS[row["codec"]]] = float(value)
        lossless = {c: row[t] for t, c in LOSSLESS_COLUMNS.items() if row.get(t)}
        lattice = [_first_number(row[t]) for t in LATTICE_COLUMNS if row.get(t)]
        settings.setdefault(LOSSLESS, {}).update({c: float(v) for c, v in lossless.items()} | ({"lattice known": max(lattice)} if lattice else {}))
    if not found:
        raise InputError(f"{path}: no table of fields in it")
    return found


def _table_rows(text: str) -> Iterator[dict[str, str]]:
    """Each row of each Markdown table whose first column is "field", by column."""
    header: list[str] = []
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
        elif header[0] == "field" and not set(line) <= set("|-: "):
            yield dict(zip(header, cells, strict=False))


def _first_number(text: str) -> float:
    return float(text.split()[0])


def beside(rows: Sequence[Row], planes: Mapping[str, Field], published: Published, own: str) -> dict[str, Any]:
    """Ours over the best published figure of each field and setting, and our peers' ratios over the published ones of the same peer."""
    entries: list[dict[str, Any]] = []
    peers: list[dict[str, Any]] = []
    for label, field in planes.items():
        for setting, theirs in published.get(label, {}).items():
            here = {r["codec"]: r for r in rows if r["item"] == field.name and r["setting"] == setting and r["status"] == "ok"}
            where = {"field": label, "setting": setting}
            peers += [where | {"codec": c, "published": v, "here": round(here[c]["ratio"], 4)} for c, v in theirs.items() if c in here]
            if own in here and theirs:
                best = max(theirs, key=lambda c: theirs[c])
                ours = here[own]["ratio"]
                entries.append(where | {"ours": round(ours, 4), "best": best, "ratio": theirs[best], "over": round(ours / theirs[best], 4)})
    settings = list(dict.fromkeys(e["setting"] for e in entries))
    medians = {s: round(median(e["over"] for e in entries if e["setting"] == s), 4) for s in settings}
    return {"medians": medians, "fields": entries, "peers": peers, "peers_off": [p for p in peers if not _agrees(p)]}


def _agrees(entry: Mapping[str, Any]) -> bool:
    """Within the rounding of what was published; another version of a library, or planes where it took the whole, may differ."""
    return bool(abs(entry["here"] - entry["published"]) <= max(0.051, 0.001 * entry["published"]))
