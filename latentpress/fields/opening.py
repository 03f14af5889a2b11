"""`open_dataset`, `decode_dataset`: an .lpz file as an xarray.Dataset."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from latentpress.codecs.base import Codec
from latentpress.container import Limits
from latentpress.fields.reading import open_file
from latentpress.fields.sources import extra

if TYPE_CHECKING:
    import xarray


def open_dataset(
    source: str | PathLike[str] | bytes, *, partial: bool = False, limits: Limits | None = None, codec: str | PathLike[str] | Codec | None = None,
    decode_cf: bool = True,
) -> xarray.Dataset:  # fmt: skip
    """A lazy xarray.Dataset: reading one time step and a region decodes only its chunks.

    source     path or bytes of an .lpz file
    partial    damaged chunks leave NaN, or the fill value of whole numbers
    decode_cf  unpack, mask and decode times as xarray.open_dataset does; False gives values as they are stored
    Raises FormatError, ChecksumError, LimitError, InputError for files of no dataset; MissingExtraError without xarray.
    """
    extra("xarray")
    import xarray

    from latentpress.fields.lazy import lazy_dataset

    dataset = lazy_dataset(open_file(source, partial=partial, limits=limits, codec=codec))
    return xarray.decode_cf(dataset) if decode_cf else dataset


def decode_dataset(
    source: str | PathLike[str] | bytes, *, partial: bool = False, limits: Limits | None = None, codec: str | PathLike[str] | Codec | None = None,
    decode_cf: bool = True,
) -> xarray.Dataset:  # fmt: skip
    """As `open_dataset`, all in memory; what was damaged is in `.encoding["latentpress_damage"]`, one line each."""
    extra("xarray")
    import xarray

    from latentpress.fields.lazy import lazy_dataset

    file = open_file(source, partial=partial, limits=limits, codec=codec)
    raw = lazy_dataset(file)
    loaded = (xarray.decode_cf(raw) if decode_cf else raw).load()
    loaded.encoding["latentpress_damage"] = tuple(file.damage)
    return loaded


