import json
import time
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import latentpress
from latentpress.eval import bench_speed
from tests.eval.fakes import Shift, photograph


class Slow:
    """A peer that takes a known time."""

    setting, digest, versions = "s", "d", {"slow": "1"}

    def __init__(self, name: str, encode_s: float, decode_s: float) -> None:
        self.name, self.encode_s, self.decode_s = name, encode_s, decode_s

    def encode(self, image: np.ndarray) -> bytes:
        time.sleep(self.encode_s)
        return Shift(bits=4).encode(image)

    def decode(self, blob: bytes) -> np.ndarray:
        time.sleep(self.decode_s)
        return Shift(bits=4).decode(blob)


def test_quality_search_comes_to_the_rate_that_was_asked_for():
    asked = []

    def rate(quality):
        asked.append(quality)
        return 0.05 * 1.04**quality

    quality = bench_speed.quality_at(rate, 0.5)
    assert rate(quality) == pytest.approx(0.5, rel=0.03) and len(asked) <= 8
    asked.clear()
    assert bench_speed.quality_at(rate, rate(50), tolerance=0.01) == 50 and len(asked) == 2  # at once
    assert bench_speed.quality_at(lambda q: 9.0, 0.5) < 1 and bench_speed.quality_at(lambda q: 0.0, 0.5) > 99


def test_ratio_above_one_means_that_ours_is_faster():
    runs = {"encode": {"us": [4.0, 2.0], "them": [2.0, 1.0]}, "decode": {"us": [1.0, 1.0], "them": [2.0, 2.0]}}
    figures = bench_speed.result(runs, "us", {"threads": 2})
    assert figures["ratio"] == {"them": {"encode": 2.0, "decode": 0.5}}
    assert figures["megapixels_per_second"]["us"] == {"encode": 3.0, "decode": 1.0} and figures["threads"] == 2


def test_speeds_count_every_image_and_repeat_in_megapixels_a_second():
    images = [photograph(seed=i) for i in (1, 2)]
    runs = bench_speed.speeds([Slow("fast", 0.001, 0.001), Slow("slow", 0.03, 0.001)], images, repeats=3)
    assert {len(v) for by in runs.values() for v in by.values()} == {6}
    assert max(runs["encode"]["slow"]) <= 48 * 64 / 1e6 / 0.03
    ratio = bench_speed.result(runs, "fast", {})["ratio"]["slow"]
    assert ratio["encode"] > 3 > ratio["decode"]


def test_scaling_states_the_cost_of_a_megapixel_at_each_size():
    rows = bench_speed.scaling(Slow("s", 0.01, 0.02), [photograph()], [1, 2], repeats=1)
    assert [r["megapixels"] for r in rows] == [round(48 * 64 / 1e6, 2), round(4 * 48 * 64 / 1e6, 2)]
    assert rows[0]["encode_s_per_mp"] >= 0.01 / (48 * 64 / 1e6) and rows[0]["decode_s_per_mp"] >= 0.02 / (48 * 64 / 1e6)
    assert rows[0]["bpp"] > 24 and rows[1]["encode_s_per_mp"] < rows[0]["encode_s_per_mp"]


def test_the_bench_times_our_codec_at_the_rate_and_writes_figures_and_table(tmp_path, monkeypatch):
    folder = tmp_path / "kodak"
    folder.mkdir()
    for i in (1, 2):
        Image.fromarray(photograph(seed=i)).save(folder / f"kodim0{i}.png")
    qualities = []

    def encode(image, *, codec, quality, effort):
        qualities.append(quality)
        return Shift(bits=4).encode(image)[: 4 + 48 * 64 * 3] + bytes(round(quality * 50))

    fakes = {"encode": encode, "decode": lambda b: SimpleNamespace(data=b), "load_codec": lambda n: SimpleNamespace(digest=b"\xab")}
    for name, fake in fakes.items():
        monkeypatch.setitem(latentpress.__dict__, name, fake)
    monkeypatch.setattr(bench_speed, "SIDES", (1, 2))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- figures:speed -->\n<!-- /figures:speed -->\n", "utf-8")
    places = ["--kodak", folder, "--figures", tmp_path / "speed.json", "--readme", readme]
    given = bench_speed.parse([*map(str, places), "--images", "kodim01", "kodim02", "--bpp", "30", "--repeats", "2", "--threads", "1"])
    figures = bench_speed.run(given, [Slow("other", 0.001, 0.001)])
    assert figures == json.loads((tmp_path / "speed.json").read_text("utf-8"))
    assert figures["bpp"] == pytest.approx(30, rel=0.02)
    assert qualities[-1] == pytest.approx((30 * 384 - 4 - 48 * 64 * 3) / 50, abs=3)
    assert figures["threads"] == 1 and len(figures["scaling"]) == 2 and "torch" in figures["versions"]
    assert figures["codecs"]["walloc-rgb, effort 2"]["setting"].startswith("quality=") and figures["codecs"]["other"]["slow"] == "1"
    text = readme.read_text("utf-8")
    assert "| ratio to other |" in text and "1 threads" in text and text.count("\n| --- |") == 2


@pytest.mark.long
@pytest.mark.skipif(find_spec("compressai") is None, reason="make peers-env")
def test_compressai_peer_gives_an_image_of_the_same_shape():
    from latentpress.eval.compressai_peer import FactorizedPeer

    peer, image = FactorizedPeer(), photograph(70, 100)
    decoded = peer.decode(peer.encode(image))
    assert decoded.dtype == np.uint8 and decoded.shape == image.shape
    assert np.array_equal(peer.decode(peer.encode(image)), decoded)
