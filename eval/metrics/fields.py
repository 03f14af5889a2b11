"""Metrics of gridded fields as the bench takes them: a `Field` (eval/fields.py) and the decoded array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from latentpress.eval.fields import Field
from latentpress.eval.metrics import fields_points as points
from latentpress.eval.metrics import fields_structure as structure
from latentpress.eval.metrics.base import Metric


@dataclass(frozen=True)
class _OfArrays:
    """A function of two arrays as one of field and array; unlike a lambda it travels to worker processes."""

    measure: Callable[[Any, Any], float]

    def __call__(self, reference: Field, decoded: Any) -> float:
        return self.measure(reference.data, decoded)


def weighted_rmse(reference: Field, decoded: Any) -> float:
    return points.rmse(reference.data, decoded, reference.latitude)


FIELD = (
    Metric(name="rmse", measure=weighted_rmse, about="in the field's unit, weighted by cos(latitude); lower is better", default=True),
    Metric(name="nmse", measure=_OfArrays(points.normalised_mse), about="mean squared error over variance; lower is better", default=True),
    Metric(name="max_abs", measure=_OfArrays(points.max_abs), about="largest error, in the field's unit", default=True),
    Metric(name="max_rel", measure=_OfArrays(points.max_rel), about="largest relative error; null where a zero did not stay zero", default=True),
    Metric(name="r2", measure=_OfArrays(points.r2), about="1 - nmse; higher is better", default=True),
    Metric(name="dssim", measure=_OfArrays(structure.dssim), about="data SSIM of the worst plane, at most 1; higher is better"),
    Metric(
        name="spatial_relative_error", measure=_OfArrays(points.spatial_relative_error),
        about=f"share of points with a relative error above {points.SPATIAL_TOLERANCE:g}; lower is better",
    ),
    Metric(name="spectrum_ratio", measure=_OfArrays(structure.spectrum_ratio), about="power at 2 to 4 grid steps over the original's; 1 is best"),
    Metric(name="gradient_error", measure=_OfArrays(structure.gradient_error), about="RMS error of differences of neighbours, over their RMS"),
    Metric(name="mask_errors", measure=_OfArrays(points.mask_errors), about="points missing in one and not in the other; 0 is exact", default=True),
)  # fmt: skip
