"""A DatasetFile as an xarray.Dataset whose values are decoded when they are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xarray.backends import BackendArray
from xarray.core import indexing

from latentpress.errors import FormatError
from latentpress.fields.description import Variable
from latentpress.fields.exact import known_dtype
from latentpress.fields.reading import DatasetFile

if TYPE_CHECKING:
    import xarray


class LazyArray(BackendArray):  # type: ignore[misc]
    """One variable. Indexing decodes the chunks of the box around what is asked for."""

    def __init__(self, file: DatasetFile, v: Variable) -> None:
        self.file, self.name, self.shape, self.dtype = file, v.name, v.shape, known_dtype(v.dtype).newbyteorder("=")

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        region, rest = [], []
        for k, size in zip(key, self.shape, strict=True):
            steps = range(size)[k] if isinstance(k, slice) else range(int(k), int(k) + 1)
            ends = (steps[0], steps[-1]) if len(steps) else (0, -1)
            region.append(slice(min(ends), max(ends) + 1))
            rest.append(slice(None, None, steps.step) if isinstance(k, slice) else 0)
        return self.file.read(self.name, region)[tuple(rest)]


def lazy_dataset(file: DatasetFile) -> xarray.Dataset:
    """Raw, as `encode_dataset` was given it. Raises FormatError where the description is no dataset of xarray."""
    import xarray

    variables = {v.name: _variable(file, v) for v in file.description.variables}
    try:
        dataset = xarray.Dataset(variables, attrs=dict(file.description.attrs))
    except ValueError as error:
        raise FormatError(f"no dataset: {' '.join(str(error).split())}") from error
    dataset.encoding = {"unlimited_dims": set(file.description.unlimited)}
    if isinstance(file.source, str):
        dataset.encoding["source"] = file.source
    return dataset


def _variable(file: DatasetFile, v: Variable) -> Any:
    import xarray

    encoding = {**v.encoding, "dtype": known_dtype(v.dtype)}
    if "chunksizes" in encoding:
        encoding["chunksizes"] = tuple(encoding["chunksizes"])
    if "object" in str(encoding["dtype"]):
        encoding["dtype"] = str
    return xarray.Variable(v.dims, indexing.LazilyIndexedArray(LazyArray(file, v)), dict(v.attrs), encoding)
