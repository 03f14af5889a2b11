"""docs/FORMAT.md is enough to read a file of samples: here is a reader in Python's integers, made from sections 9.2, 14 and 15 alone."""

from __future__ import annotations

import hashlib
import json
import lzma
from fractions import Fraction
from math import floor, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from latentpress import api, container
from latentpress.codecs.presets import write_preset
from latentpress.entropy.circuit_pack import pack
from tests.circuits import random_mixture, register_circuit

K = 1 << 24


class Stream:
    """[9.2]"""

    def __init__(self, payload: bytes) -> None:
        self.words = [int.from_bytes(payload[i : i + 4], "little") for i in range(0, len(payload), 4)]
        self.state = 0
        self.fill()
        self.fill()

    def fill(self) -> None:
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def index(self, c: list[int]) -> int:
        q = self.state % K
        k = max(i for i in range(len(c) - 1) if c[i] <= q)
        self.state = (self.state >> 24) * (c[k + 1] - c[k]) + q - c[k]
        self.fill()
        return k


def weight(code: int) -> int:
    return floor(2 ** (18 + (1 - int(code)) / 8) + 0.5) if code else 0


def shares(w: list[int], t: int) -> list[int]:
    w = w if sum(w) else [1] * len(w)
    s = [(v * t + sum(w) // 2) // sum(w) for v in w]
    s[s.index(max(s))] -= max(sum(s) - t, 0)
    return s


def norm(m: list[int], s: int, bits: int) -> list[int]:
    return [floor(v * Fraction(2) ** (bits - 1 - floor(log2(s)))) for v in m] if s else [1] * len(m)


class Model:
    """[14, Weights]"""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.n, self.values, self.m, self.bits, self.clusters = (*map(int, arrays["sizes"]), 1)[:5]
        self.parents, self.variables = arrays["parents"].tolist(), arrays["variables"].tolist()
        self.low, self.digits = arrays["low"].tolist(), arrays["digits"].tolist()
        n, v, m = self.n, self.values, self.m
        common = self.raw(arrays["transitions"], (n - 1, m, m))
        changes = self.raw(arrays["changes"], (n - 1, m, m, self.clusters)) if self.clusters > 1 else None
        tables = [common] if changes is None else [[[[(int(w) + int(changes[k, i, j, c])) % 256 for j, w in enumerate(row)]
                                                   for i, row in enumerate(rows)] for k, rows in enumerate(common)] for c in range(self.clusters)]
        self.t = [[None] + [[shares([weight(c) for c in row], 1 << self.bits) for row in rows[k]] for k in range(n - 1)] for rows in tables]
        self.r = [shares([weight(c) for c in row], 1 << self.bits) for row in arrays["root"].reshape(self.clusters, m)]
        self.shares = [weight(c) for c in arrays["shares"]] if self.clusters > 1 else [1]
        if "leaves" in arrays:
            codes = self.raw(arrays["leaves"], (n, v, m))
            columns = [[shares([weight(c) for c in codes[k, :, z]], 1 << 20) for z in range(m)] for k in range(n)]
            self.leaf = [[[max(1, columns[k][z][x]) for z in range(m)] for x in range(v)] for k in range(n)]
        else:
            b = arrays["basis"].shape[1]
            s = [shares([weight(c) for c in arrays["basis"][:, i]], 1 << 16) for i in range(b)]
            codes = self.raw(arrays["mixing"], (n, b, m))
            u = [[shares([weight(c) for c in codes[k, :, z]], 1 << 12) for z in range(m)] for k in range(n)]
            self.leaf = [[[max(1, sum(s[i][x] * u[k][z][i] for i in range(b)) >> 8) for z in range(m)] for x in range(v)] for k in range(n)]
        self.children: list[list[int]] = [[] for _ in range(n)]
        under = [1] * n
        for k in range(n - 1, 0, -1):
            under[self.parents[k]] += under[k]
            self.children[self.parents[k]].append(k)
        for children in self.children:
            children.sort(key=lambda k: (under[k], k))

    @staticmethod
    def raw(blob: Any, shape: tuple[int, ...]) -> Any:
        filters = [{"id": lzma.FILTER_LZMA2, "lc": 0, "lp": 0, "pb": 0}]
        return np.frombuffer(lzma.decompress(blob.tobytes(), lzma.FORMAT_RAW, filters=filters), np.uint8).reshape(shape)


class Block:
    """[14, Messages and Symbols]: the samples of one chunk."""

    def __init__(self, model: Model, samples: int, stream: Stream) -> None:
        self.model, self.count, self.stream = model, samples, stream
        self.x = [[0] * samples for _ in range(model.n)]
        clusters, sums = model.clusters, [sum(model.shares[:j]) for j in range(model.clusters + 1)]
        table = [j + sums[j] * (K - clusters) // sums[-1] for j in range(clusters + 1)]
        found = [stream.index(table) if clusters > 1 else 0 for _ in range(samples)]
        self.order = sorted(range(samples), key=lambda i: found[i])
        self.cluster = [found[i] for i in self.order]
        self.visit(0, [model.r[c] for c in self.cluster])

    def share(self, m: list[int]) -> list[int]:
        return norm(m, sum(m), self.model.bits)

    def scale(self, m: list[int]) -> list[int]:
        return norm(m, max(m), self.model.bits)

    def visit(self, k: int, messages: list[list[int]]) -> list[list[int]]:
        model, states = self.model, range(self.model.m)
        d = [self.share(m) for m in messages]
        self.symbols(k, [[v >> max(0, model.bits - 16) for v in m] for m in d])
        seen = [self.scale(model.leaf[k][x]) for x in self.x[k]]
        a = [self.share([p * q for p, q in zip(m, s, strict=True)]) for m, s in zip(d, seen, strict=True)]
        b = seen
        for c in model.children[k]:
            t: list[Any] = [model.t[own][c] for own in self.cluster]
            below = self.visit(c, [[sum(m[p] * w[p][z] for p in states) for z in states] for m, w in zip(a, t, strict=True)])
            u = [self.scale([sum(m[z] * w[p][z] for z in states) for p in states]) for m, w in zip(below, t, strict=True)]
            a = [self.share([p * q for p, q in zip(m, w, strict=True)]) for m, w in zip(a, u, strict=True)]
            b = [self.scale([p * q for p, q in zip(m, w, strict=True)]) for m, w in zip(b, u, strict=True)]
        return b

    def symbols(self, k: int, messages: list[list[int]]) -> None:
        values, leaf = self.model.values, self.model.leaf[k]
        if values == 1:
            return
        masses = [[sum(d * w for d, w in zip(m, leaf[x], strict=True)) for x in range(values)] for m in messages]
        totals = [sum(leaf[x]) for x in range(values)]
        w = totals.index(max(totals))
        others = [i for i, m in enumerate(masses) if self.stream.index([0, 1 + m[w] * (K - 2) // sum(m), K])]
        self.x[k] = [w] * self.count
        for i in others:
            masses[i][w] = 0
            self.x[k][i] = 1 - w
        width = min(values, 16)
        starts = dict.fromkeys(others, 0)
        if values > 16:
            for i in others:
                starts[i] = 16 * self.entry([sum(masses[i][s : s + 16]) for s in range(0, values, 16)])
        if values > 2:
            for i in others:
                self.x[k][i] = starts[i] + self.entry([*masses[i][starts[i] : starts[i] + width], *[0] * 16][:width])

    def entry(self, masses: list[int]) -> int:
        e = len(masses)
        total = max(sum(masses), 1)
        return self.stream.index([0, *(1 + j + sum(masses[:j]) * (K - 2 - e) // total for j in range(e + 1)), K]) - 1


def varint(blob: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (blob[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if blob[at - 1] < 0x80:
            return value, at


def read(blob: bytes) -> list[list[int]]:
    """All samples of a file whose model travels in it."""
    file = container.read(blob)
    travel = file.metadata["model"]
    size = int.from_bytes(travel[:4], "little")
    assert json.loads(travel[4 : 4 + size])["codec"] == "circuit"
    weights = travel[4 + size :]
    assert hashlib.sha256(weights).digest().startswith(file.encoded.digest)
    model = Model(load(weights))
    total, block = file.encoded.shape[0], file.encoded.parameters["block"]
    out: list[list[int]] = []
    for i, chunk in enumerate(file.encoded.chunks):
        count = min(block, total - i * block)
        patches, at = varint(chunk.payload, 8)
        places, index = {}, -1
        for _ in range(patches):
            gap, at = varint(chunk.payload, at)
            value, at = varint(chunk.payload, at)
            index += gap + 1
            places[index] = value // 2 if value % 2 == 0 else -(value + 1) // 2
        found = Block(model, count, Stream(chunk.payload[at:]))
        x = [[row[found.order.index(s)] for s in range(count)] for row in found.x]
        flat = []
        for s in range(count):
            digits = iter(x[model.variables.index(v)][s] for v in range(model.n))
            for low, number in zip(model.low, model.digits, strict=True):
                value = 0
                for _ in range(number):
                    value = value * model.values + next(digits)
                flat.append(low + value)
        for place, value in places.items():
            flat[place] = value
        columns = len(model.low)
        out += [flat[s * columns : (s + 1) * columns] for s in range(count)]
        raw = np.array(flat, file.encoded.dtype).astype(np.dtype(file.encoded.dtype).newbyteorder("<")).tobytes()
        assert hashlib.sha256(raw).digest()[:8] == chunk.payload[:8]
    return out


@pytest.mark.parametrize(
    ("values", "bits", "shared", "clusters"),
    [(2, 12, False, 1), (9, 20, False, 1), (37, 12, True, 1), (16, 8, False, 1), (20, 12, True, 3), (2, 20, False, 2)],
)
def test_the_page_is_enough(values: int, bits: int, shared: bool, clusters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_circuit(monkeypatch)
    circuit = random_mixture(clusters, 8, values, 4, 3, peak=4)
    parts: dict[str, Any] = {}
    if shared:
        import torch

        basis, mixing = torch.rand(values, 3) ** 4, torch.rand(8, 3, 4)
        parts = {"basis": basis / basis.sum(0), "mixing": mixing / mixing.sum(1, keepdim=True)}
    digits = np.array([1, 2, 1, 3, 1], np.uint8)
    centres = {"centres": np.random.default_rng(1).integers(0, values, (clusters, 8)).astype(np.uint8)} if clusters > 1 else {}
    weights = pack(circuit, bits=bits, **parts) | centres | {"low": np.array([-3, 0, 5, 0, 1], np.int64), "digits": digits}
    write_preset(tmp_path / "p", {"codec": "circuit", "block": 4, "licence": "Apache-2.0"}, weights)
    array = np.random.default_rng(0).integers(-3, values * 2, (11, 5)).astype(np.int16)
    array[2, 2], array[9, 4] = -30_000, 32_767
    assert read(api.encode(array, codec=tmp_path / "p", embed_model=True)) == array.tolist()
