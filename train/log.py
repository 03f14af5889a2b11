"""What a run tells: JSON lines always, TensorBoard where it is installed, a progress bar on a terminal and plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from latentpress.errors import InputError
from latentpress.train.checkpoint import write_whole

LINES = "log.jsonl"


class Log:
    """Of one run, in its folder. Only the first process has one."""

    def __init__(self, folder: Path, *, step: int, steps: int | None, minutes: float | None) -> None:
        """step: the one a resumed run goes on from; lines of later steps, written before it was cut off, are dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LINES
        forget_after(self.path, step)
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        self.board = _board(folder / "tensorboard", step)
        self.bar = Bar(steps, minutes) if sys.stderr.isatty() else None

    def train(self, step: int, values: Mapping[str, float], done: float) -> None:
        """A window of steps: means of what the model reports, rate, steps a second, part of the time that data was waited for."""
        self._line("train", step, values)
        text = " ".join(f"{k} {v:.4g}" for k, v in values.items())
        if self.bar is not None:
            self.bar.show(done, step, values)
        else:
            print(f"step {step} ({100 * done:.1f} %) {text}", file=sys.stderr, flush=True)

    def validation(self, step: int, report: Mapping[str, Any]) -> None:
        self._line("validation", step, report)
        points = "  ".join(f"{p['bpp']:.4f} bpp {p['psnr']:.2f} dB" for p in report["points"])
        measured = "estimated bits" if report["estimated"] else "real bytes"
        self.say(f"step {step} validation, {measured}: {points}  cost {report['cost']:.4f}")

    def pictures(self, step: int, original: Tensor, decoded: Tensor) -> None:
        """Batches [b, 3, h, w] in 0..1, side by side."""
        if self.board is not None:
            import torch

            self.board.add_images("original, decoded", torch.cat([original, decoded], 3).float().cpu().clamp(0, 1), step)

    def event(self, step: int, what: str) -> None:
        self._line("event", step, {"what": what})
        self.say(f"step {step}: {what}")

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.progress.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        for part in (self.bar, self.board, self.file):
            if part is not None:
                part.close()

    def _line(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        try:
            self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self.file.flush()
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror or error}); make room and go on with --resume") from error
        if self.board is not None:
            for name, value in _scalars(values):
                self.board.add_scalar(f"{kind}/{name}", value, step)


class Bar:
    """Progress on a terminal: part done, loss, bpp, PSNR, steps a second, time left."""

    def __init__(self, steps: int | None, minutes: float | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("step {task.fields[step]}"), BarColumn(), TextColumn("{task.percentage:>4.1f} %"), TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(compact=True), console=Console(stderr=True), refresh_per_second=2, speed_estimate_period=600,
        )  # fmt: skip
        self.task = self.progress.add_task("training", total=1.0, step=0, values="")
        self.progress.start()

    def show(self, done: float, step: int, values: Mapping[str, float]) -> None:
        shown = {"loss": ("loss", ".4f"), "bpp": ("bpp", ".3f"), "psnr": ("dB", ".2f"), "steps_per_second": ("it/s", ".2f")}
        text = "  ".join(f"{values[k]:{form}} {unit}" for k, (unit, form) in shown.items() if k in values)
        self.progress.update(self.task, completed=done, step=step, values=text)

    def close(self) -> None:
        self.progress.stop()


def forget_after(path: Path, step: int) -> None:
    """Keep the whole lines of steps up to `step`."""
    if path.exists():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if _step_of(line) <= step]
        write_whole(path, "".join(kept).encode())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):  # cut off while it was written
        return float("inf")


def read_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What was logged of one kind: "train", "validation" or "event"."""
    path = folder / LINES
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def _board(folder: Path, step: int) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)  # type: ignore[no-untyped-call]


def _scalars(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    plain = [(k, float(v)) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    for point in values.get("points", ()):
        plain += [(f"{k} at {point['quality']}", float(point[k])) for k in ("bpp", "psnr")]
    return plain
