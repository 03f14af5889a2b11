"""The main path, top to bottom: read -> encode -> write; read -> decode -> write.

    >>> import numpy as np, latentpress
    >>> blob = latentpress.encode(np.full((64, 64, 3), 128, np.uint8), quality=50)
    >>> latentpress.decode(blob).data.shape
    (64, 64, 3)
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from latentpress import container
from latentpress.codecs.base import Codec, Encoded, Signal, Target
from latentpress.codecs.presets import embedded
from latentpress.codecs.registry import DEFAULTS, LOSSLESS, directory_of, load_codec, load_embedded, load_installed
from latentpress.container import Limits
from latentpress.errors import FormatError, InputError, MissingPresetError, UnsupportedError
from latentpress.formats.alpha import merge_alpha, split_alpha
from latentpress.formats.array import array_bytes, array_metadata_bytes, array_metadata_of, array_of, array_signal, read_array, write_folder
from latentpress.formats.image import DIMS, image_bytes, read_image, warn_of_lost_metadata
from latentpress.formats.table import with_known_categories

Source = NDArray[Any] | Signal | str | PathLike[str] | bytes
DEFAULT_QUALITY = 50.0
DEFAULT_EFFORT = 2
_FILE_OVERHEAD = 40  # bytes around the payload of a one-chunk file
_BINARY = ("icc", "exif", "xmp")
_PLAIN = ("text", "dpi")


# ---- encode


def encode(
    source: Source, *, codec: str | PathLike[str] | Codec | None = None, quality: float | None = None, bpp: float | None = None,
    psnr: float | None = None, max_bytes: int | None = None, effort: int = DEFAULT_EFFORT, lossless: bool = False,
    embed_model: bool = False,
) -> bytes:  # fmt: skip
    """Encode to the bytes of an .lpz file.

    source   array [y, x] or [y, x, band] of uint8 or uint16, a Signal, the path of an image, or an image file's bytes
    codec    preset name or folder, or a codec that load_codec gave (default walloc-rgb)
    quality 0 to 100 (default 50), or bpp (bits a pixel of the whole file, at most), psnr (dB, at least), max_bytes (of the file)
    effort   0 to 9: rate bought with encoder time. 0 and 1 round what analysis gives, 2 (the default) corrects it once by what
             decoding would give, 3 to 9 refine the latents by gradient
    lossless every sample comes back as it was: codec is then a lossless one (default grid-rgb), and there is nothing to aim for
    embed_model  the weights travel inside the file, so that it decodes anywhere: for circuits
    With an array codec (circuit-mnist) source is an array [sample, ...] of integers, the path of a .npy, .npz, idx, .csv or .parquet file or of
    a folder of PNG files.
    Raises InputError, UnsupportedError, MissingPresetError.
    """
    if not 0 <= effort <= 9:
        raise InputError(f"effort {effort}: expected 0 to 9")
    coder = _ready(codec or (LOSSLESS if lossless else DEFAULTS)["image"])
    if lossless:
        _refuse_losses(coder, quality=quality, bpp=bpp, psnr=psnr, max_bytes=max_bytes)
    if coder.domain == "array":
        target = _one_target(quality=quality, bpp=bpp, psnr=psnr, max_bytes=max_bytes)
        return _encode_array(coder, as_samples(source), target, effort, _folder_of(codec) if embed_model else None)
    if embed_model:
        raise UnsupportedError(f"{coder.name}: only circuits travel inside a file; leave --embed-model out")
    signal = as_signal(source)
    colour, alpha = split_alpha(signal)
    metadata = _metadata_chunks(signal.meta) | ({"alpha": alpha} if alpha else {})
    if bpp is not None:
        _one_target(quality=quality, bpp=bpp, psnr=psnr, max_bytes=max_bytes)
        if not 0 < bpp < float("inf"):
            raise InputError(f"bpp {bpp}: a positive number expected")
        max_bytes = max(1, int(bpp * math.prod(signal.data.shape[:2]) / 8))
        bpp = None
    target = _one_target(quality=quality, bpp=bpp, psnr=psnr, max_bytes=max_bytes)
    if max_bytes is None:
        return container.write(coder.encode(colour, target, effort=effort), metadata=metadata)
    return _within(coder, colour, metadata, max_bytes, effort)


def _refuse_losses(coder: Codec, **targets: float | None) -> None:
    given = [name for name, value in targets.items() if value is not None]
    if given:
        raise InputError(f"lossless leaves nothing to aim for: leave {' and '.join(given)} out")
    if not coder.lossless:
        raise InputError(f"{coder.name} is not lossless: leave the codec out, or take {LOSSLESS['image']}")


def _ready(codec: str | PathLike[str] | Codec) -> Codec:
    return codec if isinstance(codec, Codec) else load_codec(os.fspath(codec))


def _folder_of(codec: str | PathLike[str] | Codec | None) -> Path:
    if codec is None or isinstance(codec, Codec):
        raise InputError("a model that travels inside the file is given by the name or the folder of its preset")
    return directory_of(os.fspath(codec))


def _encode_array(coder: Codec, signal: Signal, target: Target, effort: int, model: Path | None) -> bytes:
    table = getattr(coder, "description", {}).get("table")
    if table:
        signal = with_known_categories(signal, table)
    about = signal.meta.get("array")
    metadata = ({"array": array_metadata_bytes(about)} if about else {}) | ({"model": embedded(model)} if model else {})
    return container.write(coder.encode(signal, target, effort=effort), metadata=metadata)


def _one_target(**given: Any) -> Target:
    named = {k: v for k, v in given.items() if v is not None}
    try:
        return Target(**(named or {"quality": DEFAULT_QUALITY}))
    except ValueError as error:
        raise InputError(str(error)) from error


def _within(coder: Codec, signal: Signal, metadata: Mapping[str, bytes], max_bytes: int, effort: int) -> bytes:
    """The payload search knows nothing of the file around it, and refinement may add a little: shrink the budget until the file fits."""
    budget = max_bytes - _FILE_OVERHEAD - sum(len(k) + len(v) + 10 for k, v in metadata.items())
    for _ in range(8):
        if budget < 1:
            break
        blob = container.write(coder.encode(signal, Target(max_bytes=budget), effort=effort), metadata=metadata)
        if len(blob) <= max_bytes:
            return blob
        budget -= len(blob) - max_bytes
    raise UnsupportedError(f"{max_bytes} bytes cannot hold this signal and its metadata")


def as_signal(source: Source) -> Signal:
    """Raises InputError for what is no image."""
    if isinstance(source, Signal):
        return source
    if isinstance(source, np.ndarray):
        if source.ndim not in (2, 3) or source.dtype not in (np.uint8, np.uint16):
            raise InputError(f"array of shape {source.shape}, {source.dtype}: [y, x] or [y, x, band] of uint8 or uint16 expected")
        if source.ndim == 3 and not 1 <= source.shape[2] <= 4:
            raise InputError(f"array of shape {source.shape}: 1 to 4 bands on the last axis expected")
        return Signal(data=source, dims=DIMS[: source.ndim])
    if isinstance(source, bytes):
        return read_image(source)
    return read_image(Path(source))


def as_samples(source: Source) -> Signal:
    """An array of samples, whose first axis counts them, from whatever `encode` takes. Raises InputError."""
    if isinstance(source, Signal):
        return source
    if isinstance(source, np.ndarray):
        return array_signal(source)
    return array_of(source, "input", "") if isinstance(source, bytes) else read_array(Path(source))


def _metadata_chunks(meta: Mapping[str, Any]) -> dict[str, bytes]:
    chunks = {k: bytes(meta[k]) for k in _BINARY if meta.get(k)}
    plain = {k: meta[k] for k in _PLAIN if k in meta}
    return chunks | ({"text": json.dumps(plain, ensure_ascii=False).encode()} if plain else {})


# ---- decode


def decode(
    source: str | PathLike[str] | bytes, *, partial: bool = False, limits: Limits | None = None, codec: str | PathLike[str] | Codec | None = None
) -> Signal:
    """Decode an .lpz file or its bytes.

    partial  damaged chunks leave neutral samples and a note in meta["damage"]
    codec    preset folder (or name) that the file was made with, for files of presets that are not installed
    Raises FormatError, ChecksumError, LimitError, MissingPresetError.
    """
    file = container.read(file_bytes(source), limits=limits or Limits(), partial=partial)
    signal = codec_of(file.encoded, partial=partial, codec=codec, model=file.metadata.get("model")).decode(file.encoded)
    meta = metadata_of(file.metadata)
    if file.damage:
        meta["damage"] = file.damage
    signal = dataclasses.replace(signal, meta=meta)
    return merge_alpha(signal, file.metadata["alpha"]) if "alpha" in file.metadata else signal


def file_bytes(source: str | PathLike[str] | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error})") from error


def codec_of(
    encoded: Encoded, *, partial: bool = False, codec: str | PathLike[str] | Codec | None = None, model: bytes | None = None
) -> Codec:
    """The codec that made `encoded`: the one given, else the one whose weights travel in its file (`model`), else the installed one of its name.

    A file alone can make nobody load a folder. Raises MissingPresetError when it is not installed or its weights are others, FormatError when
    chunks are missing.
    """
    if codec is not None:
        coder = _ready(codec)
    else:
        coder = _installed(encoded.codec) if model is None else load_embedded(model, encoded.codec)
    if coder.digest != encoded.digest or (not coder.digest and coder.name != encoded.codec):
        raise MissingPresetError(
            f"the file needs the weights {encoded.digest.hex()} of {encoded.codec!r}; {'installed are' if codec is None else 'given were'} "
            f"{coder.digest.hex() or 'none'}: install the version of latentpress that wrote it, or give the preset's folder with --codec"
        )
    if not partial and coder.places(encoded) != len(encoded.chunks):
        raise FormatError(f"{len(encoded.chunks)} data chunks, a signal of shape {encoded.shape} has {coder.places(encoded)}")
    return coder


def _installed(name: str) -> Codec:
    if name == "dataset":
        raise InputError("a file of a dataset: open it with latentpress.open_dataset, or decode it to .nc or .zarr on the command line")
    try:
        return load_installed(name)
    except MissingPresetError as error:
        raise MissingPresetError(f"{error}; a file made with a preset's folder decodes with --codec FOLDER") from error


def metadata_of(chunks: Mapping[str, bytes]) -> dict[str, Any]:
    """Metadata chunks of a file as `Signal.meta`, without alpha. Raises FormatError for a damaged chunk `text`."""
    meta: dict[str, Any] = {k: v for k, v in chunks.items() if k not in ("alpha", "text", "array", "model")}
    if "array" in chunks:
        meta["array"] = array_metadata_of(chunks["array"])
    return meta | _plain_metadata(chunks["text"]) if "text" in chunks else meta


def _plain_metadata(blob: bytes) -> dict[str, Any]:
    try:
        plain = json.loads(blob)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"metadata chunk 'text': no valid JSON ({error})") from error
    if not isinstance(plain, dict) or None in (plain.get(k, 0) for k in _PLAIN):
        raise FormatError("metadata chunk 'text': an object without nulls expected")
    text, dpi = (plain.get(k) for k in _PLAIN)
    if text is not None and not (isinstance(text, dict) and all(isinstance(v, str) for v in text.values())):
        raise FormatError("metadata chunk 'text': an object with the object 'text' of strings expected")
    if dpi is not None and not (isinstance(dpi, list) and len(dpi) == 2 and all(isinstance(v, int | float) and 0 < v < 1e9 for v in dpi)):
        raise FormatError("metadata chunk 'text': two positive numbers expected in 'dpi'")
    return ({} if text is None else {"text": text}) | ({} if dpi is None else {"dpi": tuple(dpi)})


def open_latents(
    source: str | PathLike[str] | bytes, *, limits: Limits | None = None, codec: str | PathLike[str] | Codec | None = None
) -> Any:
    """Decoded latents as a float tensor [1, channels, h, w], without synthesis: for learning on compressed data."""
    encoded = container.read(file_bytes(source), limits=limits or Limits()).encoded
    return codec_of(encoded, codec=codec).latents(encoded)


def decode_samples(source: str | PathLike[str] | bytes, start: int, stop: int, *, limits: Limits | None = None) -> NDArray[Any]:
    """Samples start to stop of a file of samples, [stop - start, ...]: only their blocks are read and decoded.

    Raises InputError for a range outside the file or a file without samples; else as `decode`.
    """
    limits = limits or Limits()
    with _opened(source) as file:
        header = container.read_header(file.read(container.HEADER_MAX), limits=limits)
        encoded = Encoded(codec=header.codec, digest=header.digest, shape=header.shape, dtype=header.dtype, dims=header.dims,
                          parameters=header.parameters, chunks=())  # fmt: skip
        model = container.read_metadata(file, limits=limits).get("model") if header.metadata_chunks else None
        codec: Any = codec_of(encoded, partial=True, model=model)
        if not hasattr(codec, "decode_samples"):
            raise InputError(f"a file of {header.codec}: only files of samples can be read in part")
        count = 0 if "empty" in header.parameters else header.shape[0]
        if not 0 <= start <= stop <= count:
            raise InputError(f"samples {start} to {stop}: the file holds {count}")
        chunks = tuple(container.read_chunk(file, (block,), limits=limits) for block in codec.blocks_of(encoded, start, stop))
    return codec.decode_samples(dataclasses.replace(encoded, chunks=chunks), start, stop)  # type: ignore[no-any-return]


def _opened(source: str | PathLike[str] | bytes) -> BinaryIO:
    try:
        return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
    except OSError as error:
        raise InputError(f"{source!s}: cannot be read ({error.strerror or error})") from error


# ---- files


def encode_file(source: str | PathLike[str], target: str | PathLike[str], *, overwrite: bool = False, **options: Any) -> int:
    """Encode an image file to an .lpz file, atomically. options: those of `encode`. Returns the file's size in bytes."""
    _refuse_existing(Path(target), overwrite)
    blob = encode(source, **options)
    container.write_file(Path(target), blob, overwrite=overwrite)
    return len(blob)


def decode_file(
    source: str | PathLike[str], target: str | PathLike[str], *, overwrite: bool = False, partial: bool = False, limits: Limits | None = None,
    codec: str | PathLike[str] | Codec | None = None,
) -> Signal:  # fmt: skip
    """Decode an .lpz file to an image file or .npy, atomically; samples to an array file or a table, or to a new folder of PNG files (no suffix)."""
    _refuse_existing(Path(target), overwrite)
    signal = decode(source, partial=partial, limits=limits, codec=codec)
    if signal.dims[:1] == ("sample",) and not Path(target).suffix:
        write_folder(signal, Path(target))
        return signal
    container.write_file(Path(target), signal_bytes(signal, Path(target).suffix), overwrite=overwrite)
    return signal


def signal_bytes(signal: Signal, suffix: str) -> bytes:
    """The bytes of an image file or an .npy file; of samples, those of .npy, .npz, .idx, .csv, .tsv or .parquet."""
    if signal.dims[:1] == ("sample",):
        return array_bytes(signal, suffix)
    if suffix.lower() != ".npy":
        return image_bytes(signal, suffix)
    warn_of_lost_metadata(signal, ".npy", set())
    buffer = io.BytesIO()
    np.save(buffer, signal.data, allow_pickle=False)
    return buffer.getvalue()


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or give --overwrite")
