"""One self-contained HTML file: page.html with page.css, plotly.js, page.js and the data put in. It loads nothing from anywhere."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

from latentpress.errors import MissingExtraError
from latentpress.eval.report.facts import error_table, fact_list, headline, note_list
from latentpress.eval.report.model import page_model
from latentpress.eval.report.pictures import Picture
from latentpress.eval.report.summary import Summary


def render(summary: Summary, pictures: Sequence[Picture], *, anchor: str) -> str:
    """The page's text. Raises MissingExtraError without plotly."""
    title, subtitle = headline(summary)
    return Template(_part("page.html")).substitute(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        css=_part("page.css"),
        plotly=plotly_script().replace("</script", "<\\/script"),
        js=_part("page.js"),
        data=safe_json(page_model(summary, pictures, anchor)),
        facts=fact_list(summary),
        notes=note_list(summary),
        errors=error_table(summary),
    )


def _part(name: str) -> str:
    return files("latentpress.eval.report").joinpath(name).read_text("utf-8")


def plotly_script() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "bench") from error
    script: Any = get_plotlyjs()
    return str(script)


def safe_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
