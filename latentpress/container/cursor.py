"""Reads numbers and texts one after the other. `values` writes them."""

from __future__ import annotations

from latentpress.container.layout import TEXT_BYTES, VARINT_BYTES
from latentpress.container.values import is_text
from latentpress.errors import FormatError


class Cursor:
    """Reads forward through `data`, which begins at byte `base` of the file; `part` names it in errors."""

    def __init__(self, data: memoryview, base: int, part: str) -> None:
        self.data, self.base, self.part, self.at = data, base, part, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def error(self, what: str) -> FormatError:
        return FormatError(f"{self.part} at byte {self.base + self.at}: {what}")

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise self.error(f"needs {size} bytes, {self.left} are there")
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def varint(self) -> int:
        value = 0
        for shift in range(0, 7 * VARINT_BYTES, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise self.error("a number is longer than needed")
                return value
        raise self.error(f"a number has more than {VARINT_BYTES} bytes")

    def text(self) -> str:
        """A counted text."""
        return self.text_of(self.varint())

    def text_of(self, size: int) -> str:
        value = self.take(size) if size <= TEXT_BYTES else b""
        if not is_text(value):
            raise self.error(f"a name is not 1 to {TEXT_BYTES} bytes of UTF-8 without control characters")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"a name is not UTF-8: {value!r}") from None
