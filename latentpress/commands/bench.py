"""`latentpress bench`: arguments to `eval/bench/run.py`, a progress bar, one line at the end. Exit code 1 where a row failed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from latentpress.eval.bench.run import Outcome

MANY = ("--codecs", "--peers", "--metrics", "--items")  # options that take all words up to the next option


def spread(arguments: Iterable[str]) -> list[str]:
    """["--peers", "a", "b"] -> ["--peers", "a", "--peers", "b"]: one option, many words."""
    out: list[str] = []
    current = ""
    for word in arguments:
        if word.startswith("-") and word != "-":
            current = word if word in MANY else ""
            if not current:
                out.append(word)
        elif current:
            out += [current, word]
        else:
            out.append(word)
    return out


class ManyWords(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


Many = list[str] | None


def bench(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="folder of files, or one file; comes before the options")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="folder of rows; a bench that was interrupted goes on there")],
    codecs: Annotated[Many, typer.Option("--codecs", metavar="SPEC...", help="ours: NAME or folder, @q=LOW:HIGH:STEP,effort=N behind it")] = None,
    peers: Annotated[Many, typer.Option("--peers", metavar="SPEC...", help="jpeg jpeg-444 webp avif jxl jpeg2000, as in webp@q=10:90:10")] = None,
    metrics: Annotated[Many, typer.Option("--metrics", metavar="NAME...", help="psnr and ms_ssim unless named; also st-lpips")] = None,
    items: Annotated[Many, typer.Option("--items", metavar="N|NAME...", help="the first N files, or those of these names")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="worker processes")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="threads of each")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="timed runs of each row, after one that is not counted; 1: a single run")] = 1,
    scheduler: Annotated[str, typer.Option("--scheduler", metavar="ADDRESS", help="dask scheduler, or local: --jobs workers here")] = "",
    domain: Annotated[str, typer.Option("--domain", help="kind of the files")] = "image",
) -> None:
    """Measure codecs against each other: bytes, quality and time of every file at every setting, one row each."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from latentpress.eval.bench.run import Request, run_bench

    request = Request(
        data=data, output=output, codecs=tuple(codecs or ()), peers=tuple(peers or ()), metrics=tuple(metrics or ()), items=tuple(items or ()),
        domain=domain, jobs=jobs, threads=threads, repeats=repeats, scheduler=scheduler, command=shlex.join(["latentpress", *sys.argv[1:]]),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True,
                  disable=not console.is_terminal) as progress:  # fmt: skip
        bar = progress.add_task("rows", total=None)
        outcome = run_bench(request, lambda done, total, row: progress.update(bar, total=total, completed=done))
    print(summary(outcome, output))
    if outcome.errors:
        print(f"latentpress: {failures(outcome)}; run again to retry", file=sys.stderr)
        raise typer.Exit(1)


def summary(outcome: Outcome, output: Path) -> str:
    last = outcome.manifest["last_run"]
    counts = f"{len(outcome.rows)} rows in {output} ({outcome.measured} new)"
    if not outcome.measured:
        return counts
    times = f"{last['wall_s']:.1f} s: codecs {last['codec_s']:.1f} s, metrics {last['metric_s']:.1f} s"
    return f"{counts}, {times}, harness overhead {last['overhead_percent']:.1f} %"


def failures(outcome: Outcome) -> str:
    """Rows that failed and why, in one line: the first reason, and how many others there are."""
    errors = outcome.errors
    first, reasons = errors[0], len({e["error"] for e in errors})
    more = f" (and {reasons - 1} other reasons, see rows.jsonl)" if reasons > 1 else ""
    return f"{len(errors)} of {len(outcome.rows)} rows failed: {first['codec']} on {first['item']}: {first['error']}{more}"


def register(app: typer.Typer) -> None:
    app.command(cls=ManyWords)(bench)
