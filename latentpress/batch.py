"""Many files at once: which input goes to which output, and running them with a progress bar. Knows no codec."""

from __future__ import annotations

import functools
import glob
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentpress.errors import InputError, LatentpressError


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path


def plan(inputs: Sequence[str], output: str, *, suffixes: Iterable[str], new_suffix: str) -> list[Job]:
    """Pair every input file with its output.

    inputs   files, folders (searched for `suffixes`, their tree is kept) or glob patterns
    output   a file for one input file; otherwise a folder (made when missing)
    Raises InputError for inputs that do not exist and for two inputs with one output.
    """
    found = [(f, base) for text in inputs for f, base in _expand(text, frozenset(suffixes))]
    folder = len(found) != 1 or output.endswith("/") or Path(output).is_dir() or any(map(os.path.isdir, inputs))
    if output == "-" and (len(found) != 1 or any(map(os.path.isdir, inputs))):
        raise InputError("standard output holds one file: give one input, or a folder with -o")
    jobs = [Job(f, Path(output) / f.relative_to(base).with_suffix(new_suffix) if folder else Path(output)) for f, base in found]
    targets: dict[Path, Path] = {}
    for job in jobs:
        if targets.setdefault(job.target, job.source) != job.source:
            raise InputError(f"{targets[job.target]} and {job.source} would both become {job.target}: encode them into separate folders")
    return jobs


def _expand(text: str, suffixes: frozenset[str]) -> list[tuple[Path, Path]]:
    path = Path(text)
    if os.path.isdir(text):
        files = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix.lower() in suffixes)
        if not files:
            raise InputError(f"{text}: the folder holds no {', '.join(sorted(suffixes))} file")
        return [(f, path) for f in files]
    if os.path.exists(text):
        return [(path, path.parent)]
    matches = [(m, m.parent) for m in sorted(map(Path, glob.glob(text, recursive=True))) if m.is_file()]
    if not matches:
        raise InputError(f"{text}: no such file or folder")
    return matches


def make_folder(folder: Path) -> None:
    """With those above it. Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be made ({error.strerror or error})") from error


def run(
    jobs: Sequence[Job], work: Callable[[Job], str], *, workers: int, report: Callable[[Job, str | None, str], None], tracebacks: bool = False
) -> bool:
    """Do all jobs; one that fails does not stop the others. report(job, error line or None, result). Returns whether all succeeded.

    tracebacks: lead every error line with the traceback
    """
    good = True
    for job, error, result in _results(jobs, functools.partial(_guarded, work, tracebacks), workers):
        good &= error is None
        report(job, error, result)
    return good


def _results(jobs: Sequence[Job], guarded: Callable[[Job], tuple[str | None, str]], workers: int) -> Iterable[tuple[Job, str | None, str]]:
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, *guarded(job)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # spawn: forking a process that runs torch threads may hang
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        pending = {pool.submit(guarded, job): job for job in jobs}
        for future in as_completed(pending):
            yield pending[future], *future.result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _guarded(work: Callable[[Job], str], tracebacks: bool, job: Job) -> tuple[str | None, str]:
    try:
        return None, work(job)
    except LatentpressError as error:
        line = str(error)
        line = line if str(job.source) in line or str(job.target) in line else f"{job.source}: {line}"
        return (f"{traceback.format_exc()}{line}" if tracebacks else line), ""
