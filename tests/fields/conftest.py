from __future__ import annotations

from collections.abc import Iterator

import pytest

from latentpress.codecs import registry
from tests.fields import standin


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The codec of these tests, whether or not the real one is installed."""
    standin.register(monkeypatch)
    standin.DECODED.clear()
    standin.TARGETS.clear()
    yield
    registry.load_installed.cache_clear()
