"""xarray opens .lpz files of datasets, lazily.

    >>> xarray.open_dataset("era5.lpz").t2m.isel(time=0, lat=slice(0, 90)).load()       # doctest: +SKIP

Reading decodes the chunks that cover what is asked for. xarray loads this module whenever it looks for engines, so it loads nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from xarray.backends import BackendEntrypoint

if TYPE_CHECKING:
    import xarray

SUFFIX, MAGIC = ".lpz", b"LPZ"


class LatentpressBackend(BackendEntrypoint):  # type: ignore[misc]
    """Engine "latentpress"."""

    description: ClassVar[str] = "Open datasets in .lpz files"
    open_dataset_parameters: ClassVar[tuple[str, ...] | None] = (
        "filename_or_obj", "mask_and_scale", "decode_times", "concat_characters", "decode_coords", "drop_variables", "use_cftime", "decode_timedelta",
        "partial",
    )  # fmt: skip

    def open_dataset(
        self, filename_or_obj: Any, *, mask_and_scale: Any = True, decode_times: Any = True, concat_characters: Any = True,
        decode_coords: Any = True, drop_variables: str | Iterable[str] | None = None, use_cftime: Any = None, decode_timedelta: Any = None,
        partial: bool = False,
    ) -> xarray.Dataset:  # fmt: skip
        """partial: damaged chunks leave NaN, or the fill value of whole numbers. All others as in xarray.open_dataset.

        Raises FormatError, ChecksumError, LimitError, InputError for files of no dataset.
        """
        import xarray

        from latentpress.fields.lazy import lazy_dataset
        from latentpress.fields.reading import open_file

        raw = lazy_dataset(open_file(_source(filename_or_obj), partial=partial))
        return xarray.decode_cf(
            raw, mask_and_scale=mask_and_scale, decode_times=decode_times, concat_characters=concat_characters, decode_coords=decode_coords,
            drop_variables=drop_variables, use_cftime=use_cftime, decode_timedelta=decode_timedelta,
        )  # fmt: skip

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        if isinstance(filename_or_obj, str | os.PathLike):
            return os.path.splitext(os.fspath(filename_or_obj))[1].lower() == SUFFIX
        return isinstance(filename_or_obj, bytes | memoryview) and bytes(filename_or_obj[:3]) == MAGIC


def _source(given: Any) -> str | bytes:
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)  # type: ignore[return-value]
    return bytes(given) if isinstance(given, bytes | memoryview | bytearray) else given.read()  # type: ignore[no-any-return]
