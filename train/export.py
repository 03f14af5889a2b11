"""A run to a preset folder that encodes at once: frozen tables and networks, provenance, figures in real bytes, a model card."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from latentpress import __version__
from latentpress.codecs.presets import DESCRIPTION, read_description
from latentpress.codecs.registry import load_trainable
from latentpress.codecs.trainable import Trainable
from latentpress.errors import InputError
from latentpress.train.checkpoint import BEST, WEIGHTS, fit, read_weights
from latentpress.train.config import build
from latentpress.train.data import centre, divide, open_source, spread
from latentpress.train.validate import measure

CARD = "README.md"
NOUNS = {"image": ("photographs", "photo.png", "photo.png"), "field": ("triples of fields", "in.nc", "back.nc")}  # what there is, a file in, one out
HELD_OUT = 24  # of what is held out, coded for the figures


def export(
    run: Path, target: Path, *, model: str | None = None, data: str | None = None, best: bool = False, images: int = 300, side: int = 512,
    effort: int = 2, licence: str = "not stated", overwrite: bool = False, trainable: type[Trainable] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Freeze the averaged weights of a run (a folder, or a safetensors file) into the preset folder `target`; returns its description.

    model   name of what was trained, for weights files that do not say it; data: folder of the training data, likewise
    best    the weights of the best validation, not the newest
    images  training samples that tables are fitted to; held-out ones are coded, cut to `side`, at `effort`, for the figures
    Raises InputError.
    """
    if (target / DESCRIPTION).exists() and not overwrite:
        raise InputError(f"{target}: holds a preset already; choose another folder or give --overwrite")
    weights = run / (BEST if best else WEIGHTS) if run.is_dir() else run
    if not weights.exists():
        raise InputError(f"{weights}: no such file; a folder of `latentpress train` or a safetensors file expected")
    state, facts = read_weights(weights)
    name = model or facts.get("codec")
    if not isinstance(name, str):
        raise InputError(f"{weights}: does not say what it was trained as; give --model, as in --model walloc-rgb")
    cls, variant = (trainable, name.partition("/")[2]) if trainable else load_trainable(name)
    trained = cls.from_options(build(cls.options, facts.get("model") or {}, "model."), variant).eval()
    fit(trained, state, str(weights), name)
    config = facts.get("config") if isinstance(facts.get("config"), dict) else {}
    source = open_source(data or (config or {}).get("data") or "", cls.domain)
    training, held_out = divide(source)
    samples = spread(source, training, images)
    run_facts = {k: v for k, v in facts.items() if k not in ("config", "validation")} | {
        "config": {k: v for k, v in (config or {}).items() if k not in ("data", "run", "weights", "model", "resume", "init")}
    }
    provenance = {
        "licence": licence, "data": f"{len(source.sizes)} {NOUNS[cls.domain][0]}, every 20th held out", "tables": {"images": len(samples)},
        "run": run_facts, "latentpress": __version__, "torch": torch.__version__,
    }  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        made = Path(folder) / target.resolve().name
        trained.freeze(made, samples, provenance)
        description = read_description(made)
        coded = [centre(i, side) for i in spread(source, held_out, HELD_OUT)]
        points = measure(made, coded, cls.targets, effort)
        description.setdefault("provenance", {})["validation"] = {"effort": effort, "samples": len(coded), "side": side, "points": points}
        (made / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        (made / CARD).write_text(card(target.resolve().name, description, cls.domain))
        target.mkdir(exist_ok=True)
        for file in made.iterdir():
            shutil.move(file, target / file.name)
    return description


def import_checkpoint(file: Path, target: Path, *, model: str | None, overwrite: bool = False) -> None:
    """A checkpoint of another project's training as a preset folder, where the model knows how to read it. Raises InputError."""
    if (target / DESCRIPTION).exists() and not overwrite:
        raise InputError(f"{target}: holds a preset already; choose another folder or give --overwrite")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if model is None:
        raise InputError(f"{file}: a checkpoint does not say what it is of; give --model, as in --model compressai/mbt2018-mean")
    cls, variant = load_trainable(model)
    reader: Any = getattr(cls, "import_checkpoint", None)
    if reader is None:
        raise InputError(f"{file}: {model} reads no checkpoints of other projects; export the run's folder")
    reader(file, variant, target)


def card(name: str, description: dict[str, Any], domain: str = "image") -> str:
    """The model card, Markdown."""
    provenance = description["provenance"]
    run, validation = provenance["run"], provenance["validation"]
    rows = "\n".join(f"| {p['quality']:g} | {p['bpp']:.4f} | {p['psnr']:.2f} |" for p in validation["points"])
    config = run.get("config") or {}
    facts = {"codec": description["codec"], "steps": run.get("step", "not recorded"), "training minutes": _minutes(run),
             "optimiser": config.get("optimiser", "not recorded"), "batch": config.get("batch", "not recorded"), "data": provenance["data"],
             "licence": provenance["licence"], "made with": f"latentpress {provenance['latentpress']}, torch {provenance['torch']}"}  # fmt: skip
    noun, source, result = NOUNS[domain]
    table = "\n".join(f"| {k} | {v} |" for k, v in facts.items())
    return f"""# {name}

A preset of latentpress. By the path of this folder:

    latentpress encode --codec ./{name} {source} -o coded.lpz
    latentpress decode --codec ./{name} coded.lpz -o {result}

| | |
| --- | --- |
{table}

Held-out {noun} ({validation["samples"]}, the middle {validation["side"]} samples of each, effort {validation["effort"]}), whole files:

| quality | bits a {'pixel' if domain == 'image' else 'point'} | PSNR, dB |
| ---: | ---: | ---: |
{rows}

Not tested on anything but {noun}. Everything else that is known of the run is in `{DESCRIPTION}`.
"""


def _minutes(run: dict[str, Any]) -> str:
    seconds = run.get("seconds")
    return f"{seconds / 60:.0f}" if isinstance(seconds, int | float) else "not recorded"
