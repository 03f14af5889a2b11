"""What the bench knows of a kind of signal: files, their reader, the unit of rate, metrics and peers. Nothing else of the bench names a domain.

    domain("image").read(path), .rate(size, shape), .metrics, .peers
    register_domain(Domain(name="audio", suffixes=frozenset({".wav"}), ...))     from a program, before the bench runs

Packages add to a domain by entry points, whose names begin with the domain's:

    group latentpress.domains   audio = "package.module:AUDIO"               a Domain
    group latentpress.peers     image.bpg = "package.module:BPG"             a Family (eval/peers/protocol.py), or a class that makes one
    group latentpress.metrics   image.vmaf = "package.module:VMAF"           a Metric (eval/metrics/base.py)

Worker processes get a Domain by pickle: its functions are functions of a module that workers can import.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from latentpress.errors import InputError, UnsupportedError
from latentpress.eval.images import SUFFIXES, read_rgb
from latentpress.eval.metrics import IMAGE, Metric, bits_per_pixel
from latentpress.eval.peers import FAMILIES, Family


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One kind of signal.

    suffixes   of the files that a folder is searched for, lower case, with the dot
    read       path -> array that peers and metrics take; raises InputError that names the file
    rate_name  the row's field for rate ("bpp", "kbps")
    rate       (bytes of the file, shape of the array) -> rate
    metrics    by name
    peers      by name
    """

    name: str
    suffixes: frozenset[str]
    read: Callable[[Path], Any]
    rate_name: str
    rate: Callable[[int, tuple[int, ...]], float]
    metrics: Mapping[str, Metric]
    peers: Mapping[str, Family]


_registered: dict[str, Domain] = {
    "image": Domain(
        name="image",
        suffixes=SUFFIXES,
        read=read_rgb,
        rate_name="bpp",
        rate=bits_per_pixel,
        metrics={m.name: m for m in IMAGE},
        peers=FAMILIES,
    )
}


def register_domain(domain: Domain) -> None:
    """Make `domain` known by its name. Raises UnsupportedError where another one has that name."""
    if _registered.setdefault(domain.name, domain) != domain:
        raise UnsupportedError(f"two domains are called {domain.name!r}")


def domain(name: str) -> Domain:
    """The domain of that name with all that packages add. Raises InputError for unknown names, UnsupportedError for clashing additions."""
    known = _registered | {p.name: _loaded(p) for p in entry_points(group="latentpress.domains")}
    if name not in known:
        raise InputError(f"no domain is called {name!r}; {near(name, known)}")
    found = known[name]
    peers = _merged(found.peers, _added("latentpress.peers", name), f"peers of {name}")
    metrics = _merged(found.metrics, _added("latentpress.metrics", name), f"metrics of {name}")
    return dataclasses.replace(found, peers=peers, metrics=metrics)


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest of `known`, or all of them."""
    names = list(known)
    found = difflib.get_close_matches(name, names, 1)
    return f"did you mean {found[0]!r}?" if found else f"known: {', '.join(names)}"


def _added(group: str, domain_name: str) -> dict[str, Any]:
    points = {p.name.partition(".")[2]: p for p in entry_points(group=group) if p.name.partition(".")[0] == domain_name}
    return {name: _loaded(point) for name, point in points.items()}


def _loaded(point: EntryPoint) -> Any:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(f"{point.name!r} cannot be loaded from {point.value}: {error}") from error
    return found() if isinstance(found, type) else found


def _merged(ours: Mapping[str, Any], more: Mapping[str, Any], what: str) -> dict[str, Any]:
    twice = sorted(set(ours) & set(more))
    if twice:
        raise UnsupportedError(f"two {what} are called {twice[0]!r}")
    return {**ours, **more}
