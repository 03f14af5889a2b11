"""`latentpress report OUT`: the page of a bench, and its figures and tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[str, typer.Argument(metavar="OUT", help="folder that `latentpress bench -o` wrote")],
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="the page; default OUT/report.html")] = None,
    anchor: Annotated[str | None, typer.Option("--anchor", help="codec whose column of the BD matrix comes first; default webp")] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="pictures in the slider; each is coded again by every codec")] = 3,
    bpp: Annotated[float, typer.Option("--bpp", min=0.001, help="bits a pixel that no file of these pictures exceeds")] = 0.3,
    static: Annotated[bool, typer.Option("--static", help="also PNG and SVG of the charts, beside the page")] = False,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="also all rows as CSV")] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="FOLDER", help="also a JSON file a codec, laid out as CompressAI's results")] = None,
) -> None:
    """Write one self-contained HTML page: curves, BD-rates, speed, every item, pictures side by side."""
    from latentpress.eval.report.writing import Outputs, write_report

    outputs = Outputs(
        page=Path(output) if output else Path(folder) / "report.html", static=static,
        csv=Path(csv) if csv else None, json=Path(json) if json else None,
    )  # fmt: skip
    for path in write_report(Path(folder), outputs, anchor=anchor, pictures=pictures, bpp=bpp):
        print(path)


def register(app: typer.Typer) -> None:
    app.command()(report)
