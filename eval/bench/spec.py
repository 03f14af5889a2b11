"""How codecs and their operating points are asked for.

    webp                              a codec at its own points
    webp@q=10:90:10                   qualities 10, 20, ..., 90: low:high:step, both ends included where the step meets them
    walloc-rgb@q=5,20,60,effort=9     several values of one key; keys: q (or quality) and, for our codecs, effort
    ./my-preset@q=50                  a preset folder
    hyper=./low hyper=./high          two presets under one name: one curve
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from latentpress.errors import InputError
from latentpress.eval.domains import near
from latentpress.eval.own import OwnCodec, has_one_rate
from latentpress.eval.peers import Family, Peer

QUALITIES = (5.0, 20.0, 35.0, 50.0, 65.0, 80.0, 95.0)  # of our codecs, unless told otherwise
EFFORT = 2.0
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
    label = spec.label
    if has_one_rate(spec.name):
        if spec.options:
            raise InputError(f"{text!r}: {spec.name} has one rate, which no quality or effort changes: leave what follows the @ out")
        return [OwnCodec(codec=spec.name, quality=None, label=label)]
    efforts = [_whole(text, e) for e in _distinct(spec.options.get("effort", (EFFORT,)))]
    qualities = _distinct(spec.options.get("q", QUALITIES))
    for name, values, high in (("effort", efforts, 9), ("q", qualities, 100)):
        wrong: list[Any] = [v for v in values if not 0 <= v <= high]
        if wrong:
            raise InputError(f"{text!r}: {name}={wrong[0]:g}: expected 0 to {high}")
    return [OwnCodec(codec=spec.name, quality=q, effort=e, label=label) for e, q in product(efforts, qualities)]


def _distinct(values: Sequence[float]) -> list[float]:
    return list(dict.fromkeys(values))


def _whole(text: str, value: float) -> int:
    if value != int(value):
        raise InputError(f"{text!r}: {value:g}: a whole number expected")
    return int(value)
