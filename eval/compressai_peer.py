"""CompressAI's factorised-prior model as a peer for speed: 8-bit array in, bytes out, and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from latentpress.codecs.compressai_env import import_compressai
from latentpress.eval.peers import Image8, check_image

STEP = 64  # sides are padded to a multiple


class FactorizedPeer:
    """bmshj2018_factorized(quality=1) with random weights: time depends on the layers, not their values; bytes and pictures mean nothing.

    With random weights the latents cost several bits each instead of a fraction of one. CompressAI's rANS makes one step a symbol either
    way, so its share of the time is that of a trained model as long as symbols stay inside their tables.
    """

    name, setting, digest = "compressai bmshj2018_factorized", "quality=1, random weights", ""

    @property
    def versions(self) -> Mapping[str, str]:
        import torch

        return {"compressai": import_compressai().__version__, "torch": str(torch.__version__)}

    @cached_property
    def model(self) -> Any:
        import torch

        zoo = import_compressai().zoo
        torch.manual_seed(0)
        model = zoo.bmshj2018_factorized(quality=1, pretrained=False).eval()
        model.update()
        return model

    def encode(self, image: Image8) -> bytes:
        """Height, width (uint32 each), then the one string of the model."""
        import torch

        check_image(image)
        height, width = image.shape[:2]
        padding = (0, -width % STEP, 0, -height % STEP)
        with torch.inference_mode():
            samples = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
            packed = self.model.compress(torch.nn.functional.pad(samples, padding))
        return struct.pack("<II", height, width) + packed["strings"][0][0]

    def decode(self, blob: bytes) -> Image8:
        import torch

        height, width = struct.unpack_from("<II", blob)
        shape = tuple(-(-side // STEP) * STEP // 16 for side in (height, width))
        with torch.inference_mode():
            samples = self.model.decompress([[blob[8:]]], shape)["x_hat"][0, :, :height, :width]
            return np.asarray((samples.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
