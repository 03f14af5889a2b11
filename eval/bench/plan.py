"""What a bench consists of: items of a folder, operating points of codecs, and one task for each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentpress.errors import InputError
from latentpress.eval.bench.spec import own_points, peer_points
from latentpress.eval.domains import Domain, near
from latentpress.eval.images import fingerprint
from latentpress.eval.measure import Item, Task
from latentpress.eval.peers import Peer


@dataclass(frozen=True, kw_only=True)
class Point:
    """One operating point. spec: how it was asked for; own: through our own codecs; digest: of the peer, on this machine."""

    peer: Peer
    digest: str
    spec: str
    own: bool


def find_items(data: Path, domain: Domain, wanted: Sequence[str] = ()) -> list[Item]:
    """The files of a folder (or one file), sorted by path. A name is the stem, or the path in the folder where stems collide.

    wanted: names of items, or one number for the first so many; none: all
    Raises InputError where there is no such folder, no such item or no file of the domain.
    """
    if not data.exists():
        raise InputError(f"{data}: no such file or folder")
    paths = [data] if data.is_file() else sorted(p for p in data.rglob("*") if p.suffix.lower() in domain.suffixes and p.is_file())
    if not paths:
        raise InputError(f"{data}: the folder holds no {', '.join(sorted(domain.suffixes))} file")
    stems = Counter(p.stem for p in paths)
    named = {p.stem if stems[p.stem] == 1 else p.relative_to(data).as_posix(): p for p in paths}
    return [Item(name=n, digest=fingerprint(named[n]), path=named[n].absolute()) for n in _chosen(data, list(named), wanted)]


def _chosen(data: Path, names: list[str], wanted: Sequence[str]) -> list[str]:
    if not wanted:
        return names
    if len(wanted) == 1 and wanted[0].isdigit() and wanted[0] not in names:
        count = int(wanted[0])
        if not 1 <= count <= len(names):
            raise InputError(f"--items {count}: {data} has {len(names)}")
        return names[:count]
    for name in wanted:
        if name not in names:
            raise InputError(f"{data} has no item {name!r}; {near(name, names[:20])}")
    return list(dict.fromkeys(wanted))


def find_points(codecs: Sequence[str], peers: Sequence[str], domain: Domain) -> list[Point]:
    """Operating points in the order asked for, peers first. Raises InputError where there are none or two are the same point."""
    asked = [(text, False, peer) for text in peers for peer in peer_points(text, domain.peers)]
    asked += [(text, True, peer) for text in codecs for peer in own_points(text)]
    if not asked:
        raise InputError("nothing to measure: name codecs by --codecs or peers by --peers")
    points = [Point(peer=p, digest=p.digest, spec=text, own=own) for text, own, p in asked]
    seen: dict[tuple[str, str], Point] = {}
    for point in points:
        first = seen.setdefault((point.peer.name, point.peer.setting), point)
        if first is not point:
            raise InputError(
                f"{first.spec!r} and {point.spec!r} both give {point.peer.name} at {point.peer.setting}: "
                f"leave one out, or name it, as in other={point.spec}"
            )
    return points


def find_tasks(points: Sequence[Point], items: Sequence[Item]) -> list[Task]:
    """All pairs, item by item: codecs take turns, so that a slow hour of the machine slows all of them, and a file is read once."""
    return [Task(peer=p.peer, digest=p.digest, item=i) for i in items for p in points]
