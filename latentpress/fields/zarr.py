"""A raw dataset to a Zarr store, a folder: whole or not there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

from latentpress.errors import InputError, LatentpressError
from latentpress.fields.reading import DatasetFile
from latentpress.fields.sources import extra

MARKS = ("zarr.json", ".zgroup", ".zarray")


def write_zarr(file: DatasetFile, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Atomic. Raises InputError for what Zarr cannot hold or the disk refuses; as reading."""
    extra("zarr")
    import zarr  # noqa: F401  # xarray's own message names no extra

    from latentpress.fields.lazy import lazy_dataset

    dataset = lazy_dataset(file)
    encoding = {name: plain_encoding(v) for name, v in dataset.variables.items()}
    for v in dataset.variables.values():
        v.encoding = {}
    with new_store(path, overwrite=overwrite) as temporary:
        try:
            dataset.to_zarr(temporary, mode="w-", consolidated=False, encoding=encoding)
        except LatentpressError:
            raise
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InputError(f"{path}: Zarr cannot hold it ({' '.join(str(error).split())[:200]})") from error


def plain_encoding(v: Any) -> dict[str, Any]:
    """Chunks as they were; a _FillValue only where there was one."""
    chunks = v.encoding.get("chunksizes")
    encoding: dict[str, Any] = {"chunks": tuple(chunks)} if chunks and len(chunks) == v.ndim and 0 not in v.shape else {}
    if v.dtype.kind in "fc" and "_FillValue" not in v.attrs:
        encoding["_FillValue"] = None
    return encoding


@contextmanager
def new_store(path: str | PathLike[str], *, overwrite: bool = False) -> Iterator[str]:
    """A folder to fill, which becomes `path`. Raises InputError if something is there (with overwrite: something that is no Zarr store)."""
    final = os.path.realpath(path)
    if os.path.lexists(final):
        if not overwrite:
            raise InputError(f"{final!r} exists: choose another name, or allow overwriting")
        if not any((Path(final) / mark).is_file() for mark in MARKS):
            raise InputError(f"{final!r} is no Zarr store, so it is not replaced: choose another name")
    stem = os.path.join(os.path.dirname(final), f".lpz-{secrets.token_hex(8)}")
    temporary, old = f"{stem}.tmp", f"{stem}.old"
    try:
        try:
            yield temporary
            if os.path.lexists(final):
                os.rename(final, old)
            os.rename(temporary, final)
        finally:
            if os.path.lexists(old) and not os.path.lexists(final):
                os.rename(old, final)
            for left in (temporary, old):
                with suppress(FileNotFoundError):
                    shutil.rmtree(left)
    except OSError as error:
        raise InputError(f"{final!r} was not written: {error.strerror or error}") from error
