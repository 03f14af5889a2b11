"""Weights of the pilot model (its own names) to those of WallocRGBModel."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = {"a": "enter", "d": "depthwise", "b": "leave", "e": "widen", "f": "narrow"}


def from_pilot(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pilot state -> WallocRGBModel state; shapes [.., ..] as the pilot's, its 4 output layers split by channel group."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        head, *rest = name.split(".")
        value = value.float()
        if head in ("gain", "inv"):
            out["log_gain" if head == "gain" else "log_inverse"] = value
        elif head == "q_bias":
            out["prior.network.level_bias"] = value
        elif head in ("e_in", "e_out", "d_in", "d_out"):
            side = "analysis" if head[0] == "e" else "synthesis"
            out[f"{side}.{'enter' if head.endswith('in') else 'leave'}.{rest[0]}"] = value
        elif head in ("e", "d"):
            side = "analysis" if head == "e" else "synthesis"
            out[f"{side}.blocks.{rest[0]}.{_BLOCK[rest[1]]}.{rest[2]}"] = value
        elif head == "h_e":
            out[f"prior.analysis.{'.'.join(rest)}"] = value
        elif head == "h_d":
            out[f"prior.network.up.{ {'0': 0, '3': 1, '4': 2, '7': 3}[rest[0]] }.{rest[1]}"] = value
        elif head == "c_y" and rest[0] != "0":
            out[f"prior.network.{'near' if rest[1] == '0' else 'mix'}.{int(rest[0]) - 1}.{rest[2]}"] = value
        elif head in ("c_1", "c_d", "c_2"):
            out[f"prior.network.block.{ {'c_1': 0, 'c_d': 1, 'c_2': 2}[head] }.{rest[0]}"] = value
        elif head == "c_o":
            means, scales = value.chunk(2)
            for g, (mean, scale) in enumerate(zip(means.chunk(4), scales.chunk(4), strict=True)):
                out[f"prior.network.out.{4 * int(rest[0]) + g}.{rest[1]}"] = torch.cat([mean, scale])
        elif head == "prior_z":
            kind, index = rest[0][0], rest[0][1:]
            out[f"prior.factorized.{ {'m': 'matrix', 'b': 'bias', 'f': 'factor'}[kind] }{index}"] = value
    return out


def main() -> None:
    """python -m latentpress.train.pilot PILOT.safetensors OUT.safetensors"""
    import sys

    from safetensors.torch import load_file, save_file

    source, target = sys.argv[1:]
    save_file({k: v.contiguous() for k, v in from_pilot(load_file(source)).items()}, target)


if __name__ == "__main__":
    main()
