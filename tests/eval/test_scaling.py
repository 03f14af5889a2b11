import numpy as np
import pytest

from latentpress.errors import InputError
from latentpress.eval.scaling import mosaic


def test_a_mosaic_holds_the_photographs_in_raster_order_upright_ones_turned():
    wide, tall = np.full((2, 3, 3), 1, np.uint8), np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    big = mosaic([wide, tall, wide + 1], 2)
    assert big.shape == (4, 6, 3) and big.dtype == np.uint8
    assert np.array_equal(big[:2, :3], wide) and np.array_equal(big[:2, 3:], tall.transpose(1, 0, 2))
    assert np.array_equal(big[2:, :3], wide + 1) and np.array_equal(big[2:, 3:], wide)  # again from the first
    assert np.array_equal(mosaic([tall], 1), tall.transpose(1, 0, 2))


def test_photographs_of_several_sizes_are_refused():
    with pytest.raises(InputError, match="one size"):
        mosaic([np.zeros((2, 3, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)], 2)
