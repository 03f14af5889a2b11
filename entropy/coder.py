"""The entropy coder: the only file that imports constriction.

    Encoder.push(symbols, rows, tables) ... finish() -> bytes        ANS, a stack: pushes are kept and coded in reverse at the end
    Decoder(bytes).pull(rows, tables) -> symbols ... close()         pulls in the order of the pushes

Symbols are grouped by row, one constriction call a row. Inside a push: the groups in rising row order (each in the order given), then what
escaped. An escaped symbol becomes a positive integer v (tables.escape_value), coded as an Elias-gamma code in bypass bits:
five bits of bit_length(v) - 1, then the digits of v below the first, in parts of at most 16 bits.

`SequentialEncoder` and `SequentialDecoder` offer the same on a range coder (a queue), for tables that depend on what was just decoded.

Exactness: `Categorical((p - 1).astype(float64), perfect=False)` uses the integer counts p as they are (24 bits, sum 2**24);
tests/entropy/test_coder.py holds the very words, so a constriction that codes differently is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import constriction
import numpy as np
from numpy.typing import NDArray

from latentpress.entropy.tables import MAX_SYMBOL, Tables, bit_length, escape_value, escaped_symbol
from latentpress.errors import FormatError

Symbols = NDArray[np.int32]
Rows = NDArray[np.integer[Any]]
_model = constriction.stream.model
_PART = 16  # bits of one bypass call
_models: WeakKeyDictionary[Tables, list[Any]] = WeakKeyDictionary()


class _Source(Protocol):
    def take(self, model: Any, count: int) -> Symbols: ...


def _models_of(tables: Tables) -> list[Any]:
    if tables not in _models:
        _models[tables] = [
            _model.Categorical((tables.row_counts(r) - 1).astype(np.float64), perfect=False) for r in range(tables.rows)
        ]
    return _models[tables]


def _bypass(bits: int) -> Any:
    return _model.Uniform(1 << bits)


def _grouped(rows: Rows, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Stable order by row, the rows present, and the end of each one's group."""
    narrow = rows.astype(np.uint8) if count <= 256 else rows.astype(np.uint16) if count <= 65536 else rows  # radix sort for narrow types
    order = np.argsort(narrow, kind="stable")
    sizes = np.bincount(rows, minlength=count)
    present = np.flatnonzero(sizes)
    return order, present, np.cumsum(sizes[present])


def _calls(symbols: Symbols, rows: Rows, tables: Tables) -> Iterator[tuple[Symbols, Any]]:
    """The constriction calls of one push, in decoding order."""
    order, present, ends = _grouped(rows, tables.rows)
    ordered, models, begin = symbols[order], _models_of(tables), 0
    outside: list[NDArray[np.intp]] = []
    for row, end in zip(present, ends, strict=True):
        group, low, width = ordered[begin:end], tables.low[row], tables.high[row] - tables.low[row]
        group -= low
        if group.min() < 0 or group.max() >= width:
            escaped = (group < 0) | (group >= width)
            group[escaped] = width
            outside.append(order[begin:end][escaped])
        yield group, models[row]
        begin = end
    if outside:
        places = np.sort(np.concatenate(outside))
        yield from _escape_calls(escape_value(symbols[places], tables.low[rows[places]], tables.high[rows[places]]))


def _escape_calls(value: NDArray[np.int64]) -> Iterator[tuple[Symbols, Any]]:
    digits = bit_length(value) - 1
    yield digits.astype(np.int32), _bypass(5)
    for part, size in _parts(digits):
        for bits in np.unique(size[size > 0]):
            chosen = size == bits
            yield ((value[chosen] >> (part * _PART)) & ((1 << int(bits)) - 1)).astype(np.int32), _bypass(int(bits))


def _parts(digits: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For part 0, 1: how many of its bits each value has."""
    for part in range(2):
        yield part, np.clip(digits - part * _PART, 0, _PART)


def _take(source: _Source, rows: Rows, tables: Tables) -> Symbols:
    order, present, ends = _grouped(rows, tables.rows)
    ordered, models, begin = np.empty(len(rows), np.int32), _models_of(tables), 0
    outside: list[NDArray[np.intp]] = []
    for row, end in zip(present, ends, strict=True):
        group = source.take(models[row], int(end - begin))
        width = tables.high[row] - tables.low[row]
        if group.max() >= width:
            outside.append(order[begin:end][group >= width])
        np.add(group, tables.low[row], out=ordered[begin:end])
        begin = end
    out = np.empty(len(rows), np.int32)
    out[order] = ordered
    if outside:
        places = np.sort(np.concatenate(outside))
        out[places] = _take_escaped(source, tables.low[rows[places]], tables.high[rows[places]])
    return out


def _take_escaped(source: _Source, low: Symbols, high: Symbols) -> Symbols:
    digits = source.take(_bypass(5), len(low)).astype(np.int64)
    value = np.int64(1) << digits
    for part, size in _parts(digits):
        for bits in np.unique(size[size > 0]):
            chosen = size == bits
            value[chosen] |= source.take(_bypass(int(bits)), int(chosen.sum())).astype(np.int64) << (part * _PART)
    symbols = escaped_symbol(value, low, high)
    if (np.abs(symbols) >= MAX_SYMBOL).any():
        raise FormatError("damaged stream: an escaped symbol is out of range")
    return symbols.astype(np.int32)


def _checked(symbols: Symbols, rows: Rows, tables: Tables) -> tuple[Symbols, Rows]:
    symbols, rows = np.asarray(symbols), np.asarray(rows)
    if symbols.dtype != np.int32 or symbols.ndim != 1 or symbols.shape != rows.shape:
        raise ValueError(f"flat int32 symbols and as many rows expected, got {symbols.dtype} {symbols.shape} and {rows.shape}")
    if len(rows) and not (rows.min() >= 0 and rows.max() < tables.rows):
        raise ValueError(f"rows reach from {rows.min()} to {rows.max()}, the tables have {tables.rows}")
    if len(symbols) and max(-int(symbols.min()), int(symbols.max())) >= MAX_SYMBOL:
        raise ValueError(f"symbols must stay below {MAX_SYMBOL} in magnitude")
    return symbols, rows


def _words(blob: bytes) -> NDArray[np.uint32]:
    if len(blob) % 4:
        raise FormatError(f"damaged stream: {len(blob)} bytes are not a whole number of 32-bit words")
    return np.frombuffer(blob, "<u4").astype(np.uint32)


class Encoder:
    """ANS encoder; pushes are decoded in the order in which they were made."""

    def __init__(self) -> None:
        self._pushes: list[tuple[Symbols, Any]] = []

    def push(self, symbols: Symbols, rows: Rows, tables: Tables) -> None:
        """symbols int32 [N], rows integer [N]: which row of `tables` codes each. Raises ValueError on other shapes or unknown rows."""
        self._pushes.extend(_calls(*_checked(symbols, rows, tables), tables))

    def finish(self) -> bytes:
        coder = constriction.stream.stack.AnsCoder()
        for symbols, model in reversed(self._pushes):
            coder.encode_reverse(symbols, model)
        return bytes(coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """ANS decoder. Raises FormatError for bytes that no Encoder wrote, as far as can be told."""

    def __init__(self, blob: bytes) -> None:
        try:
            self._coder = constriction.stream.stack.AnsCoder(_words(blob))
        except ValueError as error:
            raise FormatError("damaged stream: it ends in a zero word") from error

    def take(self, model: Any, count: int) -> Symbols:
        return np.asarray(self._coder.decode(model, count))

    def pull(self, rows: Rows, tables: Tables) -> Symbols:
        """int32 [N] symbols for rows [N]."""
        return _take(self, np.asarray(rows), tables)

    def close(self) -> None:
        """Raises FormatError unless the decoder stands exactly at the end."""
        if not self._coder.is_empty():
            raise FormatError("damaged stream: data is left after the last symbol, or symbols were read that no data backs")


class SequentialEncoder:
    """Range encoder with the interface of `Encoder`."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def push(self, symbols: Symbols, rows: Rows, tables: Tables) -> None:
        for part, model in _calls(*_checked(symbols, rows, tables), tables):
            self._coder.encode(part, model)

    def finish(self) -> bytes:
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class SequentialDecoder:
    """Range decoder with the interface of `Decoder`."""

    def __init__(self, blob: bytes) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(_words(blob))

    def take(self, model: Any, count: int) -> Symbols:
        try:
            return np.asarray(self._coder.decode(model, count))
        except (AssertionError, ValueError) as error:
            raise FormatError("damaged stream: no symbol fits the data") from error

    def pull(self, rows: Rows, tables: Tables) -> Symbols:
        return _take(self, np.asarray(rows), tables)

    def close(self) -> None:
        if not self._coder.maybe_exhausted():
            raise FormatError("damaged stream: data is left after the last symbol")


class RowEncoder:
    """ANS encoder for symbols that have a table each: integer counts that sum to 2**24. About 50 ns a symbol for tables of 2 or 3 entries."""

    def __init__(self) -> None:
        self._pushes: list[tuple[Symbols, NDArray[np.float64]]] = []

    def push(self, symbols: Symbols, counts: NDArray[np.int64]) -> None:
        """symbols int32 [N]; counts [N, entries], each at least 1."""
        if len(symbols):
            self._pushes.append((np.ascontiguousarray(symbols, np.int32), _row_parameters(counts)))

    def finish(self) -> bytes:
        coder = constriction.stream.stack.AnsCoder()
        for symbols, counts in reversed(self._pushes):
            coder.encode_reverse(symbols, _ROWS, counts)
        return bytes(coder.get_compressed().astype("<u4").tobytes())


class RowDecoder(Decoder):
    """The inverse of RowEncoder; the tables are asked for when their symbols are due."""

    def pull(self, counts: NDArray[np.int64]) -> Symbols:  # type: ignore[override]
        """int32 [N] symbols for tables [N, entries]."""
        return np.asarray(self._coder.decode(_ROWS, _row_parameters(counts))) if len(counts) else np.empty(0, np.int32)


_ROWS = _model.Categorical(perfect=False)


def _row_parameters(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """As for single tables: constriction adds one to every entry, and uses counts that sum to 2**24 as they are."""
    return np.ascontiguousarray(counts - 1, np.float64)
