"""Peak memory of a piece of work, as the growth of what the process holds resident (Linux; nothing elsewhere)."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

MEANING = "growth of the process's resident memory at its peak while one encoding and decoding ran, in bytes; null where it cannot be reset"
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """`start()` before the work, `peak()` after it."""

    def __init__(self) -> None:
        self._before: int | None = None

    def start(self) -> None:
        _give_back()  # otherwise the work reuses what earlier work left behind, and seems to need nothing
        try:
            _RESET.write_text("5")  # sets the peak to what is resident now; proc(5)
            self._before = _resident("VmRSS")
        except OSError:
            self._before = None

    def peak(self) -> int | None:
        """Bytes, or None where the system does not tell."""
        return None if self._before is None else max(0, _resident("VmHWM") - self._before)


def _resident(field: str) -> int:
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(field + ":"))
    return int(line.split()[1]) * 1024


@cache
def _c_library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libc.so.6") if sys.platform == "linux" else None
        return library if hasattr(library, "malloc_trim") else None
    except OSError:
        return None


def _give_back() -> None:
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)
