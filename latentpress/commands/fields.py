"""Datasets on the command line: which jobs are theirs, and what their options become."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from latentpress.batch import Job, make_folder, plan
from latentpress.errors import InputError
from latentpress.fields.sources import READABLE, is_dataset_path


def are_datasets(inputs: list[str]) -> bool:
    """Whether all inputs are. Raises InputError for a mixture."""
    found = [is_dataset_path(text) or _holds_datasets(Path(text)) for text in inputs]
    if any(found) and not all(found):
        raise InputError("datasets and other files together: encode them with two commands")
    return bool(found) and all(found)


def _holds_datasets(folder: Path) -> bool:
    return os.path.isdir(folder) and any(f.suffix.lower() in READABLE for f in folder.iterdir())


def jobs_of(inputs: list[str], output: str) -> list[Job]:
    """A Zarr store is one input, though it is a folder. Raises InputError for globs without files and two inputs with one output."""
    stores = [text for text in inputs if os.path.isdir(text) and is_dataset_path(text)]
    others = [text for text in inputs if text not in stores]
    many = len(inputs) > 1 or len(stores) < sum(os.path.isdir(text) for text in inputs) or output.endswith("/") or os.path.isdir(output)
    jobs = [Job(Path(text), Path(output) / f"{Path(text).stem}.lpz" if many else Path(output)) for text in stores]
    jobs += plan(others, f"{output}/" if many else output, suffixes=READABLE, new_suffix=".lpz") if others else []
    if len({job.target for job in jobs}) < len(jobs):
        raise InputError(f"two inputs would have one name in {output}: encode them into separate folders")
    return jobs


def refuse_bounds(*options: Any) -> None:
    """Raises InputError where an option of datasets is given for other files."""
    if any(option not in (None, []) for option in options):
        raise InputError("--max-error, --max-rel-error, --var, --max-error-from, --keep-mean and --scheduler are for datasets (.nc, .zarr, .grib)")


def is_dataset_file(path: Path) -> bool:
    from latentpress.fields.reading import holds_dataset

    return holds_dataset(path)


def print_variables(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("variable", "dims", "dtype", "codec", "bytes", "ratio", "bound", box=None)
    for row in rows:
        dims = ", ".join(f"{name} {size}" for name, size in zip(row["dims"], row["shape"], strict=True))
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        table.add_row(row["name"], dims, row["dtype"], row["codec"], f"{row['bytes']:,}", ratio, row["bound"])
    Console().print(table)


def encode_settings(
    given: dict[str, Any], *, max_error: float | None, max_rel_error: float | None, var: list[str], max_error_from: list[str], keep_mean: bool = False
) -> dict[str, Any]:
    """Keyword arguments of encode_dataset. given: options that images have too. Raises InputError for those that fields do not have."""
    from latentpress.fields.options import bounds_from, variables_of

    for name in ("bpp", "psnr", "max_bytes", "embed_model"):
        if given.get(name):
            raise InputError(f"--{name.replace('_', '-')}: not for datasets; give --max-error, --max-rel-error, --lossless or -q")
    variables = variables_of(var)
    for text in max_error_from:
        name, bound = bounds_from(text)
        if name in variables:
            raise InputError(f"--max-error-from {text}: {name} has a setting by --var already")
        variables[name] = {"max_error": bound}
    return {"max_error": max_error, "max_rel_error": max_rel_error, "quality": given["quality"], "lossless": given["lossless"],
            "variables": variables, "codec": given["codec"], "effort": given["effort"], "keep_mean": keep_mean}  # fmt: skip


def encode_job(settings: dict[str, Any], overwrite: bool, job: Job) -> str:
    from latentpress.fields.files import encode_dataset_file
    from latentpress.fields.reading import open_file
    from latentpress.fields.summary import raw_bytes

    make_folder(job.target.parent)
    size = encode_dataset_file(job.source, job.target, overwrite=overwrite, **settings)
    whole = raw_bytes(open_file(job.target).description)
    return f"{job.source} -> {job.target}  {size} bytes, {whole / size:.2f} times smaller than its values"


def encode_store(inputs: list[str], output: str, settings: dict[str, Any], *, scheduler: str, jobs: int, overwrite: bool) -> str:
    """One dataset to a Zarr store by a dask cluster, with a progress bar. Raises InputError for several inputs."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from latentpress.scale import Progress, encode_archive

    if len(inputs) != 1:
        raise InputError(f"{output}: a store is made of one dataset; give one input")
    if settings["keep_mean"]:
        raise InputError("--keep-mean: for .lpz files; the chunks of a store are coded each on its own")
    options = {k: v for k, v in settings.items() if k != "keep_mean"} | {"codec": settings["codec"] or "lattice"}
    console = Console(stderr=True)
    with Bar(*Bar.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task("regions", total=None)

        def report(progress: Progress) -> None:
            bar.update(row, completed=progress.done, total=progress.total)

        count = encode_archive(inputs[0], output, scheduler=scheduler, workers=jobs, overwrite=overwrite, report=report, **options)
    return f"{inputs[0]} -> {output}  {count} regions"


def decode_job(settings: dict[str, Any], overwrite: bool, job: Job) -> str:
    from latentpress.fields.files import decode_dataset_file

    make_folder(job.target.parent)
    file = decode_dataset_file(job.source, job.target, overwrite=overwrite, **settings)
    sizes = ", ".join(f"{name} {size}" for name, size in file.description.sizes.items())
    damage = "".join(f"\n  damaged: {line}" for line in file.damage)
    return f"{job.source} -> {job.target}  {len(file.description.variables)} variables, {sizes}{damage}"
