"""One thread for every test, so that timings and memory do not depend on who else runs, and small natural images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers import natural

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whatever a test sets, the next one starts with one thread."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """uint8 [64, 64, 3]."""
    return natural(64, 64)
