"""MS-SSIM against the formula of Wang, Simoncelli and Bovik (2003), written here in plain numpy in double precision."""

import sys

import numpy as np
import pytest

from latentpress.errors import InputError, MissingExtraError, UnsupportedError
from latentpress.eval.metrics import IMAGE
from latentpress.eval.metrics.ms_ssim import ms_ssim
from tests.helpers import natural

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the paper, coarsest last


def window(x: np.ndarray) -> np.ndarray:
    """Gaussian means of every 11x11 window that lies inside of x [h, w]."""
    weights = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    weights /= weights.sum()
    views = np.lib.stride_tricks.sliding_window_view
    return views(views(x, 11, axis=0) @ weights, 11, axis=1) @ weights


def halved(x: np.ndarray) -> np.ndarray:
    """Means of 2x2, a row or column of zeros before the first where the side is odd."""
    x = np.pad(x, [(s % 2, s % 2) for s in x.shape])[: x.shape[0] + x.shape[0] % 2, : x.shape[1] + x.shape[1] % 2]
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).mean((1, 3))


def by_the_paper(a: np.ndarray, b: np.ndarray) -> float:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for band in range(3):
        x, y, product = a[..., band].astype(float), b[..., band].astype(float), 1.0
        for scale, exponent in enumerate(EXPONENTS):
            mx, my = window(x), window(y)
            vx, vy, cov = window(x * x) - mx**2, window(y * y) - my**2, window(x * y) - mx * my
            structure = (2 * cov + c2) / (vx + vy + c2)
            luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
            product *= max(0.0, float((luminance * structure if scale == 4 else structure).mean())) ** exponent
            x, y = halved(x), halved(y)
        values.append(product)
    return float(np.mean(values))


@pytest.mark.parametrize("size", [(176, 192), (208, 176)])
@pytest.mark.parametrize("damage", ["noise", "steps", "shift"])
def test_it_is_the_formula_of_the_paper(size, damage):
    pytest.importorskip("pytorch_msssim")
    image = natural(*size)
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    other = {"noise": np.clip(image + noise, 0, 255), "steps": image // 32 * 32 + 16, "shift": np.roll(image, 2, axis=1)}[damage].astype(np.uint8)
    value = ms_ssim(image, other)
    assert 0.3 < value < 0.999 and value == pytest.approx(by_the_paper(image, other), abs=2e-5)


def test_identical_images_give_one_and_worse_ones_less():
    pytest.importorskip("pytorch_msssim")
    image = natural(176, 176)
    assert ms_ssim(image, image.copy()) == pytest.approx(1, abs=1e-6)
    assert ms_ssim(image, image // 16 * 16) > ms_ssim(image, image // 64 * 64)


def test_what_it_has_no_value_for_is_refused():
    image = natural(176, 176)
    with pytest.raises(UnsupportedError, match="160x176"):
        ms_ssim(image[:160], image[:160])
    for other in (image.astype(np.uint16), image[:, :, 0], image[:170]):
        with pytest.raises(InputError, match="ms_ssim"):
            ms_ssim(image, other)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    with pytest.raises(MissingExtraError, match=r"latentpress\[bench\]"):
        ms_ssim(natural(176, 176), natural(176, 176))


def test_metrics_say_what_they_need():
    assert [m.name for m in IMAGE if m.default] == ["psnr", "ms_ssim"]
    assert {m.name: m.extra for m in IMAGE} == {"psnr": "", "ms_ssim": "bench", "st-lpips": "deep"}
