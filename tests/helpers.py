"""What several tests share: natural images cut from the packaged samples, fresh processes, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import latentpress

SAMPLES = Path(latentpress.__file__).parent / "samples"
CLI = "from latentpress.cli import main; main()"


@lru_cache(maxsize=3)
def _sample(name: str) -> NDArray[np.uint8]:
    from latentpress.formats.image import read_image

    data = read_image(SAMPLES / f"{name}.webp").data
    data.flags.writeable = False
    return data


def natural(height: int, width: int, *, name: str = "kodim23", top: int = 100, left: int = 200) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: a part of a photograph, mirrored where it is not large enough."""
    part = _sample(name)[top : top + height, left : left + width]
    while part.shape[:2] != (height, width):
        more = [(0, min(size - n, n - 1)) for size, n in zip((height, width), part.shape[:2], strict=True)]
        part = np.pad(part, (*more, (0, 0)), mode="reflect")
    return np.ascontiguousarray(part)


def deep(image: NDArray[np.uint8], *, seed: int = 1) -> NDArray[np.uint16]:
    """uint16 of the same shape, with noise in the low bits."""
    noise = np.random.default_rng(seed).integers(0, 257, image.shape)
    return np.minimum(image.astype(np.int64) * 256 + noise, 65535).astype(np.uint16)


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """dB, against the peak of the dtype of `a`."""
    error = float(np.square(a.astype(np.float64) - b.astype(np.float64)).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(np.iinfo(a.dtype).max ** 2 / error))


def python(code: str, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None, check: bool = False,
           cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    """A fresh interpreter on one thread."""
    whole = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(env or {})}
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], input=stdin, capture_output=True, env=whole, cwd=cwd, timeout=timeout)
    assert not check or done.returncode == 0, done.stderr.decode()
    return done


def cli(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The command line in a fresh process."""
    return python(CLI, *map(str, arguments), **options)
