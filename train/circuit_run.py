"""One training run of a circuit, or of a circuit for each cluster: batches, stages, checkpoints.

Shared circuit first, in stages of doubling states; then, with more clusters than one, a copy for each cluster, which learns from its own samples.
A checkpoint is `run`.safetensors and .json; `run`.log has a line an epoch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.codecs.circuit import Columns
from latentpress.codecs.presets import read_preset
from latentpress.entropy.circuit import Circuit
from latentpress.entropy.circuit_clusters import ClusterLearner, Mixture, k_means, nearest
from latentpress.entropy.circuit_em import Learner, Smoothing, Statistics, own_statistics, start
from latentpress.entropy.circuit_grow import grow, prune
from latentpress.entropy.circuit_pack import floats
from latentpress.entropy.circuit_tree import Tree, binned, chow_liu, pairwise_information
from latentpress.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CircuitConfig:
    """What a run is made of.

    data, output   file or folder of samples; preset folder
    states, basis  M; leaf distributions that all variables share, 0 for tables of their own, -1 for 48 with images and 0 with rows
    epochs or minutes  where it ends
    first_rate, last_rate  part of the running statistics that a batch replaces, falling geometrically
    edges, leaves, uniform  pseudocounts (see Smoothing)
    validation     samples held out, at random: for choosing settings, never the test set
    shift          images move by up to so many pixels at random
    stages, noise, keep  training begins with states / 2**(stages - 1) and doubles them at even parts of its length, the copies shaken by `noise`;
                   at the end of every stage a part `keep` of the transitions is kept
    start          preset of one cluster to begin from: its tree, states and leaves
    clusters, split, strength, split_rate  circuits, one for each cluster of samples; the last part of the run, 0 to 1, in which they are apart;
                   pseudocounts that their transitions have from the mean of all, in samples a row; first_rate of that part
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
    start: str = ""
    clusters: int = 1
    split: float = 0.5
    strength: float = 5.0
    split_rate: float = 0.1
    seed: int = 1
    threads: int = 1
    save_minutes: float = 3.0
    structure_samples: int = 12000
    cluster_samples: int = 8000


# settings that a resumed run must share with the checkpoint
_SAME = ("states", "basis", "batch", "validation", "shift", "seed", "stages", "noise", "keep", "start", "clusters", "split", "structure_samples",
         "cluster_samples")  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """symbols [samples, variables] as small as they fit; shape: of one sample; columns: how integers become symbols; about: for the description."""

    symbols: NDArray[Any]
    shape: tuple[int, ...]
    columns: Columns
    about: Mapping[str, Any]


class Run:
    """State of a run. learner: the shared circuit; apart: circuits of the clusters, once they are; centres [C, variables]: of the clusters."""

    def __init__(self, config: CircuitConfig, samples: Samples) -> None:
        if config.clusters < 1 or not 0 < config.split <= 1:
            raise InputError(f"clusters={config.clusters}, split={config.split}: at least 1, and a part between 0 and 1, expected")
        held = min(config.validation, len(samples.symbols) // 10)
        order = np.random.default_rng((config.seed, 1 << 32)).permutation(len(samples.symbols))
        self.config, self.samples = config, samples
        self.held_out, self.data = samples.symbols[np.sort(order[:held])], samples.symbols[np.sort(order[held:])]
        self.basis = config.basis if config.basis >= 0 else 48 if len(samples.shape) > 1 else 0
        self.path = Path(config.run or f"{config.output.rstrip('/')}.run")
        self.done, self.elapsed, self.began = 0, 0.0, time.monotonic()
        self.batch = min(config.batch, len(self.data))
        self.per_epoch = len(self.data) // self.batch
        nowhere = np.zeros((1, self.data.shape[1]), np.uint8)
        self.centres = k_means(self.data[: 1 << 16], config.clusters, config.seed) if config.clusters > 1 else nowhere
        self.cluster, self.held_cluster = nearest(self.centres, self.data), nearest(self.centres, self.held_out)
        self.apart: ClusterLearner | None = None
        self.learner = self._resume() or (self._begun() if config.start else self._fresh())

    # ---- beginning

    def _fresh(self) -> Learner:
        c = self.config
        generator = np.random.default_rng(c.seed)
        picked = generator.permutation(len(self.data))[: max(c.structure_samples, c.cluster_samples)]
        sample = self.data[picked]
        information = self._information(picked[: c.structure_samples])
        tree = chow_liu(information)
        if c.stages < 1 or c.states % (1 << c.stages - 1):
            raise InputError(f"{c.states} states cannot be reached by doubling {c.stages - 1} times")
        learner = start(tree, sample[: c.cluster_samples], information, states=c.states >> c.stages - 1,
                        values=self.samples.columns.values, basis=self.basis, smoothing=self._smoothing(), seed=c.seed,
                        samples=len(self.data))  # fmt: skip
        self._log({"started": True, "levels": len(tree.levels), "held_out": self._bits(float(learner.circuit.log_likelihood(self.held_out).mean()))})
        return learner

    def _begun(self) -> Learner:
        """From a preset. Raises InputError where it is of other data."""
        c = self.config
        circuit, basis, mixing = floats(read_preset(Path(c.start), c.start).weights)
        if circuit.tree.size != self.data.shape[1] or circuit.values != self.samples.columns.values or circuit.states != c.states:
            raise InputError(f"{c.start}: a circuit of {circuit.tree.size} variables, {circuit.values} values and {circuit.states} states; "
                             f"the data have {self.data.shape[1]} and {self.samples.columns.values}, --states says {c.states}")  # fmt: skip
        learner = Learner(circuit, own_statistics(circuit), len(self.data), self._smoothing(), basis, mixing)
        learner.update()  # codes know no weight below theirs; pseudocounts do
        return learner

    def _information(self, picked: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mutual information of every two variables, given the cluster: nats [n, n]."""
        out = np.zeros((self.data.shape[1],) * 2, np.float32)
        for c in np.unique(self.cluster[picked]):
            mine = self.data[picked[self.cluster[picked] == c]]
            out += len(mine) / len(picked) * pairwise_information(binned(mine, 5), 5)
        return out

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
        learner = Learner(circuit, counts, len(self.data), self._smoothing(), t.get("basis"), t.get("mixing"), kept=t.get("kept"))
        if "apart_edges" in t:
            mixture = Mixture(circuit, t["shares"], t["apart_roots"], t["apart_transitions"])
            self.apart = ClusterLearner(learner, mixture, t["apart_counts"], t["apart_edges"], self.config.strength)
        return learner

    def save(self) -> None:
        from safetensors.torch import save_file

        learner, apart = self.learner, self.apart
        c = learner.circuit
        tensors = {"parents": torch.from_numpy(c.tree.parents), "variables": torch.from_numpy(c.tree.variables), "root": c.root,
                   "transitions": c.transitions, "leaves": c.leaves, "counts_root": learner.counts.root, "counts_edges": learner.counts.edges,
                   "counts_leaves": learner.counts.leaves}  # fmt: skip
        if learner.basis is not None and learner.mixing is not None:
            tensors |= {"basis": learner.basis, "mixing": learner.mixing}
        if learner.kept is not None:
            tensors["kept"] = learner.kept
        if apart is not None:
            tensors |= {"shares": apart.mixture.shares, "apart_roots": apart.mixture.roots, "apart_transitions": apart.mixture.transitions,
                        "apart_counts": apart.roots, "apart_edges": apart.edges}  # fmt: skip
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

    @property
    def together(self) -> float:
        """The part of the run before clusters go apart."""
        return 1.0 - self.config.split if self.config.clusters > 1 else 1.0

    def go(self, until: float = 1.0) -> None:
        """Trains up to this part of the whole."""
        saved = time.monotonic()
        total = count = 0.0
        while (progress := self.progress) < until:
            self._change_stage(progress)
            total += self._step(progress)
            count += 1
            self.done += 1
            if time.monotonic() - saved > 60 * self.config.save_minutes:
                self.save()
                saved = time.monotonic()
            if self.done % self.per_epoch == 0 or self.progress >= 1:
                self._log({"epoch": self.done / self.per_epoch, "train": self._bits(total / count), "held_out": self.held_out_bits()})
                total = count = 0.0
        self.save()

    def _step(self, progress: float) -> float:
        """One batch; nats a sample before it."""
        c = self.config
        rows, clusters = self._batch(self.done)
        nodes = self.learner.circuit.nodes_first(rows)
        if self.apart is None:
            return self.learner.step(nodes, _falling(c.first_rate, c.last_rate, progress / self.together))
        rate = _falling(c.split_rate, c.last_rate, (progress - self.together) / c.split)
        return self.apart.step([nodes[:, torch.from_numpy(np.flatnonzero(clusters == k))] for k in range(c.clusters)], rate)

    def _change_stage(self, progress: float) -> None:
        c = self.config
        left = c.stages - 1 - int(progress / self.together * c.stages) if self.together else 0  # doublings to come in later stages
        while self.learner.circuit.states < c.states >> max(left, 0):
            if c.keep < 1:
                prune(self.learner, c.keep)
            grow(self.learner, c.noise, c.seed + self.learner.circuit.states)
            self._log({"states": self.learner.circuit.states, "held_out": self.held_out_bits()})
        if self.apart is None and progress >= self.together and c.clusters > 1:
            shares = torch.from_numpy(np.bincount(self.cluster, minlength=c.clusters).clip(1) / len(self.cluster)).float()
            self.apart = ClusterLearner.split(self.learner, shares, c.strength)
            self._log({"apart": c.clusters, "held_out": self.held_out_bits()})

    def _batch(self, step: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Samples [batch, variables] and their clusters; the same for the same step."""
        epoch, at = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.data))
        picked = order[at * self.batch : (at + 1) * self.batch]
        rows = self.data[picked]
        if self.config.shift:
            rows = shifted(rows, self.samples.shape, self.config.shift, np.random.default_rng((self.config.seed, epoch, at)))
        return rows, self.cluster[picked]

    def _bits(self, nats: float) -> float:
        """Bits a dimension."""
        return round(-nats / math.log(2) / self.data.shape[1], 5)

    def held_out_bits(self) -> float:
        """Bits a dimension of the held-out samples, with the bits that say which cluster; nan where there are none."""
        if not len(self.held_out):
            return float("nan")
        apart, circuit = self.apart, self.learner.circuit
        nats = circuit.log_likelihood(self.held_out) if apart is None else apart.mixture.log_likelihood(self.held_out, self.held_cluster)
        return self._bits(float(nats.mean()))

    def _log(self, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".log").open("a") as log:
            log.write(json.dumps({**line, "minutes": round(self.seconds / 60, 2)}) + "\n")


def _falling(first: float, last: float, progress: float) -> float:
    """Geometrically."""
    return last * (first / last) ** (1 - min(progress, 1.0))


def shifted(rows: NDArray[Any], shape: tuple[int, ...], reach: int, generator: np.random.Generator) -> NDArray[Any]:
    """Images moved by up to `reach` pixels each way; what enters repeats the border."""
    images = rows.reshape(len(rows), *shape)
    y, x = generator.integers(-reach, reach + 1, (2, len(rows)))
    row = np.clip(np.arange(shape[0])[None] + y[:, None], 0, shape[0] - 1)
    column = np.clip(np.arange(shape[1])[None] + x[:, None], 0, shape[1] - 1)
    return images[np.arange(len(rows))[:, None, None], row[:, :, None], column[:, None, :]].reshape(len(rows), -1)
