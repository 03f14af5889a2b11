"""Archives: every chunk of a Zarr store, or of any other dataset, coded by the workers of a dask cluster into a new store.

    source --regions--> tasks --worker: read, encode, write one chunk--> out.zarr

A region is one chunk of one variable, written whole or not at all, so a run that was stopped goes on where it was: what is in the store is
done. A worker that dies loses the region it was at, and another one does it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from latentpress.errors import InputError, LatentpressError
from latentpress.fields.arrays import ArraySettings
from latentpress.fields.bounds import Request, fill_values, recorded_of, requests_of
from latentpress.fields.sources import extra, raw_dataset
from latentpress.fields.writing import DEFAULT_CODEC, DEFAULT_EFFORT

STATE = "latentpress-archive.json"  # in the store: what is being made of what, and whether it is finished
VALUES = 1 << 22  # of a chunk, about
SIDE = 1024  # of its last two dimensions, at most
_TASKS_A_WORKER = 4  # handed out at a time


@dataclass(frozen=True)
class Task:
    """One chunk of one variable: start of its region and its shape."""

    variable: str
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def region(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.shape, strict=True))


@dataclass(frozen=True)
class Progress:
    """After each region: how many are done (those of earlier runs too), of how many."""

    done: int
    total: int


def encode_archive(
    source: str | PathLike[str], target: str | PathLike[str], *, scheduler: str = "", workers: int = 2, overwrite: bool = False,
    max_error: float | None = None, max_rel_error: float | None = None, lossless: bool = False, quality: float | None = None,
    variables: Mapping[str, Mapping[str, Any]] | None = None, codec: str = DEFAULT_CODEC, effort: int = DEFAULT_EFFORT,
    report: Callable[[Progress], None] = lambda progress: None, client: Any = None,
) -> int:  # fmt: skip
    """A store whose fields are coded by latentpress, chunk by chunk; everything else goes over as it is. Returns the number of regions coded now.

    target     a folder; one that an earlier run left unfinished is gone on with
    scheduler  address of a dask scheduler whose workers see both paths; "": `workers` processes here. Or client: a ready distributed.Client
    All others as in `encode_dataset`, but bounds are numbers. Raises InputError, UnsupportedError, BoundError, MissingExtraError.
    """
    extra("zarr")
    extra("distributed")
    common = Request(max_error=max_error, max_rel_error=max_rel_error, lossless=lossless, quality=quality)
    dataset = raw_dataset(source)
    fields = _fields(dataset, common, variables or {}, codec, effort)
    about = {"source": os.fspath(source), "fields": {name: settings.config() for name, settings in fields.items()},
             "shapes": {name: [str(dataset[name].dtype), *dataset[name].shape] for name in fields}}  # fmt: skip
    folder = Path(target)
    _register()
    if not _resumes(folder, about, overwrite):
        _prepare(dataset, folder, fields, about)
    todo = [task for name in fields for task in _tasks(folder, name)]
    missing = [task for task in todo if not _is_done(folder, task)]
    report(Progress(len(todo) - len(missing), len(todo)))
    if missing:
        for count, _ in enumerate(_run(missing, os.fspath(source), os.fspath(folder), scheduler, workers, client), 1):
            report(Progress(len(todo) - len(missing) + count, len(todo)))
    _write_state(folder, about | {"finished": True})
    return len(missing)


# ---- the store


def _fields(dataset: Any, common: Request, special: Mapping[str, Mapping[str, Any]], codec: str, effort: int) -> dict[str, ArraySettings]:
    return {name: _settings(name, dataset[name], request, codec, effort) for name, request in requests_of(dataset, common, special).items()}


def _settings(name: str, v: Any, request: Request, codec: str, effort: int) -> ArraySettings:
    given = request.given()
    if np.ndim(given.get("max_error", 0)):
        raise InputError(f"{name}: a store keeps its bound as a number; bounds that vary from point to point go into .lpz files")
    given.pop("lossless", None)
    if any(key in v.attrs for key in ("flag_values", "flag_masks", "flag_meanings")):
        given = {}
    elif not request.given():
        given = {"quality": 50.0}
    scale = {key: float(v.attrs[key]) for key in ("scale_factor", "add_offset") if key in v.attrs}
    fill, _ = fill_values(v.dtype, v.attrs)
    return ArraySettings(**given, **scale, fill=None if fill is None or not np.isfinite(fill) else fill.item(), codec=codec, effort=effort)


def _prepare(dataset: Any, folder: Path, fields: Mapping[str, ArraySettings], about: Mapping[str, Any]) -> None:
    """The store with everything but the fields, whose arrays are empty. It appears under its name when it is whole."""
    from latentpress.fields.zarr import new_store, plain_encoding

    with new_store(folder, overwrite=folder.exists()) as temporary:
        try:
            rest = dataset.drop_vars(list(fields))
            encoding = {name: plain_encoding(v) for name, v in rest.variables.items()}
            for v in rest.variables.values():
                v.encoding = {}
            rest.to_zarr(temporary, mode="w-", consolidated=False, zarr_format=3, encoding=encoding)
            for name, settings in fields.items():
                _empty_array(temporary, name, dataset[name], settings)
        except LatentpressError:
            raise
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InputError(f"{folder}: Zarr cannot hold it ({' '.join(str(error).split())[:200]})") from error
        _write_state(Path(temporary), about)


def _empty_array(store: str, name: str, v: Any, settings: ArraySettings) -> None:
    import zarr
    from xarray.backends.zarr import FillValueCoder

    from latentpress.plugins.zarr import LatentpressCodec

    attrs = {key: _plain(value) for key, value in v.attrs.items()} | {key: _plain(a) for key, a in recorded_of(settings.request).items()}
    if "_FillValue" in v.attrs:
        fill: Any = np.asarray(v.attrs["_FillValue"]).astype(v.dtype)[()]
        attrs["_FillValue"] = FillValueCoder.encode(fill, v.dtype)
    zarr.open_group(store, mode="r+").create_array(
        name, shape=v.shape, chunks=chunks_for(v.shape), dtype=v.dtype.newbyteorder("="), serializer=LatentpressCodec(**vars(settings)),
        compressors=None, fill_value=np.nan if v.dtype.kind == "f" else 0, attributes=attrs, dimension_names=list(map(str, v.dims)),
        config={"write_empty_chunks": True},
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def chunks_for(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Whole planes of up to 1024 x 1024, then as much of the dimensions before them, the last one first, as makes about four million values."""
    chunks = [*shape[:-2], *(min(n, SIDE) for n in shape[-2:])]
    left = max(1, VALUES // int(np.prod(chunks[-2:])))
    for axis in range(len(shape) - 3, -1, -1):
        chunks[axis] = min(shape[axis], left)
        left = max(1, left // chunks[axis])
    return tuple(map(int, chunks))


def _resumes(folder: Path, about: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the folder is an unfinished run of the same. Raises InputError where it is anything else, and must not be replaced."""
    if not folder.exists() or overwrite:
        return False
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        raise InputError(f"{folder}: exists already; choose another name or give --overwrite") from None
    finished = state.pop("finished", False)
    if state != json.loads(json.dumps(about)):
        raise InputError(f"{folder}: made of another source or with other settings; choose another name or give --overwrite")
    if finished:
        raise InputError(f"{folder}: is finished; choose another name or give --overwrite")
    return True


def _write_state(folder: Path, about: Mapping[str, Any]) -> None:
    from latentpress.container import write_file

    write_file(folder / STATE, json.dumps(about, indent=1).encode(), overwrite=True)


# ---- regions


def _tasks(folder: Path, name: str) -> Iterator[Task]:
    import zarr

    array = zarr.open_group(folder, mode="r")[name]
    shape, chunks = array.shape, array.chunks  # type: ignore[union-attr]
    for at in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunks, strict=True))):
        start = tuple(int(i) * c for i, c in zip(at, chunks, strict=True))
        yield Task(name, start, tuple(min(c, n - a) for c, n, a in zip(chunks, shape, start, strict=True)))


def _is_done(folder: Path, task: Task) -> bool:
    """Zarr writes a chunk to a temporary name and renames it."""
    chunks = json.loads((folder / task.variable / "zarr.json").read_bytes())["chunk_grid"]["configuration"]["chunk_shape"]
    return (folder / task.variable / "c" / "/".join(str(a // c) for a, c in zip(task.start, chunks, strict=True))).is_file()


def _run(tasks: list[Task], source: str, folder: str, scheduler: str, workers: int, client: Any) -> Iterator[Task]:
    """Tasks as they are finished. An error of one ends the run; what is done stays done."""
    import distributed

    own = client is None
    if own and scheduler:
        client = distributed.Client(scheduler)
    elif own:
        cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        client = distributed.Client(cluster)
    try:
        width = _TASKS_A_WORKER * max(1, len(client.scheduler_info().get("workers", ())))
        waiting = iter(tasks)
        futures = distributed.as_completed(_submitted(client, t, source, folder) for _, t in zip(range(width), waiting, strict=False))
        for future in futures:
            yield future.result()
            for task in waiting:
                futures.add(_submitted(client, task, source, folder))
                break
    except distributed.KilledWorker as error:
        raise InputError(f"several workers died at one region, perhaps for lack of memory ({error}); run again to go on") from error
    finally:
        if own:
            client.shutdown() if not scheduler else client.close()


def _submitted(client: Any, task: Task, source: str, folder: str) -> Any:
    return client.submit(encode_region, source, folder, task, pure=False)


def encode_region(source: str, folder: str, task: Task) -> Task:
    """What a worker does. Doing it twice does no harm."""
    _register()
    data = np.asarray(_opened(source)[task.variable].variable[task.region].values)
    _store(folder)[task.variable][task.region] = data
    return task


@lru_cache(maxsize=2)
def _opened(source: str) -> Any:
    return raw_dataset(source)


@lru_cache(maxsize=2)
def _store(folder: str) -> Any:
    import zarr

    zarr.config.set({"array.write_empty_chunks": True})
    return zarr.open_group(folder, mode="r+")


def _register() -> None:
    """A tree that is not installed has no entry points."""
    import zarr.registry

    from latentpress.plugins.zarr import NAME, LatentpressCodec

    try:
        zarr.registry.get_codec_class(NAME)
    except KeyError:
        zarr.registry.register_codec(NAME, LatentpressCodec)
