"""Facts about .lpz files and installed codecs, for `info`, `verify` and `codecs`."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from latentpress import api, container
from latentpress.codecs import registry
from latentpress.fields.description import CODEC as DATASET
from latentpress.fields.summary import dataset_symbols, describe_dataset, verify_dataset


def describe_file(blob: bytes) -> dict[str, Any]:
    """Plain values, JSON-able. Raises FormatError as `container.read` does."""
    file = container.read(blob)
    encoded = file.encoded
    positions = math.prod(size for size, name in zip(encoded.shape, encoded.dims, strict=True) if name != "band")
    payload = sum(len(c.payload) for c in encoded.chunks)
    more = {"variables": describe_dataset(blob)} if encoded.codec == DATASET else {"bpp": round(8 * len(blob) / positions, 4)}
    return {
        "codec": encoded.codec, "weights": encoded.digest.hex(), "shape": list(encoded.shape), "dims": list(encoded.dims), "dtype": encoded.dtype,
        "parameters": dict(encoded.parameters), "bytes": len(blob), **more, "payload": payload,
        "metadata": {k: len(v) for k, v in file.metadata.items()}, "overhead": file.overhead,
        "chunks": [{"kind": kind, "position": list(position), "offset": offset, "bytes": length}
                   for kind, position, offset, length in file.chunk_table],
    }  # fmt: skip


def verify_file(blob: bytes, *, codec: str | None = None) -> None:
    """Raises a LatentpressError for anything that keeps the file from decoding completely."""
    if container.read(blob).encoded.codec == DATASET:
        verify_dataset(blob, codec=codec)
    else:
        api.decode(blob, codec=codec)


def symbols_sha256(blob: bytes, *, codec: str | None = None) -> str:
    """SHA-256 of all decoded symbols as little-endian int32, chunk after chunk."""
    file = container.read(blob)
    digest = hashlib.sha256()
    if file.encoded.codec == DATASET:
        for symbols in dataset_symbols(blob, codec=codec):
            digest.update(symbols.astype("<i4").tobytes())
        return digest.hexdigest()
    for symbols in api.codec_of(file.encoded, codec=codec, model=file.metadata.get("model")).symbols(file.encoded):
        digest.update(symbols.astype("<i4").tobytes())
    return digest.hexdigest()


def describe_codecs() -> list[dict[str, Any]]:
    rows = []
    for name in registry.names():
        codec = registry.load_codec(name)
        rows.append({"name": name, "codec": codec.id, "domain": codec.domain, "lossless": codec.lossless, "bounded": codec.bounded,
                     "digest": codec.digest.hex(), **codec.describe()})  # fmt: skip
    return rows
