"""The cost bench: slopes of what is known, rows that agree with themselves, a plot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from latentpress.entropy.circuit_exact import carrier_of, decode_block, encode_block
from latentpress.eval import bench_circuit_cost as bench


def test_slopes_of_powers() -> None:
    assert bench.slope([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert bench.slope([1, 2, 4], [1, 4, 16]) == pytest.approx(2)


def test_what_is_timed_is_whole_coding() -> None:
    carrier, nodes = carrier_of(bench.random_circuit(20, 4)), bench.values_of(20, 30)
    np.testing.assert_array_equal(decode_block(carrier, 30, encode_block(carrier, nodes))[0], nodes)
    assert 0.7 < (nodes == 0).mean() < 0.9


def test_a_run_writes_rows_slopes_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    argv = ["--variables", "8", "16", "32", "--states", "4", "32", "--samples", "20", "--repeats", "1"]
    readme = tmp_path / "README.md"
    readme.write_text("<!-- figures:circuit-cost -->\n<!-- /figures:circuit-cost -->\n")
    bench.run(bench.parse([*argv, "--readme", str(readme), "--figures", str(tmp_path / "c.json"), "--plot", str(tmp_path / "c.svg")]))
    figures = json.loads((tmp_path / "c.json").read_text())
    assert [(r["variables"], r["states"]) for r in figures["rows"]] == [(8, 32), (16, 32), (32, 32), (16, 4)]
    for row in figures["rows"]:
        assert row["encode_ns_an_edge"] == pytest.approx(1000 * row["encode_us_a_sample"] / (row["variables"] - 1), rel=0.01)
    assert set(figures["slope_over_states"]) == {"encode", "decode"}
    assert "<!-- figures:circuit-cost -->\n| variables, states |" in readme.read_text() and "| 16, 4 |" in readme.read_text()
    assert "slope" in (tmp_path / "c.svg").read_text() or (tmp_path / "c.svg").stat().st_size > 5000
