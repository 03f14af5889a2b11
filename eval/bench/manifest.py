"""bench.json: what a bench folder is about. It describes the last run; rows.jsonl keeps the rows of all runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentpress import __version__
from latentpress.container import write_file
from latentpress.errors import InputError
from latentpress.eval.bench.plan import Point
from latentpress.eval.bench.spec import own_points, peer_points
from latentpress.eval.measure import Item
from latentpress.eval.memory import MEANING
from latentpress.eval.peers import Family, Peer
from latentpress.eval.rows import SCHEMA

NAME = "bench.json"
Manifest = dict[str, Any]


def check_folder(folder: Path, domain: str) -> None:
    """Raises InputError where `folder` is a file or holds a bench of another schema or domain, with the remedy."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, the bench needs a folder: choose another -o")
    path = folder / NAME
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text("utf-8"))
        schema, its_domain = found["schema"], found["domain"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no readable description of a bench; choose another -o, or delete {folder}") from error
    if schema != SCHEMA:
        raise InputError(
            f"{folder}: a bench of schema {schema} (latentpress {found.get('latentpress')}), this version writes {SCHEMA}: "
            "choose another -o, or delete it"
        )
    if its_domain != domain:
        raise InputError(f"{folder}: a bench of {its_domain}, not of {domain}: choose another -o, or delete it")


def describe(points: Sequence[Point], items: Sequence[Item], **about: Any) -> Manifest:
    """The manifest of a run; codecs in the order of `points`, one entry a curve."""
    codecs: dict[str, dict[str, Any]] = {}
    for p in points:
        entry = codecs.setdefault(p.peer.name, {"codec": p.peer.name, "own": p.own, "spec": [], "settings": [], "digests": []})
        for field, value in (("spec", p.spec), ("settings", p.peer.setting), ("digests", p.digest)):
            if value not in entry[field]:
                entry[field].append(value)
    return {
        "schema": SCHEMA,
        "latentpress": __version__,
        **about,
        "codecs": [e | {"spec": " ".join(e["spec"]), "specs": e["spec"]} for e in codecs.values()],
        "items": [{"item": i.name, "item_digest": i.digest, "path": str(i.path)} for i in items],
        "peak_bytes": MEANING,
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be made ({error.strerror or error})") from error
    write_file(folder / NAME, (json.dumps(manifest, indent=1) + "\n").encode(), overwrite=True)


def peers_of(entry: Mapping[str, Any], families: Mapping[str, Family]) -> list[Peer]:
    """The operating points of one entry of a manifest's codecs, ready to run again. Raises what reading its specs raises."""
    found = [p for text in entry["specs"] for p in (own_points(text) if entry["own"] else peer_points(text, families))]
    return [p for p in found if p.name == entry["codec"]]
