"""Codecs by name: entry points give classes, preset folders give weights.

    group latentpress.codecs    id = "package.module:Class"      Class.from_preset(directory, name) -> Codec, or Class() when it has no weights
    group latentpress.trainables  id = "package.module:Class"    a codecs.trainable.Trainable: what `latentpress train` trains
    group latentpress.presets   name = "package.module"          a package whose folder `name` holds preset.json (built-in presets need none)

A name with a slash, "id/rest", is for the class of that id: `Class.from_name(rest)` may fetch weights when a person asks for them,
`Class.from_cache(rest)` only takes what was fetched before: it is what a file's header can reach.

Nothing is imported before it is asked for. Registered once; duplicates are refused; unknown names get the nearest one.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from latentpress.codecs.base import Codec
from latentpress.codecs.presets import DESCRIPTION, extracted, read_description
from latentpress.errors import MissingPresetError, UnsupportedError

DEFAULTS = {"image": "walloc-rgb"}
LOSSLESS = {"image": "grid-rgb"}


def codec_entry_points() -> dict[str, EntryPoint]:
    """id -> entry point. Raises UnsupportedError when two packages claim one id for different classes."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group="latentpress.codecs"):
        if found.setdefault(point.name, point).value != point.value:
            raise UnsupportedError(f"two packages register the codec {point.name!r}: {found[point.name].value} and {point.value}")
    return found


def preset_directories() -> dict[str, Path]:
    """Preset name -> folder, of all installed packages. Raises UnsupportedError when two packages bring one name."""
    roots = [_built_in_root()]
    for point in entry_points(group="latentpress.presets"):
        try:
            spec = importlib.util.find_spec(point.value)
        except ImportError as error:  # of a package above it
            raise UnsupportedError(f"the presets {point.name!r} cannot be found in {point.value}: {error}") from error
        roots += [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    found: dict[str, Path] = {}
    for directory in (d for root in roots for d in sorted(root.glob("*")) if (d / DESCRIPTION).is_file()):
        if not os.path.samefile(found.setdefault(directory.name, directory), directory):
            raise UnsupportedError(f"two packages bring the preset {directory.name!r}: {found[directory.name]} and {directory}")
    return found


def _built_in_root() -> Path:
    spec = importlib.util.find_spec("latentpress.presets")
    assert spec is not None and spec.origin is not None, "the package's own folder of presets"
    return Path(spec.origin).parent


def names() -> list[str]:
    """Everything `load_codec` knows without a path: presets, and codecs that need none."""
    presets, points = preset_directories(), codec_entry_points()
    with_presets = {read_description(d)["codec"] for d in presets.values()}
    return sorted({*presets, *(i for i in points if i not in with_presets and not _needs_preset(points[i]))})


def _needs_preset(point: EntryPoint) -> bool:
    """Or what follows a slash."""
    try:
        return hasattr(point.load(), "from_preset") or hasattr(point.load(), "from_name")
    except (ImportError, AttributeError):  # listed all the same: whoever loads it is told why it cannot be
        return False


def load_codec(name: str | Path) -> Codec:
    """A ready codec by preset name, codec id, "id/name" or path of a preset folder. Raises MissingPresetError for unknown names."""
    path = Path(name)
    if os.path.isfile(path / DESCRIPTION):  # unlike Path.is_file, False for a name that is too long
        return _load_directory(path.resolve(), path.resolve().name)
    codec = _by_slash(str(name), "from_name")
    return load_installed(str(name)) if codec is None else codec


@lru_cache(maxsize=8)
def load_installed(name: str) -> Codec:
    """A codec by name alone: what a file may ask for. A path in a file's header is no way to load a folder, nor to fetch weights."""
    directory = preset_directories().get(name)
    if directory is not None:
        return _load_directory(directory, name)
    codec = _by_slash(name, "from_cache")
    if codec is not None:
        return codec
    points = codec_entry_points()
    if name in points:
        return _make(points[name], None, name)
    near = difflib.get_close_matches(name, names(), 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names())}"
    shown = name if len(name) <= 80 else f"{name[:80]}..."
    raise MissingPresetError(f"no codec or preset is called {shown!r}{hint}")


def _by_slash(name: str, method: str) -> Codec | None:
    """"id/rest" by a class method of the codec `id`; None where there is no such codec, or it takes no names."""
    codec_id, slash, rest = name.partition("/")
    point = codec_entry_points().get(codec_id) if slash else None
    make = getattr(_load_class(point), method, None) if point else None
    codec: Codec | None = make(rest) if make else None
    return codec


def _load_class(point: EntryPoint, called: str = "") -> Any:
    """called: what the message calls it."""
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(f"{called or f'the codec {point.name!r}'} cannot be loaded from {point.value}: {error}") from error


def load_embedded(blob: bytes, name: str) -> Codec:
    """The codec whose weights travel inside a file. Raises FormatError, UnsupportedError for codecs that do not travel."""
    preset = extracted(blob, name)
    points = codec_entry_points()
    cls: Any = _load_class(points[preset.description["codec"]]) if preset.description["codec"] in points else None
    if not hasattr(cls, "from_parts"):
        raise UnsupportedError(f"the file brings weights of the codec {preset.description['codec']!r}, which does not travel inside files")
    return cls.from_parts(preset)  # type: ignore[no-any-return]


def domain_of(name: str | Path) -> str:
    """What a codec codes, without loading its weights. Raises MissingPresetError, UnsupportedError."""
    points, codec_id = codec_entry_points(), str(name)
    if codec_id.partition("/")[0] in points:
        codec_id = codec_id.partition("/")[0]
    elif codec_id not in points:
        codec_id = read_description(directory_of(name))["codec"]
    if codec_id not in points:
        raise MissingPresetError(f"{name}: needs the codec {codec_id!r}, which no installed package provides")
    return str(_load_class(points[codec_id]).domain)


def directory_of(name: str | Path) -> Path:
    """The folder of a preset, by name or path. Raises MissingPresetError."""
    path = Path(name)
    if os.path.isfile(path / DESCRIPTION):
        return path.resolve()
    if str(name) in preset_directories():
        return preset_directories()[str(name)]
    raise MissingPresetError(f"{name}: no preset folder of this name")


def _load_directory(directory: Path, name: str) -> Codec:
    codec_id = read_description(directory)["codec"]
    points = codec_entry_points()
    if codec_id not in points:
        raise MissingPresetError(f"{directory}: needs the codec {codec_id!r}, which no installed package provides")
    return _make(points[codec_id], directory, name)


def _make(point: EntryPoint, directory: Path | None, name: str) -> Codec:
    cls = _load_class(point)
    if directory is None:
        if hasattr(cls, "from_preset"):
            raise MissingPresetError(f"the codec {name!r} needs a preset: give the path of its folder")
        if hasattr(cls, "from_name"):
            raise MissingPresetError(f"the codec {name!r} is one for each name: give {name}/NAME")
        codec = cls()
        codec.name = name
    else:
        codec = cls.from_preset(directory, name)
    if not isinstance(codec, Codec):
        raise UnsupportedError(f"{point.value} is no latentpress codec")
    return codec


def load_trainable(name: str) -> tuple[Any, str]:
    """(class, variant): the Trainable that `name` asks for; what follows a slash is its variant. Raises MissingPresetError for unknown names."""
    trainable, _, variant = name.partition("/")
    points = {p.name: p for p in entry_points(group="latentpress.trainables")}
    if trainable not in points:
        near = difflib.get_close_matches(trainable, points, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(points))}"
        raise MissingPresetError(f"nothing to train is called {name!r}; {hint}")
    return _load_class(points[trainable], repr(name)), variant
