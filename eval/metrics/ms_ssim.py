"""Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003) of 8-bit RGB, through pytorch-msssim (extra `bench`).

Five scales, Gaussian window of 11 samples and sigma 1.5 without padding, mean over the bands: what papers on learned codecs report.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import MissingExtraError, UnsupportedError
from latentpress.eval.metrics.base import check_pair

SMALLEST = 161  # four halvings must leave the 11 samples of the window


def ms_ssim(reference: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """0 to 1, 1 where both are identical.

    Shapes  reference, decoded  uint8 [height, width, 3], equal
    Raises  InputError for other arrays, UnsupportedError where a side is below 161
    """
    check_pair("ms_ssim", reference, decoded)
    if min(reference.shape[:2]) < SMALLEST:
        raise UnsupportedError(f"ms_ssim: an image of {reference.shape[0]}x{reference.shape[1]} is too small for five scales")
    import torch

    with torch.inference_mode():
        return float(_package().ms_ssim(_tensor(reference), _tensor(decoded), data_range=255))


def prepare() -> None:
    _package()


def _tensor(image: NDArray[np.uint8]) -> Any:
    import torch

    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]


def _package() -> Any:
    try:
        import pytorch_msssim
    except ImportError as error:
        raise MissingExtraError("pytorch-msssim", "bench") from error
    return pytorch_msssim
