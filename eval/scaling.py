"""Cost per pixel against image size: large pictures made of photographs side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentpress.errors import InputError

SIDES = (1, 4, 8)  # photographs a side: .4, 6 and 25 megapixels of 768x512
LARGE = 16  # 100 megapixels


def mosaic(images: Sequence[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """uint8 [side * h, side * w, 3]: `side` x `side` photographs in raster order, again from the first when they run out.

    images: uint8 [h, w, 3] or turned by 90 degrees; upright ones are turned to the shape of the widest.
    """
    height, width = sorted(images[0].shape[:2])
    turned = [i if i.shape[0] <= i.shape[1] else i.transpose(1, 0, 2) for i in images]
    odd = next((i.shape for i in turned if i.shape[:2] != (height, width)), None)
    if odd:
        raise InputError(f"photographs of one size expected: {odd[:2]} beside {(height, width)}")
    rows = [np.concatenate([turned[(r * side + c) % len(turned)] for c in range(side)], axis=1) for r in range(side)]
    return np.concatenate(rows, axis=0)
