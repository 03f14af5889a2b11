"""The page's charts as figures for papers: PNG at 200 dots an inch and SVG, on white, at the width of a text column and a half."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from latentpress.errors import MissingExtraError
from latentpress.eval.quality import Quality
from latentpress.eval.report.palette import Look
from latentpress.eval.report.summary import Summary

FORMATS = ("png", "svg")
# text stays text and ids do not change from run to run
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e3e6ea", "grid.linewidth": 0.6, "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "latentpress",
}  # fmt: skip


def static_figures(summary: Summary) -> dict[str, bytes]:
    """File name -> bytes: rd-QUALITY, speed and, where measured, split, each as PNG and SVG. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "bench") from error
    files: dict[str, bytes] = {}
    with rc_context(STYLE):  # type: ignore[arg-type]
        for quality in summary.qualities:
            files |= _saved(f"rd-{quality.key}", rd_figure(summary, quality, Figure(figsize=(5, 3.6), layout="constrained")))
        files |= _saved("speed", speed_figure(summary, Figure(figsize=(7, 3.4), layout="constrained")))
        bars = split_bars(summary)
        if bars:
            files |= _saved("split", split_figure(bars, summary, Figure(figsize=(5, 0.9 + 0.3 * len(bars)), layout="constrained")))
    return files


def _saved(name: str, figure: Any) -> dict[str, bytes]:
    files = {}
    for kind in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
        files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def rd_figure(summary: Summary, quality: Quality, figure: Any) -> Any:
    axes = figure.subplots()
    for codec in _behind_first(summary):
        found = [(p.bpp, quality.shown(p.means[quality.metric])) for p in summary.curves[codec] if quality.metric in p.means]
        _line(axes, codec, summary.looks[codec], [(x, y) for x, y in found if y is not None])
    unit = f", {quality.unit}" if quality.unit else ""
    axes.set_ylabel(f"{quality.label}{unit}{' (lower is better)' if quality.lower_is_better else ''}")
    _rate_axis(axes)
    _legend(axes, summary)
    return figure


def speed_figure(summary: Summary, figure: Any) -> Any:
    for axes, kind in zip(figure.subplots(1, 2), ("encode", "decode"), strict=True):
        for codec in _behind_first(summary):
            pairs = zip(summary.curves[codec], summary.speeds[codec], strict=True)
            _line(axes, codec, summary.looks[codec], [(p.bpp, getattr(s, kind)) for p, s in pairs if getattr(s, kind)])
        axes.set_yscale("log")
        _log_ticks(axes.yaxis)
        axes.set_title(kind, loc="left")
        axes.set_ylabel("megapixels a second" if kind == "encode" else "")
        _rate_axis(axes)
    handles, labels = _ordered_handles(figure.axes[0], summary)
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


Bar = tuple[str, str, float, float]  # codec, encode or decode, seconds a megapixel outside the entropy coder, in it


def split_bars(summary: Summary) -> list[Bar]:
    """Of each codec that measured it: the point in the middle of its curve."""
    bars: list[Bar] = []
    for codec in summary.codecs:
        measured = [s for s in summary.speeds[codec] if s.encode_entropy is not None or s.decode_entropy is not None]
        if measured:
            speed = measured[len(measured) // 2]
            for kind, rate, share in (("encode", speed.encode, speed.encode_entropy), ("decode", speed.decode, speed.decode_entropy)):
                if rate and share is not None:
                    bars.append((codec, kind, (1 - share) / rate, share / rate))
    return bars


def split_figure(bars: Sequence[Bar], summary: Summary, figure: Any) -> Any:
    axes = figure.subplots()
    places = range(len(bars), 0, -1)
    colours = [summary.looks[b[0]].light for b in bars]
    axes.barh(places, [b[2] for b in bars], color=colours, height=0.7)
    axes.barh(places, [b[3] for b in bars], left=[b[2] for b in bars], color=[f"{c}66" for c in colours], height=0.7)
    axes.set_yticks(places, [f"{codec}, {kind}" for codec, kind, *_ in bars])
    axes.set_xlabel("seconds a megapixel; light: entropy coding")
    axes.grid(visible=False, axis="y")
    return figure


def _behind_first(summary: Summary) -> list[str]:
    """Own codecs last, so that nothing hides them."""
    return sorted(summary.codecs, key=lambda c: summary.looks[c].own)


def _line(axes: Any, codec: str, look: Look, points: Sequence[tuple[float, float | None]]) -> None:
    width, size = (2.2, 5) if look.own else (1.1, 3.5)
    style = "--" if look.dash else "-"
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    axes.plot(xs, ys, style, color=look.light, marker=look.marker, markersize=size, linewidth=width, label=codec)


def _rate_axis(axes: Any) -> None:
    axes.set_xscale("log")
    _log_ticks(axes.xaxis)
    axes.set_xlabel("bits per pixel")


def _log_ticks(axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _ordered_handles(axes: Any, summary: Summary) -> tuple[list[Any], list[str]]:
    by_label = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    labels = [c for c in summary.codecs if c in by_label]
    return [by_label[c] for c in labels], labels


def _legend(axes: Any, summary: Summary) -> None:
    axes.legend(*_ordered_handles(axes, summary), frameon=False)
