"""The report page of the climate bench: maps of one field before and after each codec, error, spectra, bytes a variable, the table.

One self-contained HTML file: page.html with plotly.js and the data put in; it loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.container import write_file
from latentpress.errors import InputError
from latentpress.eval.climate.coders import Coder
from latentpress.eval.climate.measure import ratio
from latentpress.eval.fields import Field
from latentpress.eval.metrics.fields_points import exceedances, rmse
from latentpress.eval.metrics.fields_structure import spectrum
from latentpress.eval.report.page import plotly_script, safe_json

Figures = Mapping[str, Any]
MOST = 360  # rows or columns of a map that the page carries


def write_page(path: Path, figures: Figures, fields: Sequence[Field], coders: Sequence[Coder], show: str = "", percent: float = 1.0) -> None:
    """show: name of the field of the maps, "" for the first; percent: its bound, of the standard deviation.

    Raises InputError for unknown fields and places that cannot be written, MissingExtraError without plotly.
    """
    field = next((f for f in fields if f.name == show or not show), None)
    if field is None:
        raise InputError(f"--show {show!r}: no such field among {', '.join(f.name for f in fields)}")
    text = render(figures, field, coders, percent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode("utf-8"), overwrite=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another place for it") from error


def render(figures: Figures, field: Field, coders: Sequence[Coder], percent: float) -> str:
    """The page's text."""
    folder = files("latentpress.eval.climate")
    return Template(folder.joinpath("page.html").read_text("utf-8")).substitute(
        title=html.escape(f"Gridded fields: {field.name} at {percent:g} % of its deviation"),
        css=files("latentpress.eval.report").joinpath("page.css").read_text("utf-8"),
        plotly=plotly_script().replace("</script", "<\\/script"),
        js=folder.joinpath("page.js").read_text("utf-8"),
        data=safe_json(model(figures, field, coders, percent)),
    )


def model(figures: Figures, field: Field, coders: Sequence[Coder], percent: float) -> dict[str, Any]:
    """What page.js draws. Of a field with more axes the maps show the first plane; errors count all planes."""
    bound = field.std * percent / 100
    first = (0,) * (field.data.ndim - 2)
    step = max(1, -(-max(field.shape[-2:]) // MOST))
    wave, power = spectrum(field.data)
    codecs = []
    for coder in coders:
        blob = coder.encode(field, bound)
        decoded = coder.decode(blob)
        error = decoded[first].astype(np.float64) - field.data[first]
        size = coder.size(blob)
        codecs.append({
            "name": coder.name, "bytes": size, "ratio": ratio(field, size), "beyond": exceedances(field.data, decoded, bound),
            "rmse": rmse(field.data, decoded, field.latitude), "map": _map(decoded[first][::step, ::step]),
            "error": _map(_worst(error, step) / bound), "power": _positive(spectrum(decoded)[1]),
        })  # fmt: skip
    return {
        "field": field.name, "units": field.units, "shape": list(field.shape), "percent": percent, "bound": bound, "step": step,
        "map": _map(field.data[first][::step, ::step]), "wave": [float(w) for w in wave], "power": _positive(power), "codecs": codecs,
        "table": figures.get("grid"), "own": figures.get("own", ""),
    }  # fmt: skip


def _worst(error: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Of each block of step x step points the error of largest magnitude, so that thinning hides none."""
    height, width = (-(-n // step) * step for n in error.shape)
    padded = np.pad(error, ((0, height - error.shape[0]), (0, width - error.shape[1])), constant_values=np.nan)
    blocks = padded.reshape(height // step, step, width // step, step).swapaxes(1, 2).reshape(height // step, width // step, step * step)
    size = np.where(np.isnan(blocks), -1, np.abs(blocks))
    return np.take_along_axis(blocks, size.argmax(-1)[..., None], -1)[..., 0]


def _map(plane: NDArray[Any]) -> dict[str, Any]:
    """float32 samples as plotly takes them."""
    data = np.ascontiguousarray(plane, "<f4")
    return {"dtype": "f4", "bdata": base64.b64encode(data.tobytes()).decode(), "shape": f"{data.shape[0]},{data.shape[1]}"}


def _positive(power: NDArray[np.float64]) -> list[float | None]:
    return [float(p) if p > 0 else None for p in power]
