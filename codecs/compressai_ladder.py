"""Several presets of one CompressAI model, trained at several lambdas, as one: a whole rate-distortion curve under one name.

    python -P -m latentpress.codecs.compressai_ladder OUT RUNG1 RUNG2 ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.compressai_preset import CODEC, rungs_of
from latentpress.codecs.presets import DESCRIPTION, read_preset, write_preset
from latentpress.errors import FormatError, InputError, LatentpressError


def combine(directory: Path, presets: Sequence[Path]) -> None:
    """Write the ladder of all rungs of `presets` (each may be a ladder itself) to `directory`.

    Sorted by lambda where every rung has one, else by CompressAI's quality where every rung has that, else in the order given: rates must rise.
    Raises InputError for presets of other codecs or of different architectures and for a folder that is taken, FormatError for damaged ones.
    """
    if (directory / DESCRIPTION).exists():
        raise InputError(f"{directory}: holds a preset already; choose another folder")
    rungs: list[tuple[Mapping[str, Any], dict[str, NDArray[Any]]]] = []
    architectures: dict[str, Path] = {}
    for path in presets:
        preset = read_preset(path, path.name)
        if preset.description["codec"] != CODEC:
            raise InputError(f"{path}: a preset of {preset.description['codec']}, not of {CODEC}")
        architectures.setdefault(str(preset.description.get("architecture")), path)
        try:
            found = rungs_of(preset.description)
        except ValueError as error:
            raise FormatError(f"{path}: {error}") from error
        for i, rung in enumerate(found):
            prefix = f"{i}."
            rungs.append((rung, {k.removeprefix(prefix): v for k, v in preset.weights.items() if k.startswith(prefix)}))
    if len(architectures) != 1:
        raise InputError("a ladder has rungs of one architecture, not " + " and ".join(f"{name} ({path})" for name, path in architectures.items()))
    for key in ("lambda", "quality"):
        if all(rung.get(key) is not None for rung, _ in rungs):
            rungs.sort(key=lambda r: r[0][key])
            break
    weights = {f"{i}.{k}": np.asarray(v) for i, (_, part) in enumerate(rungs) for k, v in part.items()}
    description = {"codec": CODEC, "architecture": next(iter(architectures)), "rungs": [rung for rung, _ in rungs]}
    write_preset(directory, description, weights)


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description="several presets of one CompressAI model as one")
    parser.add_argument("out", type=Path)
    parser.add_argument("rungs", type=Path, nargs="+")
    given = parser.parse_args()
    try:
        combine(given.out, given.rungs)
    except LatentpressError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
