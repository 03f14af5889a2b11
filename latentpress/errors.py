"""The error tree of the suite. A leaf: imports nothing.

    LatentpressError                 all of the below; the command line prints it as one line
    ├── FormatError                  the bytes are no valid .lpz file (or foreign file)
    │   └── ChecksumError            a CRC-32C does not match
    ├── LimitError                   more pixels, samples, memory or nesting than the caller allows
    ├── UnsupportedError             valid, but this codec or version cannot do it
    ├── MissingPresetError           the file needs weights that are not installed
    ├── MissingExtraError            an optional dependency is not installed
    ├── InputError                   the caller's argument or input file cannot be used
    └── BoundError                   an error bound could not be kept

Facts stay in `args`, so that an error survives pickling to a worker process.
"""

from __future__ import annotations


class LatentpressError(Exception):
    """Base of every error that latentpress raises on purpose; `str()` is one line that says what to do."""


class FormatError(LatentpressError):
    """The bytes cannot be a valid file."""


class ChecksumError(FormatError):
    """A stored CRC-32C differs from the computed one.

    Attributes: part (which block), offset (byte in the file), stored, computed (32-bit values).
    """

    def __init__(self, part: str, offset: int, stored: int, computed: int) -> None:
        super().__init__(part, offset, stored, computed)
        self.part, self.offset, self.stored, self.computed = part, offset, stored, computed

    def __str__(self) -> str:
        return (
            f"{self.part} at byte {self.offset}: CRC-32C {self.computed:08x}, file says {self.stored:08x}; "
            "copy the file again, or read what is left with --partial"
        )


class LimitError(LatentpressError):
    """A size in the input exceeds a limit; the limit can be raised by the caller (`Limits`)."""


class UnsupportedError(LatentpressError):
    """The request is valid but not supported by this codec, preset or version."""


class MissingPresetError(LatentpressError):
    """No installed preset has the name or weights digest that the file needs."""


class MissingExtraError(LatentpressError):
    """An optional dependency is missing. `args = (module, extra)`."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(module, extra)
        self.module, self.extra = module, extra

    def __str__(self) -> str:
        return f"{self.module} is not installed: pip install 'latentpress[{self.extra}]'"


class InputError(LatentpressError):
    """An input file or argument cannot be used; the message names it and the remedy."""


class BoundError(LatentpressError):
    """The promised error bound does not hold, so nothing was written."""
