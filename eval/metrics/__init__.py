"""Quality of what was decoded: `psnr`, `ms_ssim`, `st-lpips`; each a pure function, gathered in `IMAGE`."""

from __future__ import annotations

from latentpress.eval.metrics import deep, ms_ssim
from latentpress.eval.metrics.base import Metric
from latentpress.eval.metrics.pixels import bits_per_pixel, psnr

IMAGE = (
    Metric(name="psnr", measure=psnr, about="dB on 8-bit RGB, squared error over all samples of an image; higher is better", default=True),
    Metric(
        name="ms_ssim", measure=ms_ssim.ms_ssim, prepare=ms_ssim.prepare, module="pytorch_msssim", extra="bench", default=True,
        about="multi-scale structural similarity, 0 to 1, mean over R, G, B; higher is better",
    ),
    Metric(
        name="st-lpips", measure=deep.st_lpips, prepare=deep.prepare, module="stlpips_pytorch", extra="deep",
        about="shift-tolerant LPIPS by AlexNet features, 0 where both are identical; lower is better",
    ),
)  # fmt: skip

__all__ = ["IMAGE", "Metric", "bits_per_pixel", "psnr"]
