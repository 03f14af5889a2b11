"""The command line: arguments to api calls, one line an error, exit codes 0 (ok), 1 (a file failed), 2 (usage). Names no codec.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from latentpress.batch import Job, make_folder, plan, run
from latentpress.commands import bench, fields, report, train
from latentpress.errors import LatentpressError

# plain help: the coloured one imports a Markdown parser and a syntax highlighter, twice the time of all else together
app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"max_content_width": 120}, help="Learned codecs people can rely on.",
)  # fmt: skip
STDIO = "-"
_debug = False

Inputs = Annotated[list[str], typer.Argument(metavar="IN...", help="files, folders or globs; - is standard input")]
Output = Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="file, or folder for several inputs; - is standard output")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace existing files")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="files at once, each on one thread")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Preset = Annotated[str | None, typer.Option("--codec", help="folder of the preset that the file was made with, if it is not installed")]
OneFile = Annotated[str, typer.Argument(metavar="FILE", help="an .lpz file; - is standard input")]


def main() -> None:
    """Entry point of the `latentpress` command."""
    try:
        app()
    except LatentpressError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("latentpress: interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(error: LatentpressError, file: str = "") -> NoReturn:
    if _debug:
        raise error
    line = str(error)
    print(f"latentpress: {line if file in line else f'{file}: {line}'}", file=sys.stderr)
    sys.exit(1)


def _usage(text: str) -> NoReturn:
    print(f"latentpress: {text}", file=sys.stderr)
    sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        from latentpress import __version__

        print(f"latentpress {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True, callback=_print_version)] = False,
) -> None:
    global _debug
    _debug = debug


@app.command()
def encode(
    inputs: Inputs,
    output: Output,
    codec: Annotated[str | None, typer.Option("--codec", help="preset name or folder; see `latentpress codecs`")] = None,
    quality: Annotated[float | None, typer.Option("-q", "--quality", min=0, max=100, help="0 to 100, default 50")] = None,
    bpp: Annotated[float | None, typer.Option("--bpp", help="at most so many bits a pixel")] = None,
    psnr: Annotated[float | None, typer.Option("--psnr", help="at least so many dB")] = None,
    max_bytes: Annotated[int | None, typer.Option("--max-bytes", min=1, help="files of at most so many bytes")] = None,
    effort: Annotated[int, typer.Option("--effort", min=0, max=9, help="more encoder time for smaller files; from 3 on slow")] = 2,
    lossless: Annotated[bool, typer.Option("--lossless", help="every sample comes back as it was")] = False,
    embed_model: Annotated[bool, typer.Option("--embed-model", help="the weights travel inside the file (circuits)")] = False,
    max_error: Annotated[float | None, typer.Option("--max-error", min=0, help="datasets: no point is off by more, in its units")] = None,
    max_rel_error: Annotated[float | None, typer.Option("--max-rel-error", min=0, help="datasets: no point is off by a larger share")] = None,
    var: Annotated[list[str] | None, typer.Option("--var", metavar="NAME:SETTING", help="datasets: t2m:max-error=0.05, tp:lossless, ...")] = None,
    max_error_from: Annotated[
        list[str] | None, typer.Option("--max-error-from", metavar="FILE:NAME", help="datasets: the bound of each point of NAME is its value in FILE")
    ] = None,
    keep_mean: Annotated[bool, typer.Option("--keep-mean", help="datasets: the area-weighted mean of each plane stays, within the bound")] = False,
    scheduler: Annotated[str, typer.Option("--scheduler", metavar="ADDRESS", help="datasets to .zarr: of dask; else --jobs workers here")] = "",
    jobs: Jobs = 1,
    overwrite: Overwrite = False,
) -> None:
    """Encode images, arrays of samples, or datasets of fields (NetCDF, Zarr, GRIB) to .lpz files; datasets also to Zarr stores."""
    if sum(v is not None for v in (quality, bpp, psnr, max_bytes)) > 1:
        _usage("give one of -q, --bpp, --psnr and --max-bytes")
    settings = {"codec": codec, "quality": quality, "bpp": bpp, "psnr": psnr, "max_bytes": max_bytes, "effort": effort, "lossless": lossless,
                "embed_model": embed_model}  # fmt: skip
    if fields.are_datasets(inputs):
        bounds: dict[str, Any] = {"max_error": max_error, "max_rel_error": max_rel_error, "var": var or [], "max_error_from": max_error_from or [],
                                  "keep_mean": keep_mean}  # fmt: skip
        wanted = fields.encode_settings(settings, **bounds)
        if output.rstrip("/").endswith(".zarr"):
            print(fields.encode_store(inputs, output, wanted, scheduler=scheduler, jobs=jobs, overwrite=overwrite))
            return
        _run_all(fields.jobs_of(inputs, output), functools.partial(fields.encode_job, wanted, overwrite), output, jobs)
        return
    fields.refuse_bounds(max_error, max_rel_error, var, max_error_from, scheduler or None, keep_mean or None)
    if STDIO in inputs:
        _encode_stdin(inputs, output, settings, overwrite)
        return
    _run_all(_encode_plan(inputs, output, codec), functools.partial(_encode_job, settings, overwrite), output, jobs)


def _encode_plan(inputs: list[str], output: str, codec: str | None) -> list[Job]:
    """For array codecs a folder is one input: its PNG files are the samples."""
    if codec is not None and _codes_arrays(codec):
        from latentpress.formats.array import READABLE as ARRAYS

        if len(inputs) == 1 and Path(inputs[0]).is_dir() and not Path(output).is_dir():
            return [Job(Path(inputs[0]), Path(output))]
        return plan(inputs, output, suffixes=ARRAYS, new_suffix=".lpz")
    from latentpress.formats.image import READABLE

    return plan(inputs, output, suffixes=READABLE, new_suffix=".lpz")


def _codes_arrays(codec: str) -> bool:
    """False for codecs that do not load: every file will say so under its name."""
    from latentpress.codecs.registry import domain_of

    try:
        return domain_of(codec) == "array"
    except LatentpressError:
        return False


def _encode_job(settings: dict[str, Any], overwrite: bool, job: Job) -> str:
    from latentpress import api, container

    if str(job.target) == STDIO:
        return _write_out(api.encode(job.source, **settings), STDIO, overwrite)
    make_folder(job.target.parent)
    size = api.encode_file(job.source, job.target, overwrite=overwrite, **settings)
    header = container.read_header(job.target.read_bytes())
    places = math.prod(n for n, axis in zip(header.shape, header.dims, strict=True) if axis != "band")
    unit = "bits a value" if header.dims[:1] == ("sample",) else "bpp"
    return f"{job.source} -> {job.target}  {size} bytes, {8 * size / places:.3f} {unit}"


def _encode_stdin(inputs: list[str], output: str, settings: dict[str, Any], overwrite: bool) -> None:
    if len(inputs) > 1:
        _usage("standard input is one image: give - alone")
    from latentpress import api

    _write_out(api.encode(sys.stdin.buffer.read(), **settings), output, overwrite)


def _write_out(blob: bytes, output: str, overwrite: bool) -> str:
    if output == STDIO:
        sys.stdout.buffer.write(blob)
        sys.stdout.buffer.flush()
        return ""
    from latentpress import container

    container.write_file(Path(output), blob, overwrite=overwrite)
    return f"{output}  {len(blob)} bytes"


@app.command()
def decode(
    inputs: Inputs,
    output: Output,
    partial: Annotated[bool, typer.Option("--partial", help="decode what is whole of a damaged file")] = False,
    suffix: Annotated[str, typer.Option("--format", help="format of the files in a folder, or of standard output")] = ".png",
    codec: Preset = None,
    jobs: Jobs = 1,
    overwrite: Overwrite = False,
) -> None:
    """Decode .lpz files to images (PNG, JPEG, WebP, TIFF, ...) or .npy; samples also to .npz, .idx, .csv, .parquet, or a folder of PNG files;
    datasets to NetCDF (.nc) or a Zarr store (.zarr)."""
    suffix = suffix if suffix.startswith(".") else f".{suffix}"
    if STDIO in inputs:
        from latentpress import api

        if len(inputs) > 1:
            _usage("standard input is one file: give - alone")
        signal = api.decode(sys.stdin.buffer.read(), partial=partial, codec=codec)
        _write_out(api.signal_bytes(signal, suffix if output == STDIO else Path(output).suffix), output, overwrite)
        _warn_of_damage(signal.meta)
        return
    work = functools.partial(_decode_job, {"partial": partial, "codec": codec}, suffix, overwrite)
    _run_all(plan(inputs, output, suffixes={".lpz"}, new_suffix=suffix), work, output, jobs)


def _decode_job(settings: dict[str, Any], suffix: str, overwrite: bool, job: Job) -> str:
    from latentpress import api

    if str(job.target) == STDIO:
        signal = api.decode(job.source, **settings)
        _warn_of_damage(signal.meta)
        return _write_out(api.signal_bytes(signal, suffix), STDIO, overwrite)
    make_folder(job.target.parent)
    if fields.is_dataset_file(job.source):
        return fields.decode_job(settings, overwrite, job)
    signal = api.decode_file(job.source, job.target, overwrite=overwrite, **settings)
    damage = "".join(f"\n  damaged: {d}" for d in signal.meta.get("damage", ()))
    return f"{job.source} -> {job.target}  {' x '.join(map(str, signal.data.shape))} {signal.data.dtype}{damage}"


def _warn_of_damage(meta: Mapping[str, Any]) -> None:
    for damage in meta.get("damage", ()):
        print(f"latentpress: damaged: {damage}", file=sys.stderr)


def _run_all(jobs: list[Job], work: Any, output: str, workers: int) -> None:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=len(jobs) < 2 or not console.is_terminal) as progress:
        task = progress.add_task("files", total=len(jobs))

        def report(job: Job, error: str | None, result: str) -> None:
            progress.advance(task)
            if error is not None:
                print(f"latentpress: {error}", file=sys.stderr)
            elif result:
                print(result)

        good = run(jobs, work, workers=workers, report=report, tracebacks=_debug)
    if not good:
        sys.exit(1)


def _blob(file: str) -> bytes:
    from latentpress import api

    return sys.stdin.buffer.read() if file == STDIO else api.file_bytes(file)


@app.command()
def info(file: OneFile, as_json: AsJson = False) -> None:
    """Header, chunks and sizes of an .lpz file; decodes nothing."""
    from latentpress.inspect import describe_file

    try:
        facts = describe_file(_blob(file))
    except LatentpressError as error:
        _fail(error, file)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        if key not in ("chunks", "variables"):
            print(f"{key:>12}  {value}")
    if "variables" in facts:
        fields.print_variables(facts["variables"])
        return
    for chunk in facts["chunks"]:
        print(f"{'chunk':>12}  {chunk['kind']} {tuple(chunk['position'])} at byte {chunk['offset']}, {chunk['bytes']} bytes")


@app.command()
def verify(
    file: OneFile,
    symbols: Annotated[bool, typer.Option("--symbols", help="print the SHA-256 of the decoded integer symbols")] = False,
    codec: Preset = None,
) -> None:
    """Check every checksum and decode; with --symbols print what is identical on every machine."""
    from latentpress.inspect import symbols_sha256, verify_file

    try:
        blob = _blob(file)
        verify_file(blob, codec=codec)
        if symbols:
            print(symbols_sha256(blob, codec=codec))
        else:
            print(f"{file}: ok")
    except LatentpressError as error:
        _fail(error, file)


@app.command()
def codecs(as_json: AsJson = False) -> None:
    """Codecs and presets that are installed."""
    from latentpress.inspect import describe_codecs

    rows = describe_codecs()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    unit = "enc, dec: thousand multiplications a pixel, or a sample of an array"
    table = Table("preset", "domain", "parameters", "enc", "dec", "weights", "licence", caption=unit)
    table.columns[0].no_wrap = True
    for row in rows:
        macs = row.get("macs_per_pixel") or row.get("macs_per_sample") or {}
        cells = [f"{macs[k] / 1e3:.1f}" if k in macs else "" for k in ("encode", "decode")]
        size = f"{row['weight_bytes'] / 1e6:.2f} MB" if row.get("weight_bytes") else "none"
        table.add_row(row["name"], row["domain"], f"{row.get('parameters', 0):,}", *cells, size, str(row.get("licence", "")))
    Console().print(table)


@app.command()
def demo(
    output: Annotated[str, typer.Option("-o", "--output", metavar="FOLDER", help="where files and the picture go")] = "latentpress-demo",
) -> None:
    """Encode and decode packaged photographs beside JPEG, WebP and AVIF at matched bytes; write a comparison picture."""
    from latentpress.eval.demo import run_demo

    run_demo(Path(output))


for group in (train, bench, report):
    group.register(app)

__all__ = ["app", "main"]
