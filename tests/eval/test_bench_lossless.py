"""Lossless photographs: peers give every sample back, the bench refuses rows that do not, its table follows from its figures."""

import numpy as np
import pytest

from latentpress.errors import InputError
from latentpress.eval.bench_lossless import figures_of, markdown, parse, run
from latentpress.eval.peers import family
from latentpress.eval.peers.lossless import LOSSLESS
from tests.helpers import natural


@pytest.mark.parametrize("name", [f.name for f in LOSSLESS])
def test_peers_give_every_sample_back(name):
    if name.startswith("jxl"):
        pytest.importorskip("imagecodecs")
    peer = family(name).at(100)
    image = natural(40, 56)
    blob = peer.encode(image)
    assert np.array_equal(peer.decode(blob), image) and len(blob) < image.size


def row(codec: str, item: str, size: int, psnr: float | None = None) -> dict[str, object]:
    return {"codec": codec, "item": item, "bytes": size, "shape": [10, 20, 3], "psnr": psnr, "status": "ok", "error": None, "setting": "q=1",
            "encode_s": 0.1, "decode_s": 0.2, "versions": {}}  # fmt: skip


def test_bits_a_sample_are_means_of_images():
    figures = figures_of([row("a", "x", 75), row("a", "y", 150), row("b", "x", 60), row("b", "y", 60)], "command")
    assert figures["codecs"]["a"]["bits_per_sample"] == 1.5 and figures["codecs"]["a"]["encode_mp_per_s"] == 0.002
    assert markdown(figures).index("| b |") < markdown(figures).index("| a |")


def test_a_row_that_lost_something_is_an_error():
    with pytest.raises(InputError, match="a on y: the samples did not come back"):
        figures_of([row("a", "x", 75), row("a", "y", 75, 60.0)], "")


def test_a_bench_of_two_codecs(tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.fromarray(natural(48, 64)).save(tmp_path / "photos" / "one.png")
    options = ["--kodak", str(tmp_path / "photos"), "--peers", "png", "-o", str(tmp_path / "out"), "--figures", str(tmp_path / "f.json")]
    figures = run(parse(options))
    bits = {name: c["bits_per_sample"] for name, c in figures["codecs"].items()}
    assert set(bits) == {"png", "grid-rgb, effort 2"} and bits["grid-rgb, effort 2"] < bits["png"] < 8
