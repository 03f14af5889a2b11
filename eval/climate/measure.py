"""One field through one coder at one bound: bytes, seconds, what was lost, as a row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import LatentpressError, UnsupportedError
from latentpress.eval.climate.coders import Coder
from latentpress.eval.fields import Field
from latentpress.eval.metrics.fields import FIELD
from latentpress.eval.metrics.fields_points import changed, exceedances, max_abs
from latentpress.eval.rows import SCHEMA, Key, Row

LOSSLESS = "lossless"


@dataclass(frozen=True, kw_only=True)
class Task:
    """percent: the bound in percent of the field's standard deviation, 0 for lossless; limit: in place of it, a mean squared error over the
    variance. digest: the coder's. metrics: names, () for none."""

    coder: Coder
    digest: str
    field: Field
    field_digest: str
    percent: float
    metrics: tuple[str, ...] = ()
    limit: float | None = None

    @property
    def setting(self) -> str:
        return setting_of(self.percent) if self.limit is None else f"nmse<={self.limit:g}"

    @property
    def key(self) -> Key:
        return (self.coder.name, self.digest, self.setting, self.field.name, self.field_digest)

    @property
    def bound(self) -> float:
        """In the field's unit."""
        return self.field.std * self.percent / 100


def setting_of(percent: float) -> str:
    return f"bound={percent:g}%" if percent else LOSSLESS


def measure(task: Task) -> Row:
    """Encode, decode from the bytes alone, compare. What a coder refuses becomes a row of status "refused", what else it raises "error"."""
    field, bound = task.field, task.bound
    try:
        blob, encode = timed(lambda: task.coder.encode(field, bound))
        decoded, decode = timed(lambda: task.coder.decode(blob))
        row = facts(task, blob, bound, decoded)
    except UnsupportedError as error:
        return base(task) | {"status": "refused", "error": reason(error), "bound": bound}
    except Exception as error:  # one coder that fails on one field must not cost the others
        return base(task) | {"status": "error", "error": reason(error), "bound": bound}
    return row | {f"encode_{k}": v for k, v in encode.items()} | {f"decode_{k}": v for k, v in decode.items()}


def base(task: Task) -> Row:
    names = ("codec", "digest", "setting", "item", "item_digest")
    about = {"own": task.coder.own, "options": task.coder.setting, "versions": dict(task.coder.versions), "percent": task.percent}
    return {"schema": SCHEMA, "domain": "field", **dict(zip(names, task.key, strict=True)), "status": "ok", "error": None, **about}


def facts(task: Task, blob: bytes, bound: float, decoded: NDArray[Any]) -> Row:
    """Sizes and losses. Raises InputError where shape or dtype did not come back."""
    field = task.field
    size = task.coder.size(blob)
    row = base(task) | {"shape": list(field.shape), "bytes": size, "ratio": ratio(field, size), "bound": bound}
    over = exceedances(field.data, decoded, bound) if task.percent else changed(field.data, decoded)
    worst = max_abs(field.data, decoded) / bound if bound else None
    return row | {"exceedances": over, "worst_over_bound": worst, "arrangement": task.coder.arrangement(blob)} | quality(field, decoded, task.metrics)


def ratio(field: Field, size: int) -> float:
    """Float32 bytes over compressed bytes."""
    return 4 * field.data.size / size


def quality(field: Field, decoded: NDArray[Any], metrics: Sequence[str]) -> Row:
    """Metric -> value, None where there is none; a field that came back as it was needs no metrics."""
    if np.array_equal(field.data, decoded, equal_nan=True):
        return {"identical": True}
    return {"identical": False} | {m.name: _value(m.measure, field, decoded) for m in FIELD if m.name in metrics}


def serves(row: Row, task: Task) -> bool:
    """Whether a row that is there says all that the task asks for. A coder that refused a bound would do so again; other failures are tried again."""
    if row["status"] != "ok":
        return bool(row["status"] == "refused")
    return bool(row["identical"]) or all(m in row for m in task.metrics)


def _value(metric: Callable[[Any, Any], float], field: Field, decoded: NDArray[Any]) -> float | None:
    try:
        value = float(metric(field, decoded))
    except UnsupportedError:
        return None
    return value if math.isfinite(value) else None


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Its result; seconds of the clock and of the processor (all threads), the latter less moved by other work on the machine."""
    start, used = time.perf_counter(), time.process_time()
    result = call()
    return result, {"s": round(time.perf_counter() - start, 6), "cpu_s": round(time.process_time() - used, 6)}


def reason(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line if isinstance(error, LatentpressError) else f"{type(error).__name__}: {line}"
