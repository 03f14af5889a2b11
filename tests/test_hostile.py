"""Broken files decoded completely, codec included: a correct picture or our error, in little time and memory.

Mutants with their checksums made right again reach the codec; those may decode to a picture of the declared shape, never to anything else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.helpers import python
from tests.hostile_decode import campaign

MEBIBYTES = 256  # on top of a process that has decoded once


def judge(outcomes: dict[str, int], count: int) -> None:
    faults = {word: n for word, n in outcomes.items() if not word.islower()}
    assert not faults, faults
    assert sum(outcomes.values()) >= count
    # a campaign in which nothing reaches the codec, or nothing is refused, tests nothing
    # (most resealed ones still break a rule of the header or the stream)
    assert outcomes["refused"] > count // 3 and outcomes.get("decoded", 0) >= count // 1000, outcomes


def far_campaign(count: int, seed: int) -> dict[str, int]:
    code = "import sys, runpy; sys.path.append(sys.argv.pop(1)); runpy.run_module('tests.hostile_decode', run_name='__main__')"
    done = python(code, str(Path(__file__).parent.parent), str(count), str(seed), str(MEBIBYTES), timeout=3600)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


def test_some_mutants_in_this_process() -> None:
    judge(campaign(300, seed=1), 300)


@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory by /proc and RLIMIT_AS")
def test_thousands_of_mutants_in_little_memory() -> None:
    judge(far_campaign(5000, seed=2), 5000)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory by /proc and RLIMIT_AS")
@pytest.mark.parametrize("seed", range(3, 3 + int(os.environ.get("LATENTPRESS_HOSTILE", "10"))))
def test_a_hundred_thousand_mutants_in_little_memory(seed: int) -> None:
    judge(far_campaign(10_000, seed), 10_000)
