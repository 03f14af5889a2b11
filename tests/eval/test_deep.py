"""Shift-tolerant LPIPS: the extra that it needs, and, where that is installed, its value computed again from the features."""

import importlib.util

import numpy as np
import pytest

from latentpress.errors import InputError, MissingExtraError, UnsupportedError
from latentpress.eval.metrics import IMAGE, deep
from tests.helpers import natural

has_package = pytest.mark.skipif(importlib.util.find_spec("stlpips_pytorch") is None, reason="pip install 'latentpress[deep]'")
METRIC = next(m for m in IMAGE if m.name == "st-lpips")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (METRIC.check, deep.network.__wrapped__):
        with pytest.raises(MissingExtraError, match=r"latentpress\[deep\]"):
            call()


def test_what_it_has_no_value_for_is_refused():
    image = natural(64, 64)
    with pytest.raises(UnsupportedError, match="63x64"):
        deep.st_lpips(image[:63], image[:63])
    for other in (image.astype(np.uint16), image[:, :, 0], natural(64, 80)):
        with pytest.raises(InputError, match="st-lpips"):
            deep.st_lpips(image, other)


@has_package
def test_it_is_the_weighted_distance_of_normalised_features():
    import torch

    image, other = natural(64, 64), natural(64, 64) // 32 * 32
    network = deep.network()

    def features(x):
        samples = torch.from_numpy(x.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            return [f[0].double().numpy() for f in network.net((samples - network.scaling_layer.shift) / network.scaling_layer.scale)]

    total = 0.0
    for a, b, layer in zip(features(image), features(other), network.lins, strict=True):
        weights = layer.model[-1].weight.detach().double().numpy()[0, :, 0, 0]
        a, b = (f / np.sqrt(np.square(f).sum(0)) for f in (a, b))
        total += float((weights[:, None, None] * np.nan_to_num(a - b) ** 2).sum(0).mean())
    assert deep.st_lpips(image, other) == pytest.approx(total, rel=1e-3) and total > 0.01
    assert deep.st_lpips(image, image.copy()) == 0
