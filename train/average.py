"""Exponential moving average of weights: what validation measures and export freezes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """state: one tensor for each of the model's, buffers that are no floats copied as they are. decay 0 follows the model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """step: how many the model has made; the first ones count more."""
        decay = min(self.decay, step / (step + 50))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state.items():
            value.copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model holds the average and is in evaluation mode inside, and is as before after."""
        kept, training = {k: v.detach().clone() for k, v in model.state_dict().items()}, model.training
        model.load_state_dict(self.state)
        model.eval()
        try:
            yield
        finally:
            model.load_state_dict(kept)
            model.train(training)
