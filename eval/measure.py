"""One item through one codec at one operating point: bytes written, bytes read, what was lost, what it took."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from latentpress.errors import InputError, LatentpressError, UnsupportedError
from latentpress.eval.domains import Domain
from latentpress.eval.memory import PeakMemory
from latentpress.eval.peers import Peer
from latentpress.eval.rows import KEY, SCHEMA, Key, Row
from latentpress.eval.stages import coder_time


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file to measure on. digest: its fingerprint."""

    name: str
    digest: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row to measure. digest: the peer's where the bench was planned; a worker with another one refuses."""

    peer: Peer
    digest: str
    item: Item

    @property
    def key(self) -> Key:
        return (self.peer.name, self.digest, self.peer.setting, self.item.name, self.item.digest)


@dataclass(frozen=True, kw_only=True)
class How:
    """What all rows of a run share. repeats > 1: a first run is not counted, times are medians of the others."""

    domain: Domain
    metrics: tuple[str, ...]
    threads: int = 1
    repeats: int = 1


@dataclass(frozen=True)
class Measured:
    """A row and the seconds that went into codec calls and into metrics; the rest of the wall time is the harness's."""

    row: Row
    codec_s: float = 0.0
    metric_s: float = 0.0


@dataclass
class _Calls:
    """Timed calls of one direction."""

    seconds: list[float] = field(default_factory=list)
    coder: list[float] = field(default_factory=list)
    spent: float = 0.0

    def run(self, call: Callable[[], Any], *, counted: bool) -> Any:
        with coder_time() as inside:
            start = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - start
        self.spent += seconds
        if counted:
            self.seconds.append(seconds)
            self.coder += [inside.seconds] if inside.calls else []
        return result

    def entries(self, name: str) -> Row:
        times = {f"{name}_s": round(median(self.seconds), 6)}
        return times | ({f"{name}_entropy_s": round(median(self.coder), 6)} if self.coder else {})


def measure(task: Task, how: How) -> Measured:
    """Encode, decode from the bytes alone, compare. Whatever the codec raises becomes a row with status "error"."""
    encoding, decoding = _Calls(), _Calls()
    try:
        if task.peer.digest != task.digest:  # also loads weights, so that no encoding is charged with it
            raise InputError(f"{task.peer.name} is {task.peer.digest!r} here and {task.digest!r} where the bench was started: install the same")
        _prepare(task, how)
        use_threads(how.threads)
        signal = _read(how.domain.read, task.item.path, task.item.digest)
        memory = PeakMemory()
        for run in range(how.repeats + (how.repeats > 1)):
            counted = run > 0 or how.repeats == 1
            if run == 0:
                memory.start()
            blob = encoding.run(lambda: task.peer.encode(signal), counted=counted)
            decoded = decoding.run(lambda blob=blob: task.peer.decode(blob), counted=counted)  # type: ignore[misc]
            if run == 0:
                peak = memory.peak()
        start = time.perf_counter()
        quality = _quality(how, signal, decoded)
        metric_s = time.perf_counter() - start
    except Exception as error:
        return Measured(error_row(task, how, error), encoding.spent + decoding.spent)
    row = _base(task, how) | {
        "shape": list(np.shape(signal)),
        "bytes": len(blob),
        how.domain.rate_name: how.domain.rate(len(blob), np.shape(signal)),
        **quality,
        **encoding.entries("encode"),
        **decoding.entries("decode"),
        "peak_bytes": peak,
    }
    return Measured(row, encoding.spent + decoding.spent, metric_s)


def _prepare(task: Task, how: How) -> None:
    """Load what codec and metrics put off, so that no timing is charged with it. A peer need not have a `prepare`."""
    getattr(task.peer, "prepare", lambda: None)()
    for name in how.metrics:
        how.domain.metrics[name].prepare()


def error_row(task: Task, how: How, error: BaseException) -> Row:
    """The row of what failed: same fields, no values, the reason in one line."""
    line = " ".join(str(error).split())
    reason = line if isinstance(error, LatentpressError) else f"{type(error).__name__}: {line}"
    empty = {k: None for k in ("shape", "bytes", how.domain.rate_name, *how.metrics, "encode_s", "decode_s", "peak_bytes")}
    return _base(task, how) | {"status": "error", "error": reason} | empty


def _base(task: Task, how: How) -> Row:
    try:
        versions = dict(task.peer.versions)
    except Exception:  # of a codec that does not load: the row says so elsewhere
        versions = {}
    return {
        "schema": SCHEMA,
        "domain": how.domain.name,
        **dict(zip(KEY, task.key, strict=True)),
        "status": "ok",
        "error": None,
        "note": None,
        "runs": how.repeats,
        "threads": how.threads,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, **versions},
        "machine": machine(),
    }


def _quality(how: How, signal: Any, decoded: Any) -> Row:
    """Metric name -> value; null and a word in "note" where there is none."""
    values: Row = {}
    notes = []
    for name in how.metrics:
        try:
            values[name] = float(how.domain.metrics[name].measure(signal, decoded))
        except UnsupportedError as error:
            values[name] = None
            notes.append(str(error))
            continue
        if not math.isfinite(values[name]):  # JSON has no infinity
            values[name] = None
            notes.append(f"{name}: infinite, the decoded signal is identical" if np.array_equal(signal, decoded) else f"{name}: no finite value")
    return values | {"note": "; ".join(notes) or None}


@lru_cache(maxsize=2)
def _read(read: Callable[[Path], Any], path: Path, digest: str) -> Any:
    """The signal of a file; tasks come item by item, so the last ones are kept. No codec may write into it."""
    signal = read(path)
    if isinstance(signal, np.ndarray):
        signal.flags.writeable = False
    return signal


def use_threads(count: int) -> None:
    """So many threads for torch in this process."""
    if "torch" in sys.modules:
        import torch

        if torch.get_num_threads() != count:
            torch.set_num_threads(count)


@cache
def machine() -> dict[str, Any]:
    """What a reader needs to judge a timing."""
    return {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count(), "cpu": _cpu()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
