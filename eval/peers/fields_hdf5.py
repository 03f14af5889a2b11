"""SZ3, ZFP and SPERR as HDF5 filters (hdf5plugin): one array is one chunk of a file in memory, and only the chunk's bytes count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import MissingExtraError, UnsupportedError


@dataclass(frozen=True, kw_only=True)
class Hdf5Core:
    """A lossy filter with an absolute bound.

    options  (hdf5plugin, bound) -> the filter
    setting  what is stated in the row
    centred  code the array minus its mean, which 8 more bytes hold: helps transforms without a constant predictor
    """

    name: str
    setting: str
    options: Callable[[Any, float], Any]
    centred: bool = False

    @property
    def versions(self) -> Mapping[str, str]:
        return {"hdf5plugin": version("hdf5plugin"), "h5py": version("h5py")}

    def pack(self, data: NDArray[Any], bound: float) -> tuple[bytes, dict[str, Any]]:
        h5py, plugin = packages()
        mean = data.dtype.type(data.mean(dtype=np.float64)) if self.centred else data.dtype.type(0)
        with _memory(h5py) as file:
            try:
                chunk = file.create_dataset("d", data=data - mean if self.centred else data, chunks=data.shape, **self.options(plugin, bound)).id
                skipped, payload = chunk.read_direct_chunk((0,) * data.ndim)
            except (OSError, ValueError, RuntimeError) as error:
                raise UnsupportedError(f"{self.name} does not code {data.shape}: {' '.join(str(error).split())}") from error
        centre = np.float64(mean).tobytes() if self.centred else b""
        return centre + payload, {"bound": bound, "skipped": skipped}

    def unpack(self, payload: bytes, facts: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        h5py, plugin = packages()
        at = 8 if self.centred else 0
        with _memory(h5py) as file:
            dataset = file.create_dataset("d", shape, dtype, chunks=shape, **self.options(plugin, facts["bound"]))
            dataset.id.write_direct_chunk((0,) * len(shape), payload[at:], facts["skipped"])
            data = np.asarray(dataset[...])
        return data + dtype.type(np.frombuffer(payload[:at])[0]) if self.centred else data


def _memory(h5py: Any) -> Any:
    return h5py.File("memory", "w", driver="core", backing_store=False)


def packages() -> tuple[Any, Any]:
    """h5py and hdf5plugin, or MissingExtraError."""
    try:
        import h5py
        import hdf5plugin
    except ImportError as error:
        raise MissingExtraError(error.name or "hdf5plugin", "peers") from error
    return h5py, hdf5plugin


def _sz3(plugin: Any, bound: float) -> Any:
    return plugin.SZ3(absolute=bound)


def _zfp(plugin: Any, bound: float) -> Any:
    return plugin.Zfp(accuracy=bound)


def _sperr(plugin: Any, bound: float) -> Any:
    return plugin.Sperr(absolute=bound, swap=True)


def _sperr_psnr(plugin: Any, decibel: float) -> Any:
    return plugin.Sperr(peak_signal_to_noise_ratio=decibel, swap=True)


SZ3 = Hdf5Core(name="sz3", setting="absolute bound, defaults", options=_sz3)
ZFP = Hdf5Core(name="zfp", setting="accuracy mode, minus the mean", options=_zfp, centred=True)
# arrays here are in C order: without swap SPERR takes the axes the wrong way round and ratios fall up to eightfold
SPERR = Hdf5Core(name="sperr", setting="pointwise-error mode, swap=True", options=_sperr)
SPERR_PSNR = Hdf5Core(name="sperr-psnr", setting="PSNR mode, swap=True", options=_sperr_psnr)
