"""One look a codec, the same in every chart: colours that stay apart for colour-blind readers, on white and on dark paper."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

# the hues of Okabe and Ito (2008), darkened where they vanish on white and lightened for dark paper
LIGHT = ("#d55e00", "#0072b2", "#009e73", "#b8579a", "#b87f00", "#3a9bd9", "#6b6b6b", "#7a7a00")
DARK = ("#ff8a4c", "#5aaee8", "#2fcf9f", "#e79ccb", "#e8b54a", "#9bd8ff", "#b4b4b4", "#d6d24c")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")  # names of plotly
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")  # the same for matplotlib


@dataclass(frozen=True, kw_only=True)
class Look:
    """light, dark: colours; symbol, marker: of points; dash: for codecs beyond the number of colours; own: drawn thicker."""

    light: str
    dark: str
    symbol: str
    marker: str
    dash: bool
    own: bool


def looks(codecs: Sequence[str], own: Collection[str]) -> dict[str, Look]:
    """Codec -> look; own codecs take the first colours."""
    ordered = [c for c in codecs if c in own] + [c for c in codecs if c not in own]
    return {
        c: Look(light=LIGHT[i % 8], dark=DARK[i % 8], symbol=SYMBOLS[i % 8], marker=MARKERS[i % 8], dash=i >= 8, own=c in own)
        for i, c in enumerate(ordered)
    }
