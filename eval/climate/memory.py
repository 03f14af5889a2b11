"""What coding holds in memory besides the field itself, against the number of chunks: each number from a process of its own.

    python -P -m latentpress.eval.climate.memory CODEC CHUNKS ROWS COLUMNS       (a line of JSON)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError
from latentpress.eval.memory import PeakMemory
from latentpress.eval.readme import table

CHUNKS = (1, 4, 16)
SHAPE = (61, 120)
BOUND = 0.3  # about a hundredth of the deviation
WAYS = ("encode", "decode", "decode_chunk")


def costs(codec: str, chunks: Sequence[int] = CHUNKS, shape: tuple[int, int] = SHAPE) -> list[dict[str, Any]]:
    """One entry a number of chunks: planes, field_bytes, and of each way the growth of resident memory at its peak, in bytes (None where the system
    does not tell): encode, besides the field; decode, besides the decoded field; decode_chunk, one chunk after the other."""
    return [_in_a_process(codec, count, shape) for count in chunks]


def _in_a_process(codec: str, count: int, shape: tuple[int, int]) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", __name__, codec, str(count), *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"memory of {codec}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
    entry: dict[str, Any] = json.loads(done.stdout)
    return entry


def waves(planes: int, rows: int, columns: int) -> NDArray[np.float32]:
    """Smooth, a little rough, moving from plane to plane."""
    y, x = np.mgrid[:rows, :columns]
    out = np.empty((planes, rows, columns), np.float32)
    random = np.random.default_rng(0)
    for p, plane in enumerate(out):
        plane[...] = 280 + 25 * np.sin(y / 23) + 9 * np.cos(x / 17 + p / 5) * np.sin(y / 11) + random.normal(0, 0.3, (rows, columns))
    return out


def measured(codec_name: str, count: int, rows: int, columns: int) -> dict[str, Any]:
    """In this process, which should be young. What is loaded once is loaded before."""
    from latentpress.codecs.base import Signal, Target
    from latentpress.codecs.registry import load_codec

    codec: Any = load_codec(codec_name)
    dims, target = ("time", "y", "x"), Target(max_error=BOUND)
    first = codec.encode(Signal(data=waves(3, rows, columns), dims=dims), target)
    codec.decode(first)
    planes = count * int(first.parameters["planes"])
    signal, peak = Signal(data=waves(planes, rows, columns), dims=dims), PeakMemory()
    entry: dict[str, Any] = {"codec": codec_name, "planes": planes, "field_bytes": signal.data.nbytes}
    peak.start()
    encoded = codec.encode(signal, target)
    entry |= {"chunks": len(encoded.chunks), "encode": peak.peak()}
    peak.start()
    whole = codec.decode(encoded).data
    grown = peak.peak()
    entry["decode"] = None if grown is None else max(0, grown - whole.nbytes)
    del whole
    peak.start()
    for start in range(0, planes, planes // count):
        codec.decode_region(encoded, (slice(start, start + planes // count), slice(0, rows), slice(0, columns)))
    return entry | {"decode_chunk": peak.peak()}


def memory_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Chunks down, ways across, in MB."""
    header = ["memory, MB", "chunks", "the field", "encode, besides it", "decode, besides it", "decode a chunk at a time"]
    lines = [[e["codec"], str(e["chunks"]), _mb(e["field_bytes"]), *(_mb(e[w]) for w in WAYS)] for e in entries]
    return table(header, lines) + "\n\nPeak of resident memory above what was there before, each in a process of its own; a made field."


def _mb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], *map(int, sys.argv[2:5]))))
