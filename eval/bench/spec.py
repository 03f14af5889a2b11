"""How codecs and their operating points are asked for.

    webp                              a codec at its own points
    webp@q=10:90:10                   qualities 10, 20, ..., 90: low:high:step, both ends included where the step meets them
    walloc-rgb@q=5,20,60,effort=9     several values of one key; keys: q (or quality) and, for our codecs, effort
    ./my-preset@q=50                  a preset folder
    hyper=./low hyper=./high          two presets under one name: one curve
    compressai/mbt2018-mean@q=1:6:1   models of CompressAI's zoo with its own weights, one a quality
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from latentpress.errors import InputError
from latentpress.eval.domains import near
from latentpress.eval.own import FINE, OwnCodec, is_folder, levels
from latentpress.eval.peers import Family, Peer

QUALITIES = (5.0, 20.0, 35.0, 50.0, 65.0, 80.0, 95.0)  # of our codecs, unless told otherwise
EFFORT = 2.0
ZOO, ZOO_QUALITIES = "compressai/", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
MOST_VALUES = 1000
_ALIASES = {"quality": "q"}
_FORM = re.compile(r"(?:(?P<label>[^=@/\\]+)=)?(?P<name>.+?)(?:@(?P<options>[^@/\\]*))?")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """text: as it was asked for; label: name of the curve, "" for the codec's own; options: key -> values, in the order given."""

    text: str
    name: str
    label: str
    options: Mapping[str, tuple[float, ...]]


def parse_spec(text: str, keys: Sequence[str]) -> Spec:
    """Raises InputError for what does not follow the grammar and for keys that are not in `keys`, with the nearest one."""
    match = _FORM.fullmatch(text)
    if not match:
        raise InputError(f"{text!r}: NAME or NAME@q=VALUES expected, as in webp@q=10:90:10")
    options: dict[str, tuple[float, ...]] = {}
    if match["options"] is not None:
        for key, values in _pairs(text, match["options"]):
            name = _ALIASES.get(key, key)
            if name not in keys:
                raise InputError(f"{text!r}: no key is called {key!r}; {near(key, [*keys, *(a for a, k in _ALIASES.items() if k in keys)])}")
            if name in options:
                raise InputError(f"{text!r}: {key!r} is given twice")
            options[name] = values
    return Spec(text=text, name=match["name"], label=match["label"] or "", options=options)


def _pairs(text: str, options: str) -> list[tuple[str, tuple[float, ...]]]:
    """"a=1,2,b=3:5:1" -> [("a", (1, 2)), ("b", (3, 4, 5))]: a part without a key is one more value of the key before."""
    found: list[tuple[str, tuple[float, ...]]] = []
    for part in options.split(","):
        key, equals, value = part.partition("=")
        if equals:
            found.append((key.strip(), _values(text, value)))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + _values(text, part))
        else:
            raise InputError(f"{text!r}: KEY=VALUES expected behind the @, as in q=10:90:10")
    return found


def _values(text: str, given: str) -> tuple[float, ...]:
    try:
        numbers = [float(n) for n in given.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and abs(numbers[0]) < 1e9:
        return (numbers[0],)
    if len(numbers) != 3 or not all(abs(n) < 1e9 for n in numbers):
        raise InputError(f"{text!r}: {given!r} is neither a number nor low:high:step, as in 10:90:10")
    low, high, step = numbers
    if step <= 0 or high < low or (high - low) / step > MOST_VALUES:
        raise InputError(f"{text!r}: {given!r}: low:high:step with low at most high and a step above 0 expected, {MOST_VALUES} values at most")
    return tuple(round(low + i * step, 9) for i in range(int((high - low) / step + 1e-9) + 1))


def peer_points(text: str, families: Mapping[str, Family]) -> list[Peer]:
    """The operating points of somebody else's codec. Raises InputError for unknown names, with the nearest one, and for qualities off its scale."""
    spec = parse_spec(text, ("q",))
    if spec.label:
        raise InputError(f"{text!r}: a peer keeps its name; {spec.label!r} would be another")
    if spec.name not in families:
        raise InputError(f"no peer is called {spec.name!r}; {near(spec.name, families)}")
    family = families[spec.name]
    return [family.at(_whole(text, q)) for q in _distinct(spec.options.get("q", family.points))]


def own_points(text: str) -> list[Peer]:
    """The operating points of one of our codecs. Raises MissingPresetError for unknown names, InputError for values off the scale."""
    spec = parse_spec(text, ("q", "effort"))
    for key, high in (("effort", 9), ("q", 100)):
        wrong = [v for v in spec.options.get(key, ()) if not 0 <= v <= high]
        if wrong:
            raise InputError(f"{text!r}: {key}={wrong[0]:g}: expected 0 to {high}")
    if spec.name.startswith(ZOO) and not is_folder(spec.name):
        return list(_zoo_points(spec))
    count = levels(spec.name)
    if count < FINE:
        return list(_few_points(spec, count))
    efforts = [_whole(text, e) for e in _distinct(spec.options.get("effort", (EFFORT,)))]
    return list(_fine_points(spec, efforts, _distinct(spec.options.get("q", QUALITIES))))


def _fine_points(spec: Spec, efforts: Sequence[int], qualities: Sequence[float]) -> Iterator[OwnCodec]:
    for effort, quality in product(efforts, qualities):
        setting = f"preset={spec.name},effort={effort},quality={quality:g}" if spec.label else ""
        yield OwnCodec(codec=spec.name, quality=quality, effort=effort, curve=spec.label, point=setting)


def _few_points(spec: Spec, count: int) -> Iterator[OwnCodec]:
    """Of a codec with one rate or a ladder of a few: one point a step."""
    if "effort" in spec.options or (count == 1 and spec.options):
        raise InputError(f"{spec.text!r}: {spec.name} has {'one rate' if count == 1 else 'no efforts'}: leave {' and '.join(spec.options)} out")
    steps = [None] if count == 1 else _distinct(spec.options.get("q", [round(100 * i / (count - 1), 3) for i in range(count)]))
    for quality in steps:
        setting = "" if not spec.label else f"preset={spec.name}" + ("" if quality is None else f",quality={quality:g}")
        yield OwnCodec(codec=spec.name, quality=quality, effort=None, curve=spec.label, point=setting)


def _zoo_points(spec: Spec) -> Iterator[OwnCodec]:
    """CompressAI's own weights: a model a quality, whose name says which."""
    if "effort" in spec.options:
        raise InputError(f"{spec.text!r}: {spec.name} has no efforts: leave effort out")
    for quality in _distinct(spec.options.get("q", ZOO_QUALITIES)):
        number = _whole(spec.text, quality)
        yield OwnCodec(codec=f"{spec.name}@q={number}", quality=None, effort=None, curve=spec.label or spec.name, point=f"quality={number}")


def _distinct(values: Sequence[float]) -> list[float]:
    return list(dict.fromkeys(values))


def _whole(text: str, value: float) -> int:
    if value != int(value):
        raise InputError(f"{text!r}: {value:g}: a whole number expected")
    return int(value)
