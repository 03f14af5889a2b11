"""Entropy coders under one protocol: integer symbols and the table row of each -> bytes -> the symbols again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.compressai_env import load_extension

Symbols = NDArray[np.int32]  # [N]
Rows = NDArray[np.int32]  # [N]


class SymbolCoder(Protocol):
    """prepare: arrays to what the coder's own calls take; restore: what its decoder gives to int32 [N]. Their time is stated apart."""

    name: str

    def prepare(self, values: Symbols | Rows) -> Any: ...
    def encode(self, symbols: Any, rows: Any) -> bytes: ...
    def decode(self, blob: bytes, rows: Any) -> Any: ...
    def restore(self, decoded: Any) -> Symbols: ...


class OwnCoder:
    """`latentpress.entropy.coder` (ANS) over the Gaussian tables of `scales`; takes arrays as they are."""

    name = "latentpress"

    def __init__(self, scales: Sequence[float]) -> None:
        from latentpress.entropy.tables import gaussian_tables

        self.tables = gaussian_tables(list(scales))

    def prepare(self, values: Symbols | Rows) -> Symbols | Rows:
        return values

    def encode(self, symbols: Symbols, rows: Rows) -> bytes:
        from latentpress.entropy.coder import Encoder

        encoder = Encoder()
        encoder.push(symbols, rows, self.tables)
        return bytes(encoder.finish())

    def decode(self, blob: bytes, rows: Rows) -> Symbols:
        from latentpress.entropy.coder import Decoder

        decoder = Decoder(blob)
        symbols = decoder.pull(rows, self.tables)
        decoder.close()
        return symbols

    def restore(self, decoded: Symbols) -> Symbols:
        return decoded


class CompressAICoder:
    """CompressAI's rANS with 16-bit tables of the same scales, built as its Gaussian conditional does: a tail of 1e-9 goes to bypass.

    Its calls take Python lists, so `prepare` is `tolist` and `restore` builds an array.
    """

    name = "compressai"

    def __init__(self, scales: Sequence[float], tail: float = 1e-9) -> None:
        self._ans = load_extension("ans")
        rows = [_quantised(s, tail) for s in scales]
        self._cdfs, self._offsets = [r[0] for r in rows], [r[1] for r in rows]
        self._sizes = [len(c) for c in self._cdfs]

    def prepare(self, values: Symbols | Rows) -> list[int]:
        listed: list[int] = values.tolist()
        return listed

    def encode(self, symbols: list[int], rows: list[int]) -> bytes:
        blob: bytes = self._ans.RansEncoder().encode_with_indexes(symbols, rows, self._cdfs, self._sizes, self._offsets)
        return blob

    def decode(self, blob: bytes, rows: list[int]) -> list[int]:
        decoded: list[int] = self._ans.RansDecoder().decode_with_indexes(blob, rows, self._cdfs, self._sizes, self._offsets)
        return decoded

    def restore(self, decoded: list[int]) -> Symbols:
        return np.array(decoded, np.int32)


def _quantised(scale: float, tail: float) -> tuple[list[int], int]:
    """(cumulative counts of 2**16, first symbol) for N(0, scale**2) rounded to integers; the last count is the way out to bypass."""
    from scipy.special import ndtr, ndtri

    reach = int(np.ceil(-scale * ndtri(tail / 2)))
    edges = ndtr(-np.abs(np.arange(-reach, reach + 2) - 0.5) / scale)  # lower tails are precise, upper ones are not
    inside = np.abs(np.diff(edges))
    inside[reach] = 1 - 2 * edges[reach]
    masses = [*inside.tolist(), float(2 * edges[0])]
    return list(load_extension("_CXX").pmf_to_quantized_cdf(masses, 16)), -reach
