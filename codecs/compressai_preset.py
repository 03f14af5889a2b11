"""Preset folders of CompressAI models: one model, or a ladder of models of one architecture trained for rising rates.

    preset.json          {"codec": "compressai", "architecture": "mbt2018-mean",
                          "rungs": [{"arguments": {"N": 128, "M": 192}, "lambda": 0.013, "quality": null, "provenance": {...}}, ...]}
    weights.safetensors  "R.model.KEY": the state dict of rung R; "R.z_tables.*", "R.y_tables.*": its coding tables (entropy/tables.py)

Tables are CompressAI's own integer CDFs, made when the model is frozen and widened from 16 to 24 bits, so that symbols cost what they cost there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentpress.codecs.compressai_env import import_compressai
from latentpress.codecs.compressai_zoo import architecture_of, arguments_of, family_of, model_class
from latentpress.codecs.presets import Preset, write_preset
from latentpress.entropy.tables import PRECISION, Tables
from latentpress.errors import FormatError, InputError, UnsupportedError

CODEC = "compressai"
_MADE_BY_UPDATE = ("_offset", "_quantized_cdf", "_cdf_length")  # CompressAI's tables: stored as ours instead


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One model to freeze.

    model      a CompressAI CompressionModel of a supported class
    lmbda      weight of 255^2 MSE against bits a pixel it was trained with, if known
    quality    CompressAI's quality 1 to 8, if it is a model of its zoo
    """

    model: Any
    lmbda: float | None = None
    quality: int | None = None
    arguments: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def freeze_model(
    model: Any, directory: Path, *, lmbda: float | None = None, quality: int | None = None, arguments: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None, update: bool = False,
) -> None:  # fmt: skip
    """Write one model as a preset folder.

    arguments  of its class's constructor, where `N` and `M` are not enough
    update     make tables anew from the entropy bottleneck's parameters (after training); else only where the model has none
    The model stays as it is. Raises UnsupportedError for classes that cannot be coded, InputError for weights that are not finite.
    """
    rung = Rung(model=model, lmbda=lmbda, quality=quality, arguments=arguments, provenance=provenance or {})
    freeze_ladder([rung], directory, update=update)


def freeze_ladder(rungs: Sequence[Rung], directory: Path, *, update: bool = False) -> None:
    """Write models of one architecture, in the order of rising rate, as one preset folder. Raises as `freeze_model`."""
    names = {architecture_of(rung.model) for rung in rungs}
    if len(names) != 1:
        raise InputError(f"a ladder has rungs of one architecture, not {', '.join(sorted(names)) or 'none'}")
    architecture = names.pop()
    cls = model_class(architecture)
    weights: dict[str, NDArray[Any]] = {}
    descriptions = []
    for i, rung in enumerate(rungs):
        weights |= {f"{i}.{k}": v for k, v in frozen_weights(rung.model, update=update).items()}
        arguments = dict(rung.arguments) if rung.arguments is not None else arguments_of(rung.model, cls)
        descriptions.append({"arguments": arguments, "lambda": rung.lmbda, "quality": rung.quality, "provenance": dict(rung.provenance)})
    description = {"codec": CODEC, "architecture": architecture, "rungs": descriptions}
    load_rung(Preset(name=str(directory), description=description, weights=weights, digest=b""), 0)
    write_preset(directory, description, weights)


def frozen_weights(model: Any, *, update: bool = False) -> dict[str, NDArray[Any]]:
    """State dict and tables of one model under the names above, without the number of the rung."""
    family = family_of(type(model))
    model = copy.deepcopy(model).cpu().float().eval()
    model.update(force=update)
    state = {k: v.detach().numpy() for k, v in model.state_dict().items() if not k.endswith(_MADE_BY_UPDATE)}
    for key, value in state.items():
        if not np.isfinite(value).all():
            raise InputError(f"the weights {key} are not finite: take a checkpoint from before training diverged")
    tables = {"y_tables": widened(model.entropy_bottleneck)}
    if family != "FactorizedPrior":
        tables = {"z_tables": tables["y_tables"], "y_tables": widened(model.gaussian_conditional)}
    weights: dict[str, NDArray[Any]] = {f"model.{k}": v for k, v in state.items()}
    for name, table in tables.items():
        weights |= table.state(name)
    return weights


def widened(entropy_model: Any) -> Tables:
    """The tables of an EntropyModel after `update`: the same probabilities in 24 bits, the last entry being the escape, as there."""
    shift = PRECISION - int(entropy_model.entropy_coder_precision)
    if shift < 0:
        raise UnsupportedError(f"tables of {entropy_model.entropy_coder_precision} bits: at most {PRECISION} can be coded")
    cdf, length = entropy_model.quantized_cdf.numpy(), entropy_model.cdf_length.numpy().ravel()
    counts = [np.diff(row[:n].astype(np.int64)) << shift for row, n in zip(cdf, length, strict=True)]
    return Tables.from_counts(counts, entropy_model.offset.numpy().ravel().tolist())


def rungs_of(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list in preset.json. Raises ValueError when it is none."""
    rungs = description.get("rungs")
    if not isinstance(rungs, list) or not rungs or not all(isinstance(r, dict) and isinstance(r.get("arguments"), dict) for r in rungs):
        raise ValueError("a list 'rungs' of objects with 'arguments' expected in preset.json")
    return rungs


def load_rung(preset: Preset, rung: int) -> tuple[Any, dict[str, Tables]]:
    """The model of one rung, in float32 and ready to code, and its tables {"y_tables": ...} or {"z_tables": ..., "y_tables": ...}.

    Raises FormatError when weights and description do not fit; UnsupportedError for unknown architectures; MissingExtraError.
    """
    import_compressai()
    try:
        description = rungs_of(preset.description)[rung]
        cls = model_class(str(preset.description["architecture"]))
        prefix = f"{rung}."
        weights = {k.removeprefix(prefix): v for k, v in preset.weights.items() if k.startswith(prefix)}
        model = cls(**description["arguments"])
        _fill(model, {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
        names = ("y_tables",) if family_of(cls) == "FactorizedPrior" else ("z_tables", "y_tables")
        tables = {name: Tables.from_state(weights, name) for name in names}
        _check_rows(model, tables)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"{preset.name}: rung {rung} of the preset does not fit {preset.description.get('architecture')} ({error})") from error
    return model.eval().requires_grad_(False), tables


def _fill(model: Any, state: Mapping[str, NDArray[Any]]) -> None:
    """Load all but CompressAI's own tables, which stay empty."""
    if hasattr(model, "gaussian_conditional"):
        model.gaussian_conditional.scale_table = torch.from_numpy(np.array(state["gaussian_conditional.scale_table"], np.float32))
    made = {k: v for k, v in model.state_dict().items() if k.endswith(_MADE_BY_UPDATE)}
    # the method of nn.Module itself: CompressAI's takes old checkpoints, whose tables must be there
    torch.nn.Module.load_state_dict(model, {k: torch.from_numpy(np.array(v)) for k, v in state.items()} | made)


def _check_rows(model: Any, tables: Mapping[str, Tables]) -> None:
    bottleneck = tables.get("z_tables", tables["y_tables"])
    if bottleneck.rows != model.entropy_bottleneck.channels:
        raise ValueError(f"{bottleneck.rows} rows of tables for {model.entropy_bottleneck.channels} channels")
    if "z_tables" in tables and tables["y_tables"].rows != len(model.gaussian_conditional.scale_table):
        raise ValueError(f"{tables['y_tables'].rows} rows of tables for {len(model.gaussian_conditional.scale_table)} scales")
