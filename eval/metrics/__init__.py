"""Quality of what was decoded: `psnr`, `ms_ssim`, deep similarity; each a pure function, gathered in `IMAGE`."""

from __future__ import annotations

from latentpress.eval.metrics import ms_ssim as _ms_ssim
from latentpress.eval.metrics.base import Metric
from latentpress.eval.metrics.pixels import bits_per_pixel, psnr

IMAGE = (
    Metric(name="psnr", measure=psnr, about="dB on 8-bit RGB, squared error over all samples of an image; higher is better", default=True),
    Metric(name="ms_ssim", measure=_ms_ssim.ms_ssim, prepare=_ms_ssim.prepare, about="0 to 1, mean over R, G, B; higher is better", default=True),
)

__all__ = ["IMAGE", "Metric", "bits_per_pixel", "psnr"]
