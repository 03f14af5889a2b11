"""How much of a codec's time the entropy coder takes: its calls are timed from outside, whatever codec makes them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_CODERS = ("Encoder", "Decoder", "SequentialEncoder", "SequentialDecoder")


@dataclass
class CoderTime:
    """calls and seconds inside the coder: constriction, the grouping of symbols by table, escapes. Networks that choose tables are not in it."""

    calls: int = 0
    seconds: float = 0.0


@contextmanager
def coder_time() -> Iterator[CoderTime]:
    """Sums the time that this process spends in the public methods of `latentpress.entropy.coder` while the block runs."""
    from latentpress.entropy import coder

    spent, depth = CoderTime(), [0]

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            depth[0] += 1
            start = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                depth[0] -= 1
                if not depth[0]:  # a method that calls another is counted once
                    spent.calls += 1
                    spent.seconds += time.perf_counter() - start

        return call

    kept = [(c, n, m) for c in map(coder.__dict__.__getitem__, _CODERS) for n, m in vars(c).items() if _is_method(n, m)]
    try:
        for owner, name, method in kept:
            setattr(owner, name, timed(method))
        yield spent
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


def _is_method(name: str, member: object) -> bool:
    return callable(member) and (name == "__init__" or not name.startswith("_"))
