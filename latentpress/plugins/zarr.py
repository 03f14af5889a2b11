"""latentpress as the serializer of Zarr 3 arrays.

    >>> codec = LatentpressCodec(max_error=0.05)                                            # doctest: +SKIP
    >>> ds.to_zarr("era5.zarr", encoding={"t2m": {"serializer": codec, "compressors": None}})    # doctest: +SKIP

Every chunk is a whole .lpz file. Whoever opens the store needs latentpress installed, and no import of it. A chunk that is written again in
part is decoded and encoded again: what was lossy may then lose twice, so write whole chunks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration

if TYPE_CHECKING:
    from latentpress.fields.arrays import ArraySettings

NAME = "latentpress"


@dataclass(frozen=True, kw_only=True)
class LatentpressCodec(ArrayBytesCodec):  # type: ignore[misc]
    """Its fields are those of fields.arrays.ArraySettings: at most one of max_error, max_rel_error and quality; none is lossless."""

    is_fixed_size = False

    max_error: float | None = None
    max_rel_error: float | None = None
    quality: float | None = None
    scale_factor: float | None = None
    add_offset: float | None = None
    fill: float | int | None = None
    codec: str = "lattice"
    effort: int = 2

    def __post_init__(self) -> None:
        _ = self.settings  # raises InputError

    @property
    def settings(self) -> ArraySettings:
        from latentpress.fields.arrays import ArraySettings

        return ArraySettings(**vars(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        from latentpress.fields.arrays import ArraySettings

        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        return cls(**vars(ArraySettings.from_config(configuration or {})))

    def to_dict(self) -> dict[str, Any]:
        return {"name": NAME, "configuration": self.settings.config()}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raises UnsupportedError for types and shapes that it does not code."""
        from latentpress.errors import UnsupportedError
        from latentpress.fields.arrays import check_dtype

        check_dtype(dtype.to_native_dtype())
        if not 1 <= len(shape) <= 8:
            raise UnsupportedError(f"latentpress codes arrays of 1 to 8 dimensions, not {len(shape)}; leave this array to another codec")

    def _encode_sync(self, chunk_array: Any, chunk_spec: Any) -> Any:
        from latentpress.fields.arrays import array_file

        return chunk_spec.prototype.buffer.from_bytes(array_file(np.asarray(chunk_array.as_numpy_array()), self.settings))

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        from latentpress.fields.arrays import file_array

        dtype = chunk_spec.dtype.to_native_dtype()
        data = file_array(chunk_bytes.to_bytes(), shape=tuple(chunk_spec.shape), dtype=dtype)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(data.astype(dtype, copy=False))

    async def _encode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._encode_sync, chunk_array, chunk_spec)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        raise NotImplementedError  # it depends on the values
