"""Settings of a training run: defaults, then those of the model, then a YAML file, then the command line. Unknown names are refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentpress.errors import InputError, MissingExtraError

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run. Sizes are in samples, times in minutes of training (validation and checkpoints do not count).

    codec         name of what is trained, with its variant: "walloc-rgb", "compressai/bmshj2018-hyperprior"
    run, data     folder of the run, folder of photographs or of packed shards
    model         settings of the model itself
    steps         or minutes: when the run ends, whichever comes first
    clock         what minutes are of: "wall", or "cpu" (processor time of the first process: a budget that other work on the machine cannot eat)
    batch         items a process and a forward; a step sees batch * accumulate * processes items
    shrink        photographs are shrunk by up to this factor before cropping (1: never), antialiased
    rate          of the optimiser (adamw, soap, muon) after `warmup` steps, constant for the part `constant`, then on a cosine
    clip          largest norm of the gradient (0: no clipping)
    ema           decay of the averaged weights
    precision     "32" or "bf16" (mixed)
    devices       processes on each of `nodes` machines; accelerator "auto", "cpu" or "cuda"
    threads       of each process (0: as torch chooses)
    weights       safetensors file to start from
    validate_every, save_every, log_every   in steps
    keep          how many checkpoints
    validation_images, validation_side      held-out photographs (0: all), cut to that side
    max_skips     a run stops after so many steps in a row without finite gradients
    cache_gb      photographs kept in memory, decoded
    """

    codec: str
    run: str
    data: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    minutes: float | None = None
    clock: str = "wall"
    batch: int = 8
    crop: int = 192
    accumulate: int = 1
    shrink: float = 1.0
    optimiser: str = "adamw"
    rate: float = 1e-3
    auxiliary_rate: float = 1e-3
    warmup: int = 200
    constant: float = 0.45
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "32"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    threads: int = 0
    seed: int = 1
    weights: str | None = None
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 250
    keep: int = 2
    validation_images: int = 8
    validation_side: int = 256
    max_skips: int = 20
    cache_gb: float = 4.0

    def __post_init__(self) -> None:
        for name in ("batch", "crop", "accumulate", "devices", "nodes", "log_every", "validate_every", "save_every", "keep", "max_skips"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1 expected")
        for name in ("steps", "minutes"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"{name}={getattr(self, name)}: a positive number expected")
        if self.precision not in ("32", "bf16"):
            raise InputError(f"precision={self.precision!r}: '32' or 'bf16' expected")
        if self.clock not in ("wall", "cpu"):
            raise InputError(f"clock={self.clock!r}: 'wall' or 'cpu' expected")
        if self.accelerator not in ("auto", "cpu", "cuda"):
            raise InputError(f"accelerator={self.accelerator!r}: 'auto', 'cpu' or 'cuda' expected")
        if not 0 <= self.ema < 1 or not 0 <= self.constant <= 1 or self.shrink < 1:
            raise InputError(f"ema={self.ema}, constant={self.constant}, shrink={self.shrink}: expected 0 to 1, 0 to 1, at least 1")

    def needs_end(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("when does the run end? give --steps or --minutes")


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping. Raises InputError."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "train") from error
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: no readable YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: settings as 'name: value' expected")
    return found


def write_yaml(config: TrainConfig) -> str:
    import yaml

    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    return str(yaml.safe_dump(plain, sort_keys=False))


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """["batch=4", "model.width=96"] -> {"batch": 4, "model": {"width": 96}}. Raises InputError."""
    import yaml

    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise InputError(f"--set {pair}: name=value expected")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {pair}: the value cannot be read") from error
        section, dot, key = name.partition(".")
        if dot:
            found.setdefault(section, {})[key] = value
        else:
            found[name] = value
    return found


def overlay(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win; sections are merged key by key."""
    out: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
            out[name] = {**out[name], **value} if both else value
    return out


def build(cls: type[Any], values: Mapping[str, Any], where: str = "") -> Any:
    """A dataclass from plain values. Raises InputError for unknown names (with near ones) and values of another type."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where.rstrip('.') or 'settings'}={values!r}: names with values expected")
    hints = typing.get_type_hints(cls)
    known = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 3, 0.5)
            raise InputError(f"no setting is called {where}{name}; " + (f"near: {', '.join(near)}" if near else f"known: {', '.join(known)}"))
    try:
        return cls(**{name: coerce(value, known[name], f"{where}{name}") for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"{where.rstrip('.') or 'settings'}: {error}") from error


def coerce(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type asks, so that 1e-4, which YAML reads as a text, is a number. Raises InputError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return coerce(value, next(a for a in arguments if a is not type(None)), name)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(coerce(v, arguments[0], name) for v in value)
    expected = origin or hint
    if expected in (int, float) and not isinstance(value, bool):
        number = _number(value)
        if number is not None and (expected is float or number.is_integer()):
            return expected(number)
    elif expected is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    elif isinstance(expected, type) and isinstance(value, expected) and (expected is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"{name}={value!r}: {getattr(hint, '__name__', hint)} expected")


def _number(value: Any) -> float | None:
    """A finite float, None where there is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def resolve(trainable: type[Any], *layers: Mapping[str, Any]) -> tuple[TrainConfig, Any]:
    """(config, options of the model) from layers of plain values, the model's own defaults below all. `model` in the config is complete."""
    values = overlay(trainable.defaults, *layers)
    options = build(trainable.options, values.get("model") or {}, "model.")
    return build(TrainConfig, values | {"model": dataclasses.asdict(options)}), options


def with_lmbda(trainable: type[Any], lmbda: float | None) -> dict[str, Any]:
    """The layer that --lmbda asks for. Raises InputError for models that have no such setting."""
    if lmbda is None:
        return {}
    if "lmbda" not in {f.name for f in dataclasses.fields(trainable.options)}:
        raise InputError(f"{trainable.id} has no single lmbda; its settings: {', '.join(f.name for f in dataclasses.fields(trainable.options))}")
    return {"model": {"lmbda": lmbda}}
