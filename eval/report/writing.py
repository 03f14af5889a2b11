"""The order of work behind `latentpress report`: load, summarise, code pictures again, write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentpress.container import write_file
from latentpress.errors import InputError
from latentpress.eval.bench.spec import own_points, peer_points
from latentpress.eval.domains import domain
from latentpress.eval.peers import Family, Peer
from latentpress.eval.report.export import compressai_files, csv_text
from latentpress.eval.report.load import Bench, load_bench
from latentpress.eval.report.page import render
from latentpress.eval.report.pictures import Picture, Provider, make_pictures, spread
from latentpress.eval.report.provider import ManifestProvider
from latentpress.eval.report.summary import Summary, summarise

ANCHOR = "webp"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """page: the HTML file; static: also PNG and SVG, in the folder figures beside it; csv: file; json: folder of a file a codec."""

    page: Path
    static: bool = False
    csv: Path | None = None
    json: Path | None = None


def write_report(
    folder: Path, outputs: Outputs, *, anchor: str | None = None, pictures: int = 3, bpp: float = 0.3, provider: Provider | None = None
) -> list[Path]:
    """The files written. Raises InputError, FormatError or UnsupportedError for a folder that is no bench of this version."""
    bench = load_bench(folder)
    summary = summarise(bench)
    if anchor is not None and anchor not in summary.codecs:
        raise InputError(f"--anchor {anchor!r}: {folder} has no curve of that name, but {', '.join(summary.codecs)}")
    shown = _pictures(bench, summary, pictures, bpp, provider or _provider(bench))
    written = [_write(outputs.page, render(summary, shown, anchor=anchor or ANCHOR))]
    if outputs.static:
        from latentpress.eval.report.static import static_figures

        written += [_write(outputs.page.parent / "figures" / name, blob) for name, blob in static_figures(summary).items()]
    if outputs.csv:
        written.append(_write(outputs.csv, csv_text(bench)))
    if outputs.json:
        written += [_write(outputs.json / name, text) for name, text in compressai_files(summary).items()]
    return written


def _provider(bench: Bench) -> Provider:
    families = domain(bench.manifest["domain"]).peers
    return ManifestProvider(codecs=bench.manifest["codecs"], families=families, resolve=lambda entry: spec_points(entry, families))


def spec_points(entry: Mapping[str, Any], families: Mapping[str, Family]) -> list[Peer]:
    """One peer a setting of a curve of the manifest."""
    return [p for text in entry["spec"].split() for p in (own_points(text) if entry["own"] else peer_points(text, families))]


def _pictures(bench: Bench, summary: Summary, count: int, bpp: float, provider: Provider) -> list[Picture]:
    if bench.manifest.get("domain", "image") != "image":
        return []
    progress = sys.stderr.isatty()

    def report(line: str) -> None:
        if progress:
            print(f"\r\x1b[Kpictures at {bpp:g} bpp: {line}", end="", file=sys.stderr, flush=True)

    made = make_pictures(spread(bench.manifest["items"], count) if count else [], summary.codecs, provider, bpp, report)
    if progress:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return made


def _write(path: Path, content: str | bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content.encode("utf-8") if isinstance(content, str) else content, overwrite=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another place for it") from error
    return path
