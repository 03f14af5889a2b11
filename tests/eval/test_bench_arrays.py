"""The bench of lossless arrays: every peer is lossless, sizes are those of files, a liar is found."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from latentpress.errors import LatentpressError
from latentpress.eval import bench_arrays
from latentpress.eval.array_peers import PEERS

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 9, 7)).astype(np.uint8) // 16 * 16


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_lossless(name: str) -> None:
    pytest.importorskip("imagecodecs")
    peer = PEERS[name]
    files = peer.encode(IMAGES, 2)
    assert len(files) == (1 if peer.whole else 3)
    np.testing.assert_array_equal(peer.decode(files, IMAGES.shape), IMAGES)


def test_a_row_counts_the_bytes_of_files_and_of_the_model() -> None:
    row = bench_arrays.measured("raw", IMAGES, lambda: [IMAGES.tobytes()], lambda f: np.frombuffer(f[0], np.uint8).reshape(IMAGES.shape), 189)
    assert row["bpd"] == 8 and row["bytes"] == 189 and row["bpd_with_model"] == 16
    with pytest.raises(LatentpressError, match="did not give"):
        bench_arrays.measured("liar", IMAGES, lambda: [b""], lambda f: IMAGES + 1, 0)


def test_a_run_writes_figures_and_the_table(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    folder = tmp_path / "mnist"
    folder.mkdir()
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in IMAGES.shape)
    (folder / "t10k-images-idx3-ubyte.xz").write_bytes(lzma.compress(head + IMAGES.tobytes()))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- figures:lossless-arrays -->\n<!-- /figures:lossless-arrays -->\n")
    argv = ["--data", str(tmp_path), "--sets", "mnist", "--peers", "png", "xz", "--threads", "1"]
    argv += ["--figures", str(tmp_path / "f.json"), "--readme", str(readme)]
    patched = {"mnist": ("mnist/t10k-images-idx3-ubyte.xz", "no such preset")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_arrays, "SETS", patched)
        bench_arrays.run(bench_arrays.parse(argv))
    figures = json.loads((tmp_path / "f.json").read_text())
    assert [r["codec"] for r in figures["sets"]["mnist"]] == ["png", "xz"] and "bench_arrays" in figures["command"]
    assert readme.read_text().count("| mnist, ") == 2
