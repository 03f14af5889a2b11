"""Start of a faster grid-rgb: blocks half as wide inside, of those features that carry most. To be trained on afterwards.

    python -m latentpress.codecs.grid_narrow train/checkpoints/grid-rgb.safetensors -o runs/narrow.safetensors --data PHOTOGRAPHS
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentpress.codecs.grid_train import OCTAVES, GridModel, training_planes
from latentpress.entropy.grid_network import GROUPS, GridConfig, GridNetwork, Group


def narrowed(network: GridNetwork, planes: Iterable[Tensor], expansion: int = 1) -> GridNetwork:
    """Of each block's inner features, keep those whose variance times outgoing weight is largest; the means of the others go into the bias."""
    seen: dict[tuple[str, int], list[Tensor]] = {}
    hooks = []
    for name in GROUPS:
        for b, block in enumerate(_group(network, name).blocks):

            def record(_: Any, inputs: tuple[Tensor, ...], key: tuple[str, int] = (name, b)) -> None:
                seen.setdefault(key, []).append(inputs[0].detach().transpose(0, 1).flatten(1)[:, ::16])

            hooks.append(_children(block)[2].register_forward_pre_hook(record))
    with torch.no_grad():
        for x in planes:
            network(x, octaves=OCTAVES)
    for hook in hooks:
        hook.remove()
    small = GridNetwork(dataclasses.replace(network.config, expansion=expansion))
    state = network.state_dict()
    kept = expansion * network.config.width
    for (name, b), parts in seen.items():
        values, at = torch.cat(parts, 1), f"groups.{name}.blocks.{b}"
        out = state[f"{at}.2.weight"]
        order = (values.var(1) * out.square().sum((0, 2, 3))).argsort(descending=True)
        keep, drop = order[:kept].sort().values, order[kept:]
        state[f"{at}.2.bias"] = state[f"{at}.2.bias"] + out[:, drop, 0, 0] @ values[drop].mean(1)
        state[f"{at}.2.weight"] = out[:, keep]
        state |= {f"{at}.1.{part}": state[f"{at}.1.{part}"][keep] for part in ("weight", "bias")}
    small.load_state_dict(state)
    return small


def _group(network: GridNetwork, name: str) -> Group:
    return network.groups[name]  # type: ignore[return-value]


def _children(module: Any) -> list[Any]:
    return list(module.children())


def _crops(folder: Path, count: int, side: int = 256) -> Iterable[Tensor]:
    for path in sorted(folder.rglob("*.[jp][pn]g"))[:: max(1, len(sorted(folder.rglob("*.[jp][pn]g"))) // count)]:
        pixels = np.asarray(Image.open(path).convert("RGB"))[:side, :side]
        if pixels.shape[:2] == (side, side):
            yield training_planes(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--expansion", type=int, default=1)
    parser.add_argument("--count", type=int, default=24)
    args = parser.parse_args(arguments)
    model = GridModel.from_options(GridConfig())
    weights: Mapping[str, Tensor] = load_file(args.weights)
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    torch.manual_seed(0)
    crops = list(_crops(args.data, args.count))
    small = GridModel(narrowed(model.network, crops, args.expansion))
    small.network.set_through(True)
    with torch.no_grad():
        before, after = (float(sum(sum(m.network(x, octaves=OCTAVES)) for x in crops) / sum(x.numel() for x in crops)) for m in (model, small))
    print(f"{before:.4f} bits a sample before, {after:.4f} after")
    save_file({k: v.contiguous() for k, v in small.state_dict().items()}, args.output)


if __name__ == "__main__":
    main()
