"""circuit: lossless arrays of small images or rows, coded by a probabilistic circuit that was trained on their like.

    samples -> columns of digits 0 .. values-1 (patches for what is out of range) -> blocks -> the nearest cluster of each -> encode_block

A chunk is a block of samples: its first 8 bytes of SHA-256, its patches, its stream. Any block decodes alone, and proves itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.presets import Preset, read_preset
from latentpress.codecs.varint import read_signed, read_varint, signed_varint, varint
from latentpress.entropy.circuit_clusters import nearest
from latentpress.entropy.circuit_exact import IntegerCircuit, carrier_of, decode_block, encode_block
from latentpress.entropy.circuit_pack import unpack
from latentpress.errors import ChecksumError, FormatError, UnsupportedError

HASH_BYTES = 8
MAX_BLOCK = 1 << 16
DTYPES = frozenset(["uint8", "uint16", "uint32", "int8", "int16", "int32", "int64"])
_T = TypeVar("_T")
_U = TypeVar("_U")


@dataclasses.dataclass(frozen=True)
class Columns:
    """How integers become symbols. low: int64 [columns], smallest value coded; digits: int64 [columns], how many in base `values`, highest first."""

    low: NDArray[np.int64]
    digits: NDArray[np.int64]
    values: int

    def __post_init__(self) -> None:
        if len(self.low) != len(self.digits) or (self.digits < 1).any() or (self.digits * math.log2(max(self.values, 2)) > 62).any():
            raise FormatError("the preset's description of its columns is damaged")
        if any(low + self.values**digits > 1 << 62 for low, digits in zip(self.low.tolist(), self.digits.tolist(), strict=True)):
            raise FormatError("the preset's columns reach beyond 62 bits")

    @classmethod
    def fitting(cls, rows: NDArray[Any], shape: tuple[int, ...]) -> Columns:
        """For training data [samples, columns], samples of `shape`: bytes of images as they are; otherwise from each column's least value up, in one
        digit where 256 values are enough and in digits of 256 where not."""
        low, high = rows.min(0).astype(np.int64), rows.max(0).astype(np.int64)
        if rows.dtype == np.uint8 and (len(shape) > 1 or int(high.max()) > 64):
            return cls(np.zeros(len(low), np.int64), np.ones(len(low), np.int64), 256)
        reach = [top - least + 1 for top, least in zip(high.tolist(), low.tolist(), strict=True)]  # Python integers: no overflow
        values = min(256, max(2, *reach, 2))
        most = int(56 / math.log2(values))  # beyond 56 bits values are patched
        digits = [next((d for d in range(1, most) if values**d >= r), most) for r in reach]
        low = np.clip(low, -(1 << 61), 1 << 61)
        return cls(low, np.array(digits, np.int64), values)

    @property
    def variables(self) -> int:
        return int(self.digits.sum())

    def symbols(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[samples, columns] to symbols [samples, variables], and flat indices of values out of range, whose symbols stand for the lowest value."""
        reach = self.values**self.digits  # below 2**62
        outside = (rows < self.low) | (rows > self.low + reach - 1)
        offset = np.where(outside, 0, rows - self.low)
        out = np.empty((len(rows), self.variables), np.int64)
        for at, column, power in self._places():
            out[:, at] = offset[:, column] // self.values**power % self.values
        return out, np.flatnonzero(outside)

    def integers(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse, without patches: [samples, columns]."""
        out = np.repeat(self.low[None], len(symbols), 0)
        for at, column, power in self._places():
            out[:, column] += symbols[:, at] * self.values**power
        return out

    def _places(self) -> Iterator[tuple[int, int, int]]:
        at = 0
        for column, count in enumerate(self.digits.tolist()):
            for power in range(count - 1, -1, -1):
                yield at, column, power
                at += 1


class Circuit(Codec):
    id = "circuit"
    domain = "array"
    dims = ("sample", "variable")
    lossless = True
    directory: Path | None = None  # of the preset, where there is one

    def __init__(
        self, name: str, circuit: IntegerCircuit, columns: Columns, centres: NDArray[np.uint8], *, digest: bytes, description: Mapping[str, Any],
        weight_bytes: int,
    ) -> None:  # fmt: skip
        if columns.variables != circuit.tree.size or columns.values != circuit.values:
            raise FormatError(f"{name}: its columns make {columns.variables} variables, its circuit has {circuit.tree.size}")
        if centres.shape != (circuit.clusters, columns.variables):
            raise FormatError(f"{name}: centres {centres.shape} for {circuit.clusters} clusters of {columns.variables} variables")
        self.name, self.circuit, self.columns, self.centres, self.digest = name, circuit, columns, centres, digest
        self.description, self.weight_bytes = description, weight_bytes
        self.block = int(description.get("block", 2500))
        if not 1 <= self.block <= MAX_BLOCK:
            raise FormatError(f"{name}: blocks of {self.block} samples, 1 to {MAX_BLOCK} expected")

    @classmethod
    def from_preset(cls, directory: Path, name: str) -> Circuit:
        codec = cls.from_parts(read_preset(directory, name))
        codec.directory = directory
        return codec

    @classmethod
    def from_parts(cls, preset: Preset) -> Circuit:
        """Raises FormatError for weights or descriptions that do not fit."""
        weights = preset.weights
        if not {"low", "digits"} <= set(weights):
            raise FormatError(f"{preset.name}: no weights of a circuit")
        circuit = unpack(weights)
        columns = Columns(weights["low"].astype(np.int64), weights["digits"].astype(np.int64), circuit.values)
        centres = weights.get("centres", np.zeros((1, columns.variables), np.uint8))
        return cls(preset.name, circuit, columns, centres, digest=preset.digest, description=preset.description,
                   weight_bytes=sum(a.nbytes for a in weights.values()))  # fmt: skip

    @cached_property
    def carrier(self) -> Any:
        return carrier_of(self.circuit)

    # ---- the contract

    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        data = signal.data
        if data.dtype.name not in DTYPES or not signal.dims or signal.dims[0] != "sample":
            raise UnsupportedError(f"{self.name} codes integer arrays whose first axis is 'sample', not {data.dtype}{data.shape} {signal.dims}")
        if target.quality is None:
            raise UnsupportedError(f"{self.name} is lossless: leave bpp, psnr and max_bytes out")
        count = math.prod(data.shape[1:])
        if count != len(self.columns.low):
            shape = "x".join(map(str, data.shape[1:])) or "1"
            raise UnsupportedError(f"{self.name} codes samples of {self.sample_shape} values, these have {shape}; train a circuit on data like these")
        if data.dtype == np.uint64 or len(data) > (1 << 62):
            raise UnsupportedError(f"{self.name} codes at most 63 bits")
        rows = data.reshape(len(data), count)
        empty = {"empty": 1} if len(data) == 0 else {}
        encoded = Encoded(codec=self.name, digest=self.digest, shape=(max(len(data), 1), *data.shape[1:]), dtype=data.dtype.name, dims=signal.dims,
                          parameters={"block": self.block, **empty}, chunks=())  # fmt: skip
        blocks = [rows[s : s + self.block] for s in range(0, len(rows), self.block)] or [rows]
        payloads = _in_threads(self._payload, blocks)
        return dataclasses.replace(encoded, chunks=tuple(Chunk(payload=p, position=(i,) if i else ()) for i, p in enumerate(payloads)))

    @property
    def sample_shape(self) -> str:
        shape = self.description.get("sample_shape") or [len(self.columns.low)]
        return "x".join(map(str, shape))

    def _payload(self, rows: NDArray[Any]) -> bytes:
        wide = rows.astype(np.int64)
        symbols, outside = self.columns.symbols(wide)
        return self._written(rows, symbols, nearest(self.centres, symbols), outside, wide.ravel()[outside])

    def _written(
        self, rows: NDArray[Any], symbols: NDArray[np.int64], clusters: NDArray[np.int64], outside: NDArray[np.int64], patches: NDArray[np.int64]
    ) -> bytes:
        head = _digest(rows) + varint(len(outside))
        for gap, value in zip(np.diff(outside, prepend=-1).tolist(), patches.tolist(), strict=True):
            head += varint(gap - 1) + signed_varint(value)
        if not len(rows):
            return head
        nodes = np.ascontiguousarray(symbols[:, self.circuit.tree.variables].T)
        return head + encode_block(self.carrier, nodes, clusters)

    def decode(self, encoded: Encoded) -> Signal:
        data = self._decoded(encoded, range(self.places(encoded)))
        return Signal(data=data.reshape(len(data), *encoded.shape[1:]), dims=encoded.dims)

    def decode_samples(self, encoded: Encoded, start: int, stop: int) -> NDArray[Any]:
        """Samples start to stop alone, [stop - start, ...]; `encoded` needs only the chunks that hold them (`blocks_of` says which)."""
        blocks = self.blocks_of(encoded, start, stop)
        data = self._decoded(encoded, blocks)
        first = blocks.start * self._block(encoded)
        return data[start - first : stop - first].reshape(stop - start, *encoded.shape[1:])

    def blocks_of(self, encoded: Encoded, start: int, stop: int) -> range:
        """Positions of the chunks with samples start to stop."""
        block = self._block(encoded)
        return range(start // block, max(start // block, -(-stop // block)))

    def places(self, encoded: Encoded) -> int:
        return -(-encoded.shape[0] // self._block(encoded))

    def _block(self, encoded: Encoded) -> int:
        """Samples a chunk. Raises FormatError for headers that do not fit."""
        block = encoded.parameters.get("block", 0)
        known = set(encoded.parameters) <= {"block", "empty"} and encoded.parameters.get("empty", 1) == 1
        if not 1 <= block <= MAX_BLOCK or not known or ("empty" in encoded.parameters and encoded.shape[0] != 1):
            raise FormatError(f"{self.name}: the parameters {dict(encoded.parameters)} do not fit")
        if encoded.dtype not in DTYPES or not encoded.dims or encoded.dims[0] != "sample" or math.prod(encoded.shape[1:]) != len(self.columns.low):
            raise FormatError(f"{self.name}: samples of {self.sample_shape} integers expected, the header says {encoded.dtype} {encoded.shape}")
        return block

    def _samples(self, encoded: Encoded) -> int:
        return 0 if "empty" in encoded.parameters else encoded.shape[0]

    def _decoded(self, encoded: Encoded, blocks: range) -> NDArray[Any]:
        """Samples of the blocks [samples, columns]; zeros for missing chunks."""
        block, total = self._block(encoded), self._samples(encoded)
        sizes = [max(0, min(block, total - b * block)) for b in blocks]
        chunks = {c.position[0] if c.position else 0: c.payload for c in encoded.chunks}
        work = [(b, size, chunks[b]) for b, size in zip(blocks, sizes, strict=True) if b in chunks]
        results = dict(zip((b for b, _, _ in work), _in_threads(lambda w: self._read(w[2], w[1], encoded.dtype).rows, work), strict=True))
        width = len(self.columns.low)
        parts = [results[b] if b in results else np.zeros((size, width), encoded.dtype) for b, size in zip(blocks, sizes, strict=True)]
        return np.concatenate(parts) if parts else np.zeros((0, width), encoded.dtype)

    def _read(self, payload: bytes, samples: int, dtype: str) -> _Block:
        """One chunk. Raises FormatError, ChecksumError."""
        stored, at = payload[:HASH_BYTES], HASH_BYTES
        outside, patches, at = _patches(payload, at, samples * len(self.columns.low))
        nodes, clusters = decode_block(self.carrier, samples, payload[at:])
        symbols = np.empty((samples, self.columns.variables), np.int64)
        symbols[:, self.circuit.tree.variables] = nodes.T
        wide = self.columns.integers(symbols)
        wide.ravel()[outside] = patches
        rows = wide.astype(dtype)
        if _digest(rows) != stored:
            raise ChecksumError("content of a block (SHA-256)", 0, int.from_bytes(stored[:4], "little"), int.from_bytes(_digest(rows)[:4], "little"))
        return _Block(rows, symbols, clusters, outside, patches)

    def symbols(self, encoded: Encoded) -> tuple[NDArray[np.int32], ...]:
        """A chunk: how many patches; for each its index and its value as two halves; the cluster of each sample; all digits, sample after sample."""
        out = []
        for chunk, size in self._sized(encoded):
            b = self._read(chunk.payload, size, encoded.dtype)
            halves = np.ascontiguousarray(np.stack([b.outside, b.patches], 1)).view(np.int32).ravel()  # little-endian machines; see recode
            parts = [np.array([len(b.outside)]), halves, b.clusters, b.symbols.ravel()]
            out.append(np.concatenate([part.astype(np.int32) for part in parts]))
        return tuple(out)

    def recode(self, encoded: Encoded, symbols: tuple[NDArray[np.int32], ...]) -> Encoded:
        chunks = []
        for (chunk, size), flat in zip(self._sized(encoded), symbols, strict=True):
            count = int(flat[0])
            pairs = np.ascontiguousarray(flat[1 : 1 + 4 * count]).view(np.int64).reshape(count, 2)
            rest = flat[1 + 4 * count :].astype(np.int64)
            clusters, digits = rest[:size], rest[size:].reshape(size, self.columns.variables)
            wide = self.columns.integers(digits)
            wide.ravel()[pairs[:, 0]] = pairs[:, 1]
            payload = self._written(wide.astype(encoded.dtype), digits, clusters, pairs[:, 0], pairs[:, 1])
            chunks.append(dataclasses.replace(chunk, payload=payload))
        return dataclasses.replace(encoded, chunks=tuple(chunks))

    def _sized(self, encoded: Encoded) -> Iterator[tuple[Chunk, int]]:
        """Chunks and how many samples each holds."""
        block, total = self._block(encoded), self._samples(encoded)
        for chunk in encoded.chunks:
            at = chunk.position[0] if chunk.position else 0
            if len(chunk.position) > 1 or at >= self.places(encoded):
                raise FormatError(f"{self.name}: no block has the position {chunk.position}")
            yield chunk, max(0, min(block, total - at * block))

    def describe(self) -> Mapping[str, Any]:
        c = self.circuit
        edges = 2 * (c.tree.size - 1) * c.states**2
        return {
            "parameters": int((c.transitions > 0).sum()) + c.leaves.size, "weight_bytes": self.weight_bytes,
            "licence": self.description.get("licence", ""), "sample_shape": self.sample_shape, "states": c.states, "clusters": c.clusters,
            "macs_per_sample": {"encode": edges, "decode": edges},
            "paper": "Liu, Mandt, Van den Broeck 2022, Lossless compression with probabilistic circuits",
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Block:
    """What a chunk holds. rows [samples, columns]; symbols int64 [samples, variables]; clusters int64 [samples]; outside, patches int64: flat indices
    of values out of range, and these."""

    rows: NDArray[Any]
    symbols: NDArray[np.int64]
    clusters: NDArray[np.int64]
    outside: NDArray[np.int64]
    patches: NDArray[np.int64]


def _in_threads(work: Callable[[_T], _U], items: list[_T]) -> list[_U]:
    """As many at once as torch has threads, each on one: blocks are independent, so nothing depends on how many."""
    workers = min(torch.get_num_threads(), len(items))
    if workers <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, items))


def _digest(rows: NDArray[Any]) -> bytes:
    """Of the samples as little-endian integers of their own type, in C order."""
    return hashlib.sha256(np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes()).digest()[:HASH_BYTES]


def _patches(payload: bytes, at: int, places: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Flat indices, values, and where the stream begins."""
    count, at = read_varint(payload, at)
    if count > places or count > len(payload):
        raise FormatError(f"damaged stream: {count} patches")
    outside, patches = np.empty(count, np.int64), np.empty(count, np.int64)
    index = -1
    for i in range(count):
        gap, at = read_varint(payload, at)
        value, at = read_signed(payload, at)
        index += gap + 1
        if index >= places or not -(1 << 63) <= value < 1 << 63:
            raise FormatError("damaged stream: a patch out of range")
        outside[i], patches[i] = index, value
    return outside, patches, at
