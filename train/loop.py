"""The training loop of walloc-rgb, plain: one file, resumes, any number of processes (gloo), CPU or one GPU each.

    python -m latentpress.train.loop RUN --data DIR --minutes 100 [--init weights.safetensors | --resume] [--world 2]

Writes runs/RUN.pt (all state), runs/RUN.safetensors (averaged weights), runs/RUN.log. The learning rate is constant for part of the minutes,
then falls on a cosine: let a run end. Gradients are averaged over the processes, so that all of them hold the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentpress.codecs.image_walloc import WallocRGBModel
from latentpress.datasets.photographs import photographs, split
from latentpress.train.data import Crops, load_image


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    run: str
    data: str
    minutes: float = 100.0
    init: str | None = None
    resume: bool = False
    rate: float = 8e-4
    constant: float = 0.45  # part of the minutes before the cosine
    warmup: int = 200  # steps
    batch: int = 4  # a process
    crop: int = 192
    seed: int = 1
    through: bool = True  # train with the integers of the frozen prior
    average: float = 0.999
    save_every: int = 250
    rank: int = 0
    world: int = 1
    port: int = 29512
    threads: int = 1
    device: str = "cpu"


def learning_rate(config: LoopConfig, step: int, done: float) -> float:
    """done: part of the minutes that is over, 0 to 1."""
    warm = min(1.0, (step + 1) / config.warmup)
    if done < config.constant:
        return config.rate * warm
    fall = (done - config.constant) / (1 - config.constant)
    return config.rate * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, fall))))


def sample_levels(batch: int, levels: int) -> Tensor:
    """All levels, the upper half more often: its bits are most of the rate and its transforms were behind."""
    anywhere, upper = torch.rand(batch) * (levels - 1), (1 + torch.rand(batch)) / 2 * (levels - 1)
    return torch.where(torch.rand(batch) < 0.65, anywhere, upper)


def make_optimiser(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """SOAP: about 13 % less rate than AdamW after equal minutes on this model."""
    from pytorch_optimizer import SOAP

    optimiser: torch.optim.Optimizer = SOAP(
        model.parameters(), lr=rate, betas=(0.95, 0.95), weight_decay=0, precondition_frequency=20, max_precondition_dim=520
    )
    return optimiser


class Average:
    """Exponential moving average of the weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.state = decay, {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 50))
        for name, value in model.state_dict().items():
            self.state[name].lerp_(value, 1 - decay)


def average_gradients(parameters: list[nn.Parameter], world: int) -> bool:
    """Mean over the processes, in place; False when some gradient is not finite (in all processes alike)."""
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.contiguous().flatten() for p in parameters])
    if world > 1:
        dist.all_reduce(flat)
        flat /= world
    if not torch.isfinite(flat).all():
        return False
    at = 0
    for p in parameters:
        p.grad = flat[at : at + p.numel()].view_as(p).clone()
        at += p.numel()
    return True


@torch.no_grad()
def validate(model: WallocRGBModel, images: list[Tensor], levels: list[float]) -> list[tuple[float, float]]:
    """(estimated bpp, PSNR) means over the images, a level."""
    rows = []
    for level in levels:
        rate = quality = 0.0
        for image in images:
            x = (image[None].float() / 255).contiguous(memory_format=torch.channels_last)
            decoded, bits = model(x, torch.tensor([level]), rounded=True)
            error = float(((decoded.clamp(0, 1) * 255).round() - image).pow(2).mean())
            rate += float(bits) / (x.shape[2] * x.shape[3]) / len(images)
            quality += 10 * math.log10(255**2 / error) / len(images)
        rows.append((rate, quality))
    return rows


class Run:
    """Files and log of one run; only the first process writes."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self.folder = Path("runs")
        self.folder.mkdir(exist_ok=True)
        self.state, self.weights = self.folder / f"{config.run}.pt", self.folder / f"{config.run}.safetensors"

    def say(self, text: str) -> None:
        if self.config.rank == 0:
            print(text, flush=True)
            with open(self.folder / f"{self.config.run}.log", "a") as log:
                log.write(text + "\n")

    def save(self, state: dict[str, Any], average: Average) -> None:
        if self.config.rank == 0:
            temporary = self.state.with_suffix(".tmp")
            torch.save(state, temporary)
            os.replace(temporary, self.state)
            metadata = {"config": json.dumps(asdict(self.config)), "step": str(state["step"])}
            save_file({k: v.contiguous() for k, v in average.state.items()}, self.weights, metadata=metadata)


def train(config: LoopConfig) -> None:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed + config.rank)
    if config.world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{config.port}", rank=config.rank, world_size=config.world)
    training, validation = split(photographs(Path(config.data)))
    crops = Crops([load_image(f) for f in training], crop=config.crop, batch=config.batch, seed=config.seed * 1000 + config.rank)
    held_out = [load_image(f)[:, :256, :256] for f in validation]
    model = WallocRGBModel()
    if config.init:
        model.load_state_dict({k: v.float() for k, v in load_file(config.init).items()})
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.prior.network.set_through(config.through)
    optimiser, average, run = make_optimiser(model, config.rate), Average(model, config.average), Run(config)
    step, spent = 0, 0.0
    if config.resume and run.state.exists():
        state = torch.load(run.state, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.state, step, spent = state["average"], state["step"], state["spent"]
    parameters, begin, costs = list(model.parameters()), time.time(), []
    levels = [float(i) for i in range(model.config.levels)]
    while True:
        elapsed = torch.tensor([spent + time.time() - begin])
        if config.world > 1:
            dist.broadcast(elapsed, 0)
        done = float(elapsed) / (60 * config.minutes)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step, done)
        cost, _, _ = model.loss(crops.next(), sample_levels(config.batch, model.config.levels))
        optimiser.zero_grad(set_to_none=True)
        cost.backward()
        if not average_gradients(parameters, config.world):
            run.say(f"step {step}: a gradient is not finite, step skipped")
            continue
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        average.update(model, step)
        costs.append(float(cost))
        if step % 50 == 0:
            run.say(f"{float(elapsed):.0f} s step {step} cost {sum(costs) / len(costs):.4f} rate {optimiser.param_groups[0]['lr']:.2e}")
            costs.clear()
        if step % config.save_every == 0:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.state, "step": step}
            run.save(state | {"spent": float(elapsed)}, average)
        if step % (4 * config.save_every) == 0 and config.rank == 0:
            current = {k: v.clone() for k, v in model.state_dict().items()}
            model.load_state_dict(average.state)
            run.say("validation " + " ".join(f"{r:.4f}/{q:.3f}" for r, q in validate(model, held_out, levels)))
            model.load_state_dict(current)
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.state, "step": step}
    run.save(state | {"spent": float(elapsed)}, average)
    if config.rank == 0:
        model.load_state_dict(average.state)
        run.say(f"end step {step} validation " + " ".join(f"{r:.4f}/{q:.3f}" for r, q in validate(model, held_out, levels)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    for name, default in asdict(LoopConfig(run="", data="")).items():
        if name in ("run", "data"):
            continue
        if isinstance(default, bool):
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(f"--{name}", type=str if default is None else type(default), default=default)
    train(LoopConfig(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
