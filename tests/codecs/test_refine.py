"""Latent refinement: never worse by its own cost, better with more steps, and the decoder knows nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentpress import api, decode, encode
from latentpress.codecs.refine import EFFORTS, Schedule, corrected, cost, refined, soft_round
from latentpress.codecs.registry import load_codec
from latentpress.formats.image import read_image

LEVEL = 384


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    from pathlib import Path

    path = sorted((Path(api.__file__).parent / "samples").glob("*.webp"))[0]
    return np.ascontiguousarray(read_image(path).data[128:256, 200:328])


def test_refinement_lowers_the_cost_and_more_steps_lower_it_more(crop: np.ndarray) -> None:
    core = load_codec("walloc-rgb").core  # type: ignore[attr-defined]
    samples = core.to_samples(crop)
    weight = float(core.config.lambda_at(torch.tensor(LEVEL / 128)))
    with torch.no_grad():
        latents = core.analyse(samples)
        plain = cost(core, core.quantise(latents, LEVEL), samples, LEVEL, weight)
        few, many = (cost(core, refined(core, latents, samples, LEVEL, Schedule(steps=n)), samples, LEVEL, weight) for n in (2, 60))
    assert few <= plain  # plain rounding is kept where descent does not help
    assert many < 0.99 * plain


def test_one_correction_lowers_the_cost_and_leaves_the_margins(crop: np.ndarray) -> None:
    core = load_codec("walloc-rgb").core  # type: ignore[attr-defined]
    samples = core.to_samples(crop)
    with torch.no_grad():
        latents = core.analyse(samples)
        for level, gain in ((512, 0.998), (896, 0.98)):
            weight = float(core.config.lambda_at(torch.tensor(level / 128)))
            plain = cost(core, core.quantise(latents, level), samples, level, weight)
            better = corrected(core, latents, level, (0, 0, 0, 0))
            assert cost(core, core.quantise(better, level), samples, level, weight) < gain * plain
        moved = (corrected(core, latents, 896, (3, 0, 2, 1)) != latents).any(1)[0]
        assert not moved[:3].any() and not moved[:, :2].any() and not moved[:, -1:].any() and moved[3:, 2:-1].any()
        assert corrected(core, latents, 40, (0, 0, 0, 0)) is latents  # too small a step to gain


def test_refined_files_decode_like_all_others_and_are_repeatable(crop: np.ndarray) -> None:
    blob = encode(crop, quality=40, effort=3)
    assert blob == encode(crop, quality=40, effort=3)
    assert decode(blob).data.shape == crop.shape


def test_efforts_grow() -> None:
    steps = [EFFORTS[e].steps for e in sorted(EFFORTS)]
    assert sorted(EFFORTS) == list(range(3, 10)) and steps == sorted(set(steps))


def test_soft_rounding_is_hard_when_cold() -> None:
    torch.manual_seed(0)
    r = torch.tensor([-1.9, -0.1, 0.02, 0.9, 3.0])
    assert torch.allclose(soft_round(r.repeat(200, 1), 0.02).mean(0), torch.round(r), atol=0.05)
