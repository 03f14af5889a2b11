"""latentpress as a numcodecs codec: the compressor of Zarr 2 arrays, and the form that benchmarks of climate compressors take.

    >>> codec = numcodecs.get_codec({"id": "latentpress", "max_error": 0.05})               # doctest: +SKIP
    >>> codec.decode(codec.encode(field)).shape == field.shape                              # doctest: +SKIP
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ensure_ndarray

if TYPE_CHECKING:
    from latentpress.fields.arrays import ArraySettings


class Latentpress(Codec):  # type: ignore[misc]
    """settings: those of fields.arrays.ArraySettings; at most one of max_error, max_rel_error and quality, none is lossless.

    Raises InputError for other settings.
    """

    codec_id = "latentpress"

    def __init__(
        self, *, max_error: float | None = None, max_rel_error: float | None = None, quality: float | None = None,
        scale_factor: float | None = None, add_offset: float | None = None, fill: float | int | None = None, codec: str = "lattice",
        effort: int = 2,
    ) -> None:  # fmt: skip
        from latentpress.fields.arrays import ArraySettings

        self.settings: ArraySettings = ArraySettings(max_error=max_error, max_rel_error=max_rel_error, quality=quality, scale_factor=scale_factor,
                                                     add_offset=add_offset, fill=fill, codec=codec, effort=effort)  # fmt: skip

    def encode(self, buf: Any) -> bytes:
        """buf: float32, float64 or integers of up to 32 bits, 1 to 8 dimensions. Raises UnsupportedError, BoundError."""
        from latentpress.fields.arrays import array_file

        return array_file(ensure_ndarray(buf), self.settings)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """An array of the shape, type and order of memory that went in. Raises FormatError."""
        from latentpress.fields.arrays import file_array

        data = file_array(ensure_bytes(buf))
        if out is None:
            return data
        target = ensure_ndarray(out)
        np.copyto(target.view(data.dtype).reshape(data.shape, order="A"), data)
        return out

    def get_config(self) -> dict[str, Any]:
        return {"id": self.codec_id, **self.settings.config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        from latentpress.fields.arrays import ArraySettings

        return cls(**vars(ArraySettings.from_config({k: v for k, v in config.items() if k != "id"})))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.config().items())})"
