"""Training of circuits by expectation maximisation: one command from an array to a preset folder.

    python -m latentpress.train.circuit --data mydata.npy -o mypreset --states 64 --minutes 40
    python -m latentpress.train.circuit --data train-images-idx3-ubyte.xz -o circuit-mnist --states 64 --clusters 10 --epochs 20 --threads 2

The run is resumed when its checkpoint is there (`--run`). With --epochs, seed and data fix every number on a machine; --minutes ends in time.
A part of the data (--validation) is held out: it is for choosing settings, never the test set.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch

from latentpress.codecs.circuit import Columns
from latentpress.codecs.presets import write_preset
from latentpress.entropy.circuit_clusters import Mixture
from latentpress.entropy.circuit_grow import prune
from latentpress.entropy.circuit_pack import Flows, pack
from latentpress.errors import InputError
from latentpress.train.circuit_run import CircuitConfig, Run, Samples

BLOCK = 5000  # samples that are coded, and decoded, together
SMALL = 1 << 20  # transitions: so few need no coarser codes, which would cost more where samples are few


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
    run = Run(config, load_samples(config.data))
    run.go()
    return freeze(run)


def load_samples(data: str) -> Samples:
    """Raises InputError for data that cannot be used."""
    from latentpress.api import as_samples

    signal = as_samples(data)
    if len(signal.data) < 20 or signal.data[0].size == 0:
        raise InputError(f"{data}: {len(signal.data)} samples of {signal.data[0].size} values are too few to learn from")
    rows = signal.data.reshape(len(signal.data), -1)
    columns = Columns.fitting(rows, signal.data.shape[1:])
    symbols = np.concatenate([columns.symbols(rows[s : s + 4096].astype(np.int64))[0].astype(np.uint8) for s in range(0, len(rows), 4096)])
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
    about = {"sample_shape": list(signal.data.shape[1:]), "dtype": signal.data.dtype.name, "samples": len(rows), "data_sha256": digest}
    table = (signal.meta.get("array") or {}).get("table")
    return Samples(symbols, signal.data.shape[1:], columns, about | ({"table": table} if table else {}))


def freeze(run: Run) -> Path:
    """The preset folder; keeps the run's files."""
    config, learner, columns = run.config, run.learner, run.samples.columns
    if config.keep < 1:
        prune(learner, config.keep)
    counts, apart = learner.counts, run.apart
    all_samples = counts.edges * learner.samples
    mixture = Mixture.of(learner.circuit) if apart is None else apart.mixture
    flows = None
    if mixture.transitions.numel() > SMALL:
        flows = Flows(all_samples, all_samples[None] if apart is None else apart.flows, counts.leaves.sum(1) * learner.samples)
    weights = pack(mixture, bits=12, basis=learner.basis, mixing=learner.mixing, flows=flows)
    weights |= {"low": columns.low, "digits": columns.digits.astype(np.uint8)}
    if config.clusters > 1:
        weights["centres"] = run.centres
    settings = {k: v for k, v in asdict(config).items() if k not in ("data", "output", "run", "threads", "save_minutes")}
    settings["start"] = Path(config.start).name
    about = dict(run.samples.about)
    table = about.pop("table", None)
    provenance = {"trained_on": {"file": Path(config.data).name, **about}, "settings": settings, "steps": run.done,
                  "minutes": round(run.seconds / 60, 1), "held_out_bits_a_dimension": run.held_out_bits()}  # fmt: skip
    description = {"codec": "circuit", "sample_shape": about["sample_shape"], "block": BLOCK, "licence": "Apache-2.0",
                   "provenance": provenance} | ({"table": table} if table else {})  # fmt: skip
    output = Path(config.output)
    write_preset(output, description, weights)
    return output


if __name__ == "__main__":
    main()
