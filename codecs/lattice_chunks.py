"""Where the chunks of a field lie: stacks of planes, rows, columns; and how a region of the field finds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import FormatError

POINTS = 1 << 20  # of a chunk, about: planes are stacked up to it
LARGEST = 1 << 21  # points of a plane that is not cut
TILE = 1024
BESIDE, MOST_PLANES = 3, 24  # planes that the network sees together; of a chunk, at most
Where = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Chunks:
    """shape of the field; size [planes, rows, columns] of a whole chunk."""

    shape: tuple[int, ...]
    size: tuple[int, int, int]

    @classmethod
    def fitting(cls, shape: tuple[int, ...]) -> Chunks:
        """What the encoder chooses."""
        stack = stacked(shape)
        planes = POINTS // max(1, stack[1] * stack[2]) // BESIDE * BESIDE
        tile = (TILE, TILE) if stack[1] * stack[2] > LARGEST else stack[1:]
        rows, columns = (-(-n // max(1, -(-n // t))) if t else 1 for n, t in zip(stack[1:], tile, strict=True))
        return cls(shape, (min(max(planes, BESIDE), MOST_PLANES), max(rows, 1), max(columns, 1)))

    @classmethod
    def of(cls, shape: tuple[int, ...], parameters: Mapping[str, int]) -> Chunks:
        """Raises FormatError for parameters that no encoder writes."""
        size = tuple(int(parameters.get(name, 0)) for name in ("planes", "rows", "columns"))
        stack = stacked(shape)
        if not (1 <= size[0] <= 1 << 10 and all(1 <= s <= max(n, 1) for s, n in zip(size[1:], stack[1:], strict=True))):
            raise FormatError(f"header does not fit lattice: chunks of {size} in {shape}")
        if size[1] * size[2] > 1 << 26:
            raise FormatError(f"header does not fit lattice: chunks of {size[1]} x {size[2]} points")
        return cls(shape, (size[0], size[1], size[2]))

    @property
    def stack(self) -> tuple[int, int, int]:
        return stacked(self.shape)

    @property
    def parameters(self) -> dict[str, int]:
        return dict(zip(("planes", "rows", "columns"), self.size, strict=True))

    @property
    def count(self) -> int:
        return 0 if 0 in self.shape else math.prod(-(-n // s) for n, s in zip(self.stack, self.size, strict=True))

    def all(self) -> Iterator[tuple[tuple[int, ...], Where]]:
        if self.count:
            for p, i, j in np.ndindex(*(-(-n // s) for n, s in zip(self.stack, self.size, strict=True))):
                yield (p, i, j), self.where((p, i, j))

    def where(self, position: tuple[int, int, int]) -> Where:
        p, i, j = (slice(k * s, min((k + 1) * s, n)) for k, s, n in zip(position, self.size, self.stack, strict=True))
        return p, i, j

    def touching(self, region: tuple[slice, ...]) -> Iterator[tuple[tuple[int, ...], Where]]:
        planes, rows, columns = self._parts(region)
        if not len(planes) or not len(rows) or not len(columns) or not self.count:
            return
        for p in np.unique(planes // self.size[0]):
            for i in range(rows[0] // self.size[1], rows[-1] // self.size[1] + 1):
                for j in range(columns[0] // self.size[2], columns[-1] // self.size[2] + 1):
                    yield (int(p), i, j), self.where((int(p), i, j))

    def place(self, out: NDArray[Any], region: tuple[slice, ...], where: Where, values: NDArray[Any]) -> None:
        """Write what a chunk and the region have in common into `out`, which has the region's shape."""
        parts = self._parts(region)
        target = out.reshape(tuple(len(p) for p in parts))
        inside = [np.flatnonzero((p >= w.start) & (p < w.stop)) for p, w in zip(parts, where, strict=True)]
        source = [p[k] - w.start for p, k, w in zip(parts, inside, where, strict=True)]
        target[np.ix_(*inside)] = values[np.ix_(*source)]

    def _parts(self, region: tuple[slice, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the region's planes, rows and columns in the stack."""
        full = (slice(0, 1),) * max(0, 2 - len(self.shape)) + tuple(region)
        shape = (1,) * max(0, 2 - len(self.shape)) + self.shape
        lead = np.arange(math.prod(shape[:-2])).reshape(shape[:-2])[full[:-2]].ravel()
        return lead, np.arange(full[-2].start, full[-2].stop), np.arange(full[-1].start, full[-1].stop)


def stacked(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """[.., y, x] -> [planes, y, x]; one dimension is one row."""
    full = (1,) * max(0, 2 - len(shape)) + shape
    return math.prod(full[:-2]), full[-2], full[-1]
