"""Training of circuits by expectation maximisation: one command from an array to a preset folder.

    python -m latentpress.train.circuit --data mydata.npy -o mypreset --states 64 --minutes 40
    python -m latentpress.train.circuit --data train-images-idx3-ubyte.xz -o circuit-mnist --states 64 --epochs 6 --threads 2

The run is resumed when its checkpoint is there (`--run`). With --epochs, seed and data fix every number on a machine; --minutes ends in time.
The last part of the data (--validation) is held out: it is for choosing settings, never the test set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.circuit import Columns
from latentpress.codecs.presets import write_preset
from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_em import Learner, Smoothing, Statistics, start
from latentpress.entropy.circuit_grow import grow, prune
from latentpress.entropy.circuit_pack import pack
from latentpress.entropy.circuit_tree import Tree, binned, chow_liu, pairwise_information
from latentpress.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CircuitConfig:
    """What a run is made of.

    data, output   file or folder of samples; preset folder
    states, basis  M; leaf distributions that all variables share, 0 for tables of their own, -1 for 48 with images and 0 with rows
    epochs or minutes  where it ends
    first_rate, last_rate  part of the running statistics that a batch replaces, falling geometrically
    shift          images move by up to so many pixels at random
    stages, noise, keep  training begins with states / 2**(stages - 1) and doubles them at even parts of its length, the copies shaken by `noise`;
                   at the end of every stage a part `keep` of the transitions is kept
    """

    data: str
    output: str
    run: str = ""
    states: int = 64
    basis: int = -1
    epochs: float = 0.0
    minutes: float = 0.0
    batch: int = 512
    first_rate: float = 0.25
    last_rate: float = 0.008
    edges: float = 1.0
    leaves: float = 1.0
    uniform: float = 0.01
    validation: int = 2000
    shift: int = 0
    stages: int = 1
    noise: float = 0.2
    keep: float = 1.0
    seed: int = 1
    threads: int = 1
    save_minutes: float = 3.0
    structure_samples: int = 12000
    cluster_samples: int = 8000


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for f in fields(CircuitConfig):
        names = ["-o", "--output"] if f.name == "output" else [f"--{f.name.replace('_', '-')}"]
        if f.name in ("data", "output"):
            parser.add_argument(*names, dest=f.name, required=True)
        else:
            parser.add_argument(*names, dest=f.name, type=type(f.default), default=f.default)
    print(train_circuit(CircuitConfig(**vars(parser.parse_args(arguments)))))


def train_circuit(config: CircuitConfig) -> Path:
    """Train, freeze, write a preset; its folder. Raises InputError for data that cannot be used."""
    torch.set_num_threads(config.threads)
    if bool(config.epochs) == bool(config.minutes):
        raise InputError("give one of epochs and minutes")
    samples = _load(config)
    run = _Run(config, samples)
    run.go()
    return run.freeze()


@dataclass(frozen=True)
class _Samples:
    """symbols [samples, variables] as small as they fit; shape: of one sample; columns: how integers become symbols; about: for the description."""

    symbols: NDArray[Any]
    shape: tuple[int, ...]
    columns: Columns
    about: Mapping[str, Any]


def _load(config: CircuitConfig) -> _Samples:
    from latentpress.api import as_samples

    signal = as_samples(config.data)
    if len(signal.data) < 20 or signal.data[0].size == 0:
        raise InputError(f"{config.data}: {len(signal.data)} samples of {signal.data[0].size} values are too few to learn from")
    rows = signal.data.reshape(len(signal.data), -1)
    columns = Columns.fitting(rows, signal.data.shape[1:])
    symbols = np.concatenate([columns.symbols(rows[s : s + 4096].astype(np.int64))[0].astype(np.uint8) for s in range(0, len(rows), 4096)])
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
    about = {"sample_shape": list(signal.data.shape[1:]), "dtype": signal.data.dtype.name, "samples": len(rows), "data_sha256": digest}
    table = (signal.meta.get("array") or {}).get("table")
    return _Samples(symbols, signal.data.shape[1:], columns, about | ({"table": table} if table else {}))


class _Run:
    """One training run: state on disk in `run`.safetensors and .json, a line an epoch in `run`.log."""

    def __init__(self, config: CircuitConfig, samples: _Samples) -> None:
        held = min(config.validation, len(samples.symbols) // 10)
        self.config, self.samples = config, samples
        self.data, self.held_out = samples.symbols[: len(samples.symbols) - held], samples.symbols[len(samples.symbols) - held :]
        self.basis = config.basis if config.basis >= 0 else 48 if len(samples.shape) > 1 else 0
        self.path = Path(config.run or f"{config.output.rstrip('/')}.run")
        self.done, self.elapsed, self.began = 0, 0.0, time.monotonic()
        self.batch = min(config.batch, len(self.data))
        self.per_epoch = len(self.data) // self.batch
        self.learner = self._resume() or self._fresh()

    # ---- beginning

    def _fresh(self) -> Learner:
        c = self.config
        generator = np.random.default_rng(c.seed)
        sample = self.data[generator.permutation(len(self.data))[: max(c.structure_samples, c.cluster_samples)]]
        information = pairwise_information(binned(sample[: c.structure_samples], 5), 5)
        tree = chow_liu(information)
        if c.stages < 1 or c.states % (1 << c.stages - 1):
            raise InputError(f"{c.states} states cannot be reached by doubling {c.stages - 1} times")
        learner = start(tree, sample[: c.cluster_samples], information, states=c.states >> c.stages - 1,
                        values=self.samples.columns.values, basis=self.basis, smoothing=self._smoothing(), seed=c.seed,
                        samples=len(self.data))  # fmt: skip
        self._log({"started": True, "levels": len(tree.levels), "held_out": self._held_out(learner)})
        return learner

    def _smoothing(self) -> Smoothing:
        return Smoothing(edges=self.config.edges, leaves=self.config.leaves, uniform=self.config.uniform)

    def _resume(self) -> Learner | None:
        from safetensors.torch import load_file

        state = self.path.with_suffix(".json")
        if not state.is_file():
            return None
        saved = json.loads(state.read_text())
        mine = {k: v for k, v in asdict(self.config).items() if k in _SAME}
        if saved["config"] != mine:
            raise InputError(f"{state}: the run was started with other settings ({saved['config']}); give another --run")
        t = load_file(self.path.with_suffix(".safetensors"))
        self.done, self.elapsed = saved["done"], saved["elapsed"]
        circuit = Circuit(Tree(t["parents"].numpy(), t["variables"].numpy()), t["root"], t["transitions"], t["leaves"])
        counts = Statistics(t["counts_root"], t["counts_edges"], t["counts_leaves"])
        return Learner(circuit, counts, len(self.data), self._smoothing(), t.get("basis"), t.get("mixing"), kept=t.get("kept"))

    def save(self) -> None:
        from safetensors.torch import save_file

        learner = self.learner
        c = learner.circuit
        tensors = {"parents": torch.from_numpy(c.tree.parents), "variables": torch.from_numpy(c.tree.variables), "root": c.root,
                   "transitions": c.transitions, "leaves": c.leaves, "counts_root": learner.counts.root, "counts_edges": learner.counts.edges,
                   "counts_leaves": learner.counts.leaves}  # fmt: skip
        if learner.basis is not None and learner.mixing is not None:
            tensors |= {"basis": learner.basis, "mixing": learner.mixing}
        if learner.kept is not None:
            tensors["kept"] = learner.kept
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {"config": {k: v for k, v in asdict(self.config).items() if k in _SAME}, "done": self.done, "elapsed": self.seconds}
        partial = self.path.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
        os.replace(partial, self.path.with_suffix(".safetensors"))
        partial.write_text(json.dumps(state))
        os.replace(partial, self.path.with_suffix(".json"))

    # ---- going

    @property
    def seconds(self) -> float:
        return self.elapsed + time.monotonic() - self.began

    @property
    def progress(self) -> float:
        """0 to 1."""
        if self.config.epochs:
            return self.done / max(1, round(self.config.epochs * self.per_epoch))
        return self.seconds / 60 / self.config.minutes

    def go(self, until: float = 1.0) -> None:
        """Trains up to this part of the whole."""
        c = self.config
        saved = time.monotonic()
        total = count = 0.0
        while (progress := self.progress) < until:
            self._change_stage(progress)
            rate = c.last_rate * (c.first_rate / c.last_rate) ** (1 - progress)  # geometric
            total += self.learner.step(self._batch(self.done), rate)
            count += 1
            self.done += 1
            if time.monotonic() - saved > 60 * c.save_minutes:
                self.save()
                saved = time.monotonic()
            if self.done % self.per_epoch == 0 or self.progress >= 1:
                self._log({"epoch": self.done / self.per_epoch, "train": self._bits(total / count), "held_out": self._held_out(self.learner)})
                total = count = 0.0
        self.save()

    def _change_stage(self, progress: float) -> None:
        c = self.config
        left = c.stages - 1 - int(progress * c.stages)  # doublings to come in later stages
        while self.learner.circuit.states < c.states >> max(left, 0):
            if c.keep < 1:
                prune(self.learner, c.keep)
            grow(self.learner, c.noise, c.seed + self.learner.circuit.states)
            self._log({"states": self.learner.circuit.states, "held_out": self._held_out(self.learner)})

    def _batch(self, step: int) -> Tensor:
        """int64 [n, batch] in node order; the same for the same step."""
        epoch, at = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.data))
        rows = self.data[order[at * self.batch : (at + 1) * self.batch]]
        if self.config.shift:
            rows = _shifted(rows, self.samples.shape, self.config.shift, np.random.default_rng((self.config.seed, epoch, at)))
        return self.learner.circuit.nodes_first(rows)

    def _bits(self, nats: float) -> float:
        """Bits a dimension."""
        return round(-nats / math.log(2) / self.data.shape[1], 5)

    def _held_out(self, learner: Learner) -> float:
        return self._bits(float(learner.circuit.log_likelihood(self.held_out).mean())) if len(self.held_out) else float("nan")

    def _log(self, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".log").open("a") as log:
            log.write(json.dumps({**line, "minutes": round(self.seconds / 60, 2)}) + "\n")

    def freeze(self) -> Path:
        """The preset folder; keeps the run's files."""
        if self.config.keep < 1:
            prune(self.learner, self.config.keep)
        learner, columns, output = self.learner, self.samples.columns, Path(self.config.output)
        weights = pack(learner.circuit, bits=12, basis=learner.basis, mixing=learner.mixing)
        weights |= {"low": columns.low, "digits": columns.digits.astype(np.uint8)}
        settings = {k: v for k, v in asdict(self.config).items() if k not in ("data", "output", "run", "threads", "save_minutes")}
        about = dict(self.samples.about)
        table = about.pop("table", None)
        provenance = {"trained_on": {"file": Path(self.config.data).name, **about}, "settings": settings, "steps": self.done,
                      "minutes": round(self.seconds / 60, 1), "held_out_bits_a_dimension": self._held_out(learner)}  # fmt: skip
        description = {"codec": "circuit", "sample_shape": self.samples.about["sample_shape"], "block": 2500, "licence": "Apache-2.0",
                       "provenance": provenance} | ({"table": table} if table else {})  # fmt: skip
        write_preset(output, description, weights)
        return output


# settings that a resumed run must share with the checkpoint
_SAME = ("states", "basis", "batch", "validation", "shift", "seed", "stages", "noise", "keep", "structure_samples", "cluster_samples")


def _shifted(rows: NDArray[Any], shape: tuple[int, ...], reach: int, generator: np.random.Generator) -> NDArray[Any]:
    """Images moved by up to `reach` pixels each way; what enters repeats the border."""
    images = rows.reshape(len(rows), *shape)
    y, x = generator.integers(-reach, reach + 1, (2, len(rows)))
    row = np.clip(np.arange(shape[0])[None] + y[:, None], 0, shape[0] - 1)
    column = np.clip(np.arange(shape[1])[None] + x[:, None], 0, shape[1] - 1)
    return images[np.arange(len(rows))[:, None, None], row[:, :, None], column[:, None, :]].reshape(len(rows), -1)


if __name__ == "__main__":
    main()
