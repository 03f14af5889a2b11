"""latentpress: learned codecs people can rely on.

    >>> import latentpress
    >>> blob = latentpress.encode("photo.png", quality=50)          # doctest: +SKIP
    >>> latentpress.decode(blob).data.shape                         # doctest: +SKIP
    (512, 768, 3)

Names load on first use (PEP 562), so that importing the package, and `latentpress --help`, load neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.0.1"

_HOME = {
    "encode": "api", "decode": "api", "encode_file": "api", "decode_file": "api", "open_latents": "api",
    "encode_dataset": "fields.writing", "open_dataset": "fields.opening", "decode_dataset": "fields.opening",
    "load_codec": "codecs.registry", "Signal": "codecs.base",
    "LatentpressError": "errors", "FormatError": "errors", "ChecksumError": "errors", "LimitError": "errors", "UnsupportedError": "errors",
    "MissingPresetError": "errors", "MissingExtraError": "errors", "InputError": "errors", "BoundError": "errors",
}  # fmt: skip
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"latentpress.{_HOME[name]}"), name)
    raise AttributeError(f"module 'latentpress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
