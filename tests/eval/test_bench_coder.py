import importlib.util
import json
import sys

import numpy as np
import pytest

from latentpress.codecs import compressai_env
from latentpress.errors import FormatError, LatentpressError, MissingExtraError
from latentpress.eval import bench_coder
from latentpress.eval.coder_peers import CompressAICoder, OwnCoder

has_compressai = pytest.mark.skipif(importlib.util.find_spec("compressai") is None, reason="make peers-env")


class Plain:
    """Stores symbols as they are; `lose` spoils the last one."""

    def __init__(self, name: str, width: int = 4, lose: bool = False) -> None:
        self.name, self.width, self.lose = name, width, lose

    def prepare(self, values):
        return values

    def encode(self, symbols, rows):
        return symbols.astype(f"<i{self.width}").tobytes()

    def decode(self, blob, rows):
        return np.frombuffer(blob, f"<i{self.width}").astype(np.int32)

    def restore(self, decoded):
        return decoded + (np.arange(len(decoded)) == len(decoded) - 1) if self.lose else decoded


def test_drawn_symbols_look_like_a_hyperprior():
    symbols, rows = bench_coder.draw(20_000)
    assert symbols.dtype == rows.dtype == np.int32 and rows.min() >= 0 and rows.max() == bench_coder.TABLES - 1
    assert 8 < rows.mean() < 16 and (symbols == 0).mean() > 0.5
    again, _ = bench_coder.draw(20_000)
    assert np.array_equal(again, symbols)
    scale = np.array(bench_coder.scales())[rows]
    assert np.std(symbols[scale > 2] / scale[scale > 2]) == pytest.approx(1, abs=0.05)


def test_ideal_bytes_of_a_certain_and_of_an_even_symbol():
    low, high = np.zeros(8000, np.int32), np.full(8000, 63, np.int32)
    assert bench_coder.ideal_bytes(low, low) < 1  # N(0, .11**2) is zero but for one in 180,000
    expected = 8000 / 8 * np.log2(256 * np.sqrt(2 * np.pi))
    assert bench_coder.ideal_bytes(low, high) == pytest.approx(expected, rel=1e-4)
    far = np.full(10, 2, np.int32)
    assert np.isfinite(bench_coder.ideal_bytes(far, np.zeros(10, np.int32)))


@has_compressai
def test_both_coders_give_the_symbols_back_close_to_the_ideal_length():
    symbols, rows = bench_coder.draw(30_000)
    symbols[:3] = [5000, -5000, 1]  # far outside of their tables
    coders = [OwnCoder(bench_coder.scales()), CompressAICoder(bench_coder.scales())]
    blobs = bench_coder.blobs_of(coders, symbols, rows)
    ideal = bench_coder.ideal_bytes(symbols[3:], rows[3:])
    for blob in blobs.values():
        assert ideal < len(blob) < 1.01 * ideal + 40


def test_our_decoder_is_timed_with_its_check_of_the_end():
    symbols, rows = bench_coder.draw(1000)
    coder = OwnCoder(bench_coder.scales())
    with pytest.raises(FormatError):
        coder.decode(coder.encode(symbols, rows), rows[:-50])


def test_a_coder_that_loses_a_symbol_is_found_out():
    symbols, rows = bench_coder.draw(100)
    with pytest.raises(LatentpressError, match="theirs did not give"):
        bench_coder.blobs_of([Plain("ours"), Plain("theirs", lose=True)], symbols, rows)


def test_figures_have_seconds_bytes_and_ratios(tmp_path):
    given = bench_coder.parse(["--count", "500", "--repeats", "2", "--figures", str(tmp_path / "coder.json")])
    figures = bench_coder.run(given, [Plain("latentpress"), Plain("compressai", width=8)])
    assert figures == json.loads((tmp_path / "coder.json").read_text("utf-8"))
    assert figures["bytes"] == {"latentpress": 2000, "compressai": 4000} and figures["ratio"]["bytes"] == 0.5
    assert set(figures["seconds"]["compressai"]) == set(bench_coder.KINDS) and figures["symbols"] == 500
    assert set(figures["ratio"]) == {"bytes", *bench_coder.KINDS}
    assert figures["excess_percent"]["latentpress"] == pytest.approx(100 * (2000 / figures["ideal_bytes"] - 1), rel=0.02)


def test_ratio_below_one_means_that_ours_is_faster():
    seconds = {k: {"latentpress": [1.0, 10.0], "compressai": [4.0, 40.0]} for k in bench_coder.KINDS}
    figures = bench_coder.result({"latentpress": b"1234", "compressai": b"12345"}, seconds, 4.0, {})
    assert figures["ratio"] == {"bytes": 0.8, **dict.fromkeys(bench_coder.KINDS, 0.25)}
    assert figures["excess_percent"] == {"latentpress": 0, "compressai": 25}


def test_without_compressai_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(compressai_env.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "compressai.ans", raising=False)
    with pytest.raises(MissingExtraError, match="compressai"):
        compressai_env.load_extension.__wrapped__("ans")
