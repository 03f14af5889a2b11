import sys
from types import ModuleType

import pytest

from latentpress.codecs import compressai_env
from latentpress.errors import MissingExtraError


@pytest.fixture
def declared(monkeypatch):
    """Counts declarations of operators instead of making them: they would last as long as the process."""
    calls = []
    monkeypatch.setattr(compressai_env, "_declare_operators", lambda: calls.append(1))
    return calls


def importing(monkeypatch, *outcomes):
    """`importlib.import_module` gives or raises `outcomes`, one a call."""
    left = list(outcomes)

    def fake(name):
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(compressai_env.importlib, "import_module", fake)
    return left


def test_a_torchvision_that_works_is_left_alone(monkeypatch, declared):
    module = ModuleType("torchvision")
    importing(monkeypatch, module)
    assert compressai_env.import_torchvision() is module and declared == []


def test_operators_are_declared_after_the_very_failure_and_the_half_import_is_dropped(monkeypatch, declared):
    module = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision.ops", ModuleType("torchvision.ops"))
    monkeypatch.setitem(sys.modules, "torchvisionary", ModuleType("torchvisionary"))
    left = importing(monkeypatch, RuntimeError("operator torchvision::nms does not exist"), module)
    assert compressai_env.import_torchvision() is module
    assert declared == [1] and left == []
    assert "torchvision.ops" not in sys.modules and "torchvisionary" in sys.modules


def test_another_failure_is_not_hidden(monkeypatch, declared):
    importing(monkeypatch, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="memory"):
        compressai_env.import_torchvision()
    assert declared == []


def test_a_missing_package_names_the_extra(monkeypatch, declared):
    importing(monkeypatch, ModuleNotFoundError("No module named 'torchvision'", name="torchvision"))
    with pytest.raises(MissingExtraError, match=r"torchvision.*latentpress\[compressai\]"):
        compressai_env.import_torchvision()
