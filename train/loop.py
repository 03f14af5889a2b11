"""The training loop. It knows `codecs.trainable.Trainable` and nothing of any codec.

    loop.train(config)      data -> forward -> gradients -> optimiser -> average; now and then log, validation, checkpoint

Every step is a function of the seed, its number and the state before it, so a run that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpress.codecs.registry import load_trainable
from latentpress.codecs.trainable import Trainable
from latentpress.errors import InputError
from latentpress.train.average import Average
from latentpress.train.checkpoint import BEST, WEIGHTS, Checkpoints, fit, read_weights, save_weights, write_whole
from latentpress.train.config import TrainConfig, build, write_yaml
from latentpress.train.data import Crops, Loader, centre, divide, open_source, spread
from latentpress.train.devices import Objective, add_gradients, first_process, make_fabric
from latentpress.train.log import Log
from latentpress.train.optimisers import make_optimiser, rate_factor, set_rate
from latentpress.train.validate import validate

START_SAMPLES = 64  # photographs that a closed-form start sees
FIT_SAMPLES = 16  # photographs that tables are fitted to at each validation; export takes more
PICTURES = 4


def train(config: TrainConfig, *, resume: bool = False, trainable: type[Trainable] | None = None) -> Path:
    """Run to the end of the steps or minutes; returns the folder of the run. trainable: instead of the registered one of that name.

    Raises InputError when the run or its data cannot be used, and when steps without finite gradients do not end.
    """
    config.needs_end()
    cls, variant = (trainable, config.codec.partition("/")[2]) if trainable else load_trainable(config.codec)
    options = build(cls.options, config.model, "model.")
    config = dataclasses.replace(config, model=dataclasses.asdict(options))
    if config.threads:
        torch.set_num_threads(config.threads)
    if first_process():
        _refuse_other_runs(config, resume)
    fabric = make_fabric(config)
    fabric.launch()
    torch.manual_seed(config.seed)
    model = cls.from_options(options, variant)
    run = Run(config, fabric, model)
    try:
        run.begin(resume)
        run.go()
    finally:
        run.close()
    return run.folder


def _refuse_other_runs(config: TrainConfig, resume: bool) -> None:
    if not resume and Checkpoints(Path(config.run), {}, 1).files():
        raise InputError(f"{config.run}: holds a run already; give --resume to go on with it, or another --run")


class Run:
    """One process of one run."""

    def __init__(self, config: TrainConfig, fabric: Any, model: Trainable) -> None:
        self.config, self.fabric, self.model, self.folder = config, fabric, model, Path(config.run)
        self.first: bool = fabric.global_rank == 0
        self.world: int = fabric.world_size
        self.source = open_source(config.data, model.domain)
        self.training, held_out = divide(self.source)
        self.held_out = [centre(i, config.validation_side) for i in spread(self.source, held_out, config.validation_images)] if self.first else []
        self.checkpoints = Checkpoints(self.folder, {"codec": config.codec, "model": dict(config.model)}, config.keep)
        self.step, self.skipped, self.skipped_in_row = 0, 0, 0
        self.validated, self.best = -1, math.inf  # the step of the last validation, the least cost of all
        self.spent, self.spent_before = 0.0, 0.0  # seconds of training, and at the line of the log before
        self.window: dict[str, float] = {}
        self.stopping = False
        self.log: Log | None = None
        self.loader: Loader | None = None

    # ---- beginning and end

    def begin(self, resume: bool) -> None:
        config = self.config
        state = self.checkpoints.newest(self.fabric.device) if resume else None
        if state is None:
            self._initial_weights()
        self.objective = self.fabric.setup_module(Objective(self.model))
        auxiliary = self.model.auxiliary_parameters()
        apart = {id(p) for p in auxiliary}
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad and id(p) not in apart]
        self.main, self.auxiliary = [p for _, p in named], auxiliary
        self.optimisers = [make_optimiser(config.optimiser, named, config.rate)]
        if auxiliary:
            names = [(str(i), p) for i, p in enumerate(auxiliary)]
            self.optimisers.append(make_optimiser("adamw", names, config.auxiliary_rate))
        self.average = Average(self.model, config.ema)
        if state is not None:
            self._restore(state)
        crops = Crops(
            self.source, self.training, crop=config.crop, batch=config.batch, seed=config.seed, shrink=config.shrink, rank=self.fabric.global_rank,
            world=self.world, device=self._data_device(), cache_bytes=config.cache_gb * 1e9,
        )  # fmt: skip
        self.loader = Loader(crops, self.step * config.accumulate)
        if self.first:
            write_whole(self.folder / "config.yaml", write_yaml(config).encode())
            self.log = Log(self.folder, step=self.step, steps=config.steps, minutes=config.minutes)
            if state is not None:
                self.log.say(f"going on from step {self.step}")

    def _initial_weights(self) -> None:
        if self.config.weights:
            state, _ = read_weights(Path(self.config.weights))
            fit(self.model, state, self.config.weights, f"{self.config.codec} with these settings")
        else:
            self.model.start(spread(self.source, self.training, START_SAMPLES))

    def _data_device(self) -> torch.device:
        """Photographs lie on a GPU if they take less than half of its free memory."""
        device: torch.device = self.fabric.device
        if device.type != "cuda":
            return torch.device("cpu")
        size = sum(3 * h * w for h, w in self.source.sizes)
        return device if size < min(torch.cuda.mem_get_info(device)[0] / 2, self.config.cache_gb * 1e9) else torch.device("cpu")

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        bases = [[g["base"] for g in o.param_groups] for o in self.optimisers]
        for optimiser, saved, base in zip(self.optimisers, state["optimisers"], bases, strict=True):
            optimiser.load_state_dict(saved)
            for group, rate in zip(optimiser.param_groups, base, strict=True):
                group["base"] = rate  # of this configuration, should it have changed
        self.average.load(state["average"])
        self.step, self.skipped, self.spent = state["step"], state["skipped"], state["spent"]
        self.validated, self.best = state["validated"], state["best"]
        self.spent_before, self.window = self.spent, dict(state["window"])

    def close(self) -> None:
        if self.loader is not None:
            self.loader.close()
        if self.log is not None:
            self.log.close()
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    # ---- the course of a run

    def go(self) -> None:
        config, saved = self.config, self.step
        clock = time.process_time if config.clock == "cpu" else time.perf_counter
        with self._signals():
            while self._done() < 1 and not self.stopping:
                begin = clock()
                self._one_step()
                self.spent += clock() - begin
                if self.step % config.log_every == 0:
                    self._write_window()
                if self.step % config.validate_every == 0:
                    self._validate()
                if self.step % config.save_every == 0:
                    self._save()
                    saved = self.step
            if not self.stopping and self.validated != self.step:
                self._validate()
                saved = -1  # the best weights may have changed
            if saved != self.step:
                self._save()
            if self.stopping and self.log is not None:
                self.log.say(f"stopped at step {self.step}; --resume goes on from there")

    def _done(self) -> float:
        """The part of the run that is over, the same in all processes."""
        if self.world > 1:
            ours = torch.tensor([self.spent, float(self.stopping)], dtype=torch.float64, device=self.fabric.device)
            self.spent, stopping = self.fabric.all_reduce(ours, reduce_op="max").tolist()
            self.stopping = stopping > 0
        return self._fraction()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM (a batch system that wants the machine back) ends the run after its step, with a checkpoint."""
        kept = {}

        def stop(number: int, frame: Any) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                kept[number] = signal.signal(number, stop)
        except ValueError:  # not the main thread
            pass
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _one_step(self) -> None:
        config, done = self.config, self._fraction()
        factor = rate_factor(self.step, done, warmup=config.warmup, constant=config.constant)
        for optimiser in self.optimisers:
            set_rate(optimiser, factor)
            optimiser.zero_grad(set_to_none=True)
        scalars, auxiliary = self._gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.main, config.clip or math.inf)
        finite = torch.isfinite(norm) & torch.stack([torch.isfinite(g).all() for g in auxiliary] or [torch.isfinite(norm)]).all()
        row = torch.stack([finite.to(norm), norm, *(v.detach().to(norm) for v in scalars.values())]).tolist()
        self.step += 1
        if not row[0]:
            self._skip()
            return
        self.skipped_in_row = 0
        for parameter, gradient in zip(self.auxiliary, auxiliary, strict=True):
            parameter.grad = gradient
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update(self.model, self.step - self.skipped)
        for name, value in zip(("steps", "norm", *scalars), row, strict=True):
            self.window[name] = self.window.get(name, 0.0) + value

    def _fraction(self) -> float:
        steps, minutes = self.config.steps, self.config.minutes
        return max(self.step / steps if steps else 0.0, self.spent / 60 / minutes if minutes else 0.0)

    def _gradients(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Of the main loss into the parameters, synchronised; means of the scalars of this process; those of the auxiliary parameters."""
        count, scalars = self.config.accumulate, dict[str, Tensor]()
        auxiliary = [torch.zeros_like(p) for p in self.auxiliary]
        assert self.loader is not None
        for part in range(count):
            batch = self.loader.next().to(self.fabric.device, non_blocking=True)
            torch.manual_seed((self.config.seed << 40) + (self.step * count + part) * self.world + self.fabric.global_rank)
            with self.fabric.no_backward_sync(self.objective, enabled=part + 1 < count):
                main, held = self.objective(batch)
                losses = held.losses
                if self.auxiliary and losses.auxiliary is not None:
                    add_gradients(auxiliary, losses.auxiliary / count, self.auxiliary)
                self.fabric.backward(main / count)
            seen = {"loss": main, **losses.scalars} | ({} if losses.auxiliary is None else {"auxiliary": losses.auxiliary})
            for name, value in seen.items():
                scalars[name] = scalars.get(name, 0) + value.detach().float() / count
        if auxiliary and self.world > 1:
            auxiliary = [self.fabric.all_reduce(g, reduce_op="mean") for g in auxiliary]
        return scalars, auxiliary

    def _skip(self) -> None:
        self.skipped, self.skipped_in_row = self.skipped + 1, self.skipped_in_row + 1
        if self.log is not None:
            self.log.event(self.step, "a gradient is not finite, step skipped")
        if self.skipped_in_row >= self.config.max_skips:
            raise InputError(
                f"{self.folder}: stopped after {self.skipped_in_row} steps in a row without finite gradients; "
                f"try --resume --set rate={self.config.rate / 2:g}"
            )

    # ---- now and then

    def _write_window(self) -> None:
        window, steps = dict(self.window), max(1.0, self.window.get("steps", 0.0))
        self.window = {}
        assert self.loader is not None
        means = {k: v / steps for k, v in window.items() if k not in ("steps", "since", "waited")}
        if self.world > 1 and means:
            reduced = self.fabric.all_reduce(torch.tensor(list(means.values()), dtype=torch.float64, device=self.fabric.device), reduce_op="mean")
            means = dict(zip(means, reduced.tolist(), strict=True))
        seconds = self.spent - self.spent_before
        waited, self.loader.waited = self.loader.waited, 0.0
        if self.log is not None:
            clock = {"steps_per_second": round(self.config.log_every / max(seconds, 1e-9), 4), "waiting": round(waited / max(seconds, 1e-9), 4),
                     "seconds": round(self.spent, 2)}  # fmt: skip
            self.log.train(self.step, means | {"rate": self.optimisers[0].param_groups[0]["lr"], "skipped": self.skipped} | clock, self._fraction())
        self.spent_before = self.spent

    def _validate(self) -> None:
        if self.first:
            assert self.log is not None
            samples = spread(self.source, self.training, FIT_SAMPLES)
            with self.average.applied(self.model):
                report = validate(self.model, samples, self.held_out)
                shown = [i for i in self.held_out if i.shape == self.held_out[0].shape][:PICTURES]
                originals = torch.stack(shown).to(self.fabric.device).float() / 255
                with torch.no_grad():
                    self.log.pictures(self.step, originals, self.model.reconstruct(originals))
            self.log.validation(self.step, report)
            if report["cost"] < self.best:
                self.best = report["cost"]
                save_weights(self.folder / BEST, self.average.state, self._facts() | {"validation": report})
        self.validated = self.step
        self.fabric.barrier()

    def _save(self) -> None:
        if self.first:
            state = {
                "model": self.model.state_dict(), "optimisers": [o.state_dict() for o in self.optimisers], "average": self.average.state,
                "skipped": self.skipped, "spent": self.spent, "validated": self.validated, "best": self.best,
                "window": self.window,
            }  # fmt: skip
            self.checkpoints.save(self.step, state)
            save_weights(self.folder / WEIGHTS, self.average.state, self._facts())
        self.fabric.barrier()

    def _facts(self) -> dict[str, Any]:
        """What weights files say of themselves."""
        facts = {"codec": self.config.codec, "model": dict(self.config.model), "step": self.step, "seconds": round(self.spent)}
        return facts | {"config": dataclasses.asdict(self.config), "processes": self.world, "torch": torch.__version__}
