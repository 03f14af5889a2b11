"""Latent refinement: rate bought with encoder time; a decoder never knows.

The analysis transform is one guess for all images. Here the latents of one image are optimised against the true synthesis by gradient
descent through annealed stochastic rounding (Yang, Bamler and Mandt 2020, "Improving inference for neural image compression"). Cheaper than
the paper's: means and scales of the prior are held for some steps and then taken anew, so that most steps cost one synthesis and its
gradient; elements that are not coded take no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentpress.entropy.hyperprior import LEVEL_STEPS, Step, scatter
from latentpress.entropy.priors import GaussianConditional

if TYPE_CHECKING:
    from latentpress.codecs.image_walloc import Quantised, WallocRGB


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """steps: synthesis evaluations with gradient; rate: of Adam, in quantisation steps; refresh: steps between two prior evaluations."""

    steps: int
    rate: float = 0.015
    refresh: int = 10
    hot: float = 0.5  # temperature of the rounding at the start
    cold: float = 0.05  # and at the end


LEAST_STEP = 0.1  # of the correction below: smaller ones gain less than .05 % and cost as much time
# measured on validation crops: 40 steps take 2.7 % off the cost at rate .015 and hot .5, 1.7 % at .03, nothing at hot .2 or without noise
EFFORTS = {effort: Schedule(steps=steps) for effort, steps in zip(range(3, 10), (10, 16, 25, 40, 60, 80, 110), strict=True)}


@dataclass
class Held:
    """The prior's view of the current latents: means and log scales [1, m, h, w] and which elements are coded (1) or not (0)."""

    mean: Tensor
    log_scale: Tensor
    coded: Tensor


def soft_round(residual: Tensor, temperature: float) -> Tensor:
    """Stochastic mix of the two nearest integers, nearly hard at low temperature."""
    below = torch.floor(residual)
    share = (residual - below).clamp(1e-4, 1 - 1e-4)
    logit = (torch.atanh(share) - torch.atanh(1 - share)) / temperature
    uniform = torch.rand_like(logit).clamp_(1e-6, 1 - 1e-6)
    gumbel = torch.log(uniform) - torch.log1p(-uniform)  # difference of two Gumbel variables
    return below + torch.sigmoid((logit + gumbel) / temperature)


def held(core: WallocRGB, y: Tensor, z: Tensor, level: int) -> tuple[Held, Quantised]:
    """Code y plainly and keep what the prior said on the way."""
    from latentpress.codecs.image_walloc import Quantised

    mean, log_scale, coded = (torch.zeros_like(y) for _ in range(3))

    def watch(step: Step) -> None:
        _, m, h, w = step.mean.shape
        mask = torch.from_numpy(step.coded).view(1, h, w, m).permute(0, 3, 1, 2).to(y.dtype)
        for target, value in ((mean, step.mean / 16), (log_scale, step.log_scale / 16), (coded, mask)):
            scatter(target, value, step.index)

    quantised = Quantised(*core.prior.symbols(y, level, z=z, watch=watch))
    return Held(mean, log_scale, coded), quantised


def cost(core: WallocRGB, quantised: Quantised, samples: Tensor, level: int, weight: float) -> float:
    """Bits + weight * squared error (0-255 scale) of what would be decoded."""
    decoded = core.synthesise(quantised.known / 16, level)[:, :, : samples.shape[2], : samples.shape[3]].clamp(0, 1)
    error = float((((decoded * 255).round() - samples * 255) ** 2).mean(1).sum())
    return core.bits(quantised) + weight * error


def corrected(core: WallocRGB, latents: Tensor, level: int, margins: tuple[int, int, int, int]) -> Tensor:
    """One step of a fixed-point iteration: move the latents by what analysis misses of its own decoded latents.

    Where the synthesis adds something of its own (it fills what was rounded away, it shrinks), the latents make up for it. The step is the
    level's share of the highest level: on validation crops it takes .25, .8 and 6 % off the cost at levels 256, 512 and 896; at level 0
    every step loses. margins: latent positions at the top, bottom, left and right where neighbours are missing and nothing is moved.
    """
    step = level / core.max_level
    if step < LEAST_STEP:
        return latents
    decoded = core.reconstructed(core.quantise(latents, level))
    seen = core.analyse(core.synthesise(decoded, level).clamp(0, 1))
    move = decoded / torch.exp(core.gain_row(level)) - seen
    top, bottom, left, right = margins
    mask = torch.zeros_like(move)
    mask[:, :, top : move.shape[2] - bottom, left : move.shape[3] - right] = step
    return latents + mask * move


def refined(core: WallocRGB, latents: Tensor, samples: Tensor, level: int, schedule: Schedule) -> Quantised:
    """Never worse than rounding `latents`, by the cost above. Random numbers are seeded: the same input gives the same bytes on one machine."""
    weight = float(core.config.lambda_at(torch.tensor(level / LEVEL_STEPS)))
    y = core.scaled(latents, level).clone()
    z = core.prior.hyper(y)
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(level)
        return _descend(core, y, z, samples, level, weight, schedule)
    finally:
        torch.random.set_rng_state(state)


def _descend(core: WallocRGB, y: Tensor, z: Tensor, samples: Tensor, level: int, weight: float, schedule: Schedule) -> Quantised:
    view, best = held(core, y, z, level)
    least = cost(core, best, samples, level, weight)
    y.requires_grad_()
    optimiser = torch.optim.Adam([y], schedule.rate, betas=(0.9, 0.99))
    for i in range(schedule.steps):
        if i and i % schedule.refresh == 0:
            view, _ = held(core, y.detach(), z, level)
        done = i / schedule.steps
        temperature = schedule.hot * (schedule.cold / schedule.hot) ** done
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * min(1.0, 2 * (1 - done))
        with torch.enable_grad():
            residual = soft_round(y - view.mean, temperature) * view.coded
            bits = (GaussianConditional.bits(residual, view.log_scale) * view.coded).sum()
            decoded = core.synthesise(view.mean + residual, level)
            loss = bits + weight * 255**2 * ((decoded - samples) ** 2).mean(1).sum()
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
    _, last = held(core, y.detach(), z, level)
    return last if cost(core, last, samples, level, weight) < least else best
