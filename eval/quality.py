"""Quality metrics as axes: label, unit, direction, and the rising scale on which curves are compared.

    shown     what an axis or table prints:  36.2 dB, .981, 17.2 dB, .031 (lower is better)
    rising    what a Bjontegaard delta is taken over: grows with quality; MS-SSIM always in dB, where its steps mean the same everywhere
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

LOWER_IS_BETTER = frozenset({"lpips", "stlpips", "st_lpips", "dists", "mse", "rmse", "mae", "fid", "nlpd", "gmsd"})
_LABELS = {"psnr": "PSNR", "ms_ssim": "MS-SSIM", "ssim": "SSIM", "lpips": "LPIPS", "stlpips": "ST-LPIPS", "st_lpips": "ST-LPIPS", "dists": "DISTS"}
_SIMILARITIES = ("ms_ssim", "ssim")  # 1 is perfect, so -10 log10(1 - value) is their scale in dB


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One choice of a quality axis.

    key       unique ("ms_ssim_db");  metric: field of the rows it is made of ("ms_ssim")
    unit      "dB" or "";  digits: decimals worth printing
    decibels  shown as -10 log10(1 - value)
    """

    key: str
    metric: str
    label: str
    unit: str = ""
    digits: int = 4
    lower_is_better: bool = False
    decibels: bool = False

    def shown(self, value: float) -> float | None:
        """The metric's value as this axis prints it; None where that is not finite."""
        return _finite(_decibels(value) if self.decibels else value)

    def rising(self, value: float) -> float | None:
        """The metric's value on the scale of Bjontegaard deltas; None where that is not finite (a lossless point)."""
        if self.metric in _SIMILARITIES:
            return _finite(_decibels(value))
        return _finite(-value if self.lower_is_better else value)

    def from_rising(self, value: float) -> float:
        """The inverse of `rising`, as this axis prints it: the ends of an overlap."""
        if self.metric in _SIMILARITIES:
            return value if self.decibels else 1 - 10 ** (-value / 10)
        return -value if self.lower_is_better else value


PSNR = Quality(key="psnr", metric="psnr", label="PSNR", unit="dB", digits=2)


def qualities(metrics: Iterable[str]) -> list[Quality]:
    """The axes of these metrics, in their order; similarities give two, plain and in dB. Unknown names are shown as they are."""
    axes: list[Quality] = []
    for metric in dict.fromkeys(metrics):
        label = _LABELS.get(metric, metric)
        if metric == "psnr":
            axes.append(PSNR)
        elif metric in _SIMILARITIES:
            axes.append(Quality(key=metric, metric=metric, label=label))
            axes.append(Quality(key=f"{metric}_db", metric=metric, label=label, unit="dB", digits=2, decibels=True))
        else:
            unit = "dB" if metric.startswith("psnr") else ""
            axes.append(Quality(key=metric, metric=metric, label=label, unit=unit, lower_is_better=metric in LOWER_IS_BETTER))
    return axes


def _decibels(similarity: float) -> float:
    return -10 * math.log10(1 - similarity) if similarity < 1 else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
