"""Arrays of small images or rows: .npy, .npz, idx (also .gz, .xz), folders of PNG files; tables are in table.py.

    read_array(path) -> Signal    dims ("sample", ...): ("sample", "y", "x"), ("sample", "y", "x", "band") or ("sample", "variable")
    array_bytes(signal, ".npy")   and back

idx is the format of MNIST: two zero bytes, a type code, the number of axes, big-endian sizes and samples.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Signal
from latentpress.errors import FormatError, InputError
from latentpress.formats.table import TABLES, read_table, table_bytes

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}
_UNPACK = {".gz": gzip.decompress, ".xz": lzma.decompress}
READABLE = TABLES | {".npy", ".npz", ".gz", ".xz", ".idx"}
INTEGERS = frozenset(["uint8", "uint16", "uint32", "int8", "int16", "int32", "int64"])
_NAMES: dict[int, tuple[str, ...]] = {1: ("sample",), 2: ("sample", "variable"), 3: ("sample", "y", "x"), 4: ("sample", "y", "x", "band")}


def is_idx(blob: bytes) -> bool:
    return len(blob) >= 4 and blob[:2] == b"\0\0" and blob[2] in _IDX_TYPES and 1 <= blob[3] <= 8 and len(blob) >= 4 + 4 * blob[3]


def array_signal(data: NDArray[Any], name: str = "array", meta: dict[str, Any] | None = None) -> Signal:
    """The Signal of an array whose first axis counts samples. Raises InputError for types that are no integers."""
    if data.dtype.name not in INTEGERS:
        raise InputError(f"{name}: samples of type {data.dtype}; integers of at most 64 bits, signed, or 32, unsigned, expected")
    if data.ndim not in _NAMES:
        raise InputError(f"{name}: {data.ndim} axes; 1 to 4 expected, the first one counts samples")
    return Signal(data=data.astype(data.dtype.newbyteorder("="), copy=False), dims=_NAMES[data.ndim], meta=meta or {})


def read_array(path: Path) -> Signal:
    """Raises InputError that names the file and the remedy."""
    if path.is_dir():
        return _folder(path)
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return array_of(blob, str(path), path.suffix.lower())


def array_of(blob: bytes, name: str, suffix: str) -> Signal:
    """The same from a file's bytes; packed idx files are known by their suffix or by their first bytes."""
    if suffix in TABLES:
        return read_table(blob, name, suffix)
    blob = _unpacked(blob, name, suffix)
    if is_idx(blob):
        return array_signal(_idx(blob, name), name)
    try:
        loaded = np.load(io.BytesIO(blob), allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError, zlib.error) as error:
        raise InputError(f"{name}: no .npy, .npz or idx file ({' '.join(str(error).split())})") from error
    if isinstance(loaded, np.ndarray):
        return array_signal(loaded, name)
    with loaded:
        names = list(loaded.files)
        if len(names) != 1:
            raise InputError(f"{name}: holds {len(names)} arrays ({', '.join(names[:6])}); give a file with one")
        try:
            return array_signal(loaded[names[0]], name)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{name}: damaged archive ({' '.join(str(error).split())})") from error


def _unpacked(blob: bytes, name: str, suffix: str) -> bytes:
    kind = ".gz" if blob[:2] == b"\x1f\x8b" else ".xz" if blob[:6] == b"\xfd7zXZ\0" else suffix
    if kind not in _UNPACK:
        return blob
    try:
        return _UNPACK[kind](blob)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{name}: damaged {kind} file ({error})") from error


def _idx(blob: bytes, name: str) -> NDArray[Any]:
    axes = blob[3]
    shape = tuple(int.from_bytes(blob[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    dtype = np.dtype(_IDX_TYPES[blob[2]])
    if len(blob) - 4 - 4 * axes != math.prod(shape) * dtype.itemsize:
        raise InputError(f"{name}: {len(blob)} bytes, its header {shape} asks for {4 + 4 * axes + math.prod(shape) * dtype.itemsize}")
    return np.frombuffer(blob, dtype, offset=4 + 4 * axes).reshape(shape)


def _folder(path: Path) -> Signal:
    """All PNG files of a folder in the order of their names, as one array; their names are kept."""
    from latentpress.formats.image import read_image

    files = sorted(f for f in path.iterdir() if f.suffix.lower() == ".png")
    if not files:
        raise InputError(f"{path}: the folder holds no .png file")
    images = [read_image(f).data for f in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape or image.dtype != images[0].dtype:
            first = f"{files[0].name} is {images[0].dtype}{images[0].shape}"
            raise InputError(f"{file}: {image.dtype}{image.shape}, {first}; images of one size expected")
    data = np.stack(images)
    return array_signal(data[..., 0] if data.shape[3] == 1 else data, str(path), {"array": {"files": [f.name for f in files]}})


def array_bytes(signal: Signal, suffix: str) -> bytes:
    """The bytes of an .npy, .npz, .idx, .csv, .tsv or .parquet file. Raises InputError for other suffixes."""
    buffer, suffix = io.BytesIO(), suffix.lower()
    if suffix in TABLES:
        return table_bytes(signal, suffix)
    match suffix:
        case ".npy":
            np.save(buffer, signal.data, allow_pickle=False)
        case ".npz":
            np.savez_compressed(buffer, data=signal.data)
        case ".idx" | ".idx1-ubyte" | ".idx3-ubyte":
            buffer.write(_idx_bytes(signal.data))
        case _:
            raise InputError(f"{suffix or 'no suffix'}: arrays are written as .npy, .npz, .idx, .csv, .tsv, .parquet, or into a folder of PNG files")
    return buffer.getvalue()


def write_folder(signal: Signal, folder: Path) -> None:
    """One PNG file a sample, under the names it was read from. Raises InputError for samples that are no images and folders that exist."""
    from latentpress.formats.image import image_bytes

    data = signal.data
    if data.ndim not in (3, 4) or data.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{folder}: samples of {data.dtype}{data.shape[1:]} are no images; write .npy")
    names = (signal.meta.get("array") or {}).get("files") or [f"{i:06d}.png" for i in range(len(data))]
    if len(names) != len(data):
        raise FormatError(f"metadata chunk 'array': {len(names)} names for {len(data)} samples")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be made ({error.strerror or error}); choose a new name") from error
    for name, image in zip(names, data, strict=True):
        (folder / name).write_bytes(image_bytes(Signal(data=image if image.ndim == 3 else image[:, :, None], dims=("y", "x", "band")), ".png"))


# ---- what travels beside the samples: names of files, the description of a table


def array_metadata_bytes(about: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode(), 9)


def array_metadata_of(blob: bytes, limit: int = 1 << 26) -> dict[str, Any]:
    """Raises FormatError for what `array_metadata_bytes` did not write."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(blob, limit)
        about = json.loads(raw)
    except (zlib.error, ValueError, RecursionError) as error:
        raise FormatError(f"metadata chunk 'array': damaged ({error})") from error
    if not stream.eof or stream.unused_data or not isinstance(about, dict):
        raise FormatError("metadata chunk 'array': damaged")
    files = about.get("files", [])
    if not isinstance(files, list) or not all(isinstance(f, str) and f and Path(f).name == f and "\\" not in f and "\0" not in f for f in files):
        raise FormatError("metadata chunk 'array': plain names of files expected")  # a name must not lead out of its folder
    return about


def _idx_bytes(data: NDArray[Any]) -> bytes:
    codes = {np.dtype(t).newbyteorder("=").name: (code, t) for code, t in _IDX_TYPES.items()}
    if data.dtype.name not in codes:
        raise InputError(f".idx holds {', '.join(codes)}, not {data.dtype}; write .npy")
    code, dtype = codes[data.dtype.name]
    head = bytes([0, 0, code, data.ndim]) + b"".join(size.to_bytes(4, "big") for size in data.shape)
    return head + data.astype(dtype).tobytes()
