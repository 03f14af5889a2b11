import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import latentpress
from latentpress.errors import InputError
from latentpress.eval import bench_image
from latentpress.eval.domains import domain
from latentpress.eval.images import fingerprint, image_paths, kodak_folder, read_rgb
from latentpress.eval.measure import How, Item, Task, measure
from latentpress.eval.own import OwnCodec
from latentpress.eval.rows import KEY, Row
from tests.eval.fakes import Shift, photograph


@pytest.fixture
def kodak(tmp_path):
    folder = tmp_path / "kodak"
    folder.mkdir()
    for i in (1, 2):
        Image.fromarray(photograph(seed=i)).save(folder / f"kodim0{i}.png")
    return folder


@pytest.fixture
def own(monkeypatch):
    """`latentpress.encode` and `decode` replaced by a codec whose quality 0 to 100 becomes 1 to 8 bits; gives the calls made."""
    calls = []

    def encode(image, *, codec, quality, effort):
        calls.append((codec, quality, effort))
        return Shift(bits=1 + round(quality * 7 / 100)).encode(image) + bytes([1 + round(quality * 7 / 100)])

    fakes = {
        "encode": encode,
        "decode": lambda blob: SimpleNamespace(data=Shift(bits=blob[-1]).decode(blob[:-1])),
        "load_codec": lambda name: SimpleNamespace(digest=b"\xab\xcd"),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(latentpress.__dict__, name, fake)
    return calls


def arguments(kodak, tmp_path, *more):
    readme = tmp_path / "README.md"
    if not readme.exists():
        readme.write_text("a\n<!-- figures:image -->\n<!-- /figures:image -->\nz\n", "utf-8")
    places = ["--kodak", kodak, "-o", tmp_path / "rows", "--figures", tmp_path / "image.json", "--readme", readme]
    return bench_image.parse([*map(str, places), *more])


def task(peer: Shift, path: Path) -> Task:
    return Task(peer=peer, digest=peer.digest, item=Item(name=path.stem, digest=fingerprint(path), path=path))


def row_of(peer: Shift, path: Path, metrics: tuple[str, ...] = ("psnr",)) -> Row:
    return measure(task(peer, path), How(domain=domain("image"), metrics=metrics)).row


def test_a_row_states_bytes_rate_and_quality_of_the_decoded_file(kodak):
    path = kodak / "kodim01.png"
    peer = Shift(bits=4)
    row = row_of(peer, path)
    size = len(peer.encode(read_rgb(path)))
    assert row["bytes"] == size and row["bpp"] == pytest.approx(8 * size / (48 * 64)) and row["shape"] == [48, 64, 3]
    assert row["psnr"] == pytest.approx(20 * np.log10(255 / 4.6), abs=0.7)  # steps of 16: a uniform error of 16 / sqrt(12)
    assert (row["codec"], row["digest"], row["setting"], row["item"]) == ("shift", "d0", "bits=4", "kodim01")
    assert tuple(row[k] for k in KEY) == task(peer, path).key


def test_an_image_too_small_for_five_scales_has_no_ms_ssim_and_the_row_says_so(kodak):
    row = row_of(Shift(bits=4), kodak / "kodim01.png", ("psnr", "ms_ssim"))
    assert row["status"] == "ok" and row["ms_ssim"] is None and "48x64" in row["note"] and row["psnr"] > 20


def test_a_lossless_row_has_no_infinity(kodak):
    row = row_of(Shift(bits=8), kodak / "kodim01.png")
    assert row["psnr"] is None and "identical" in row["note"] and "Infinity" not in json.dumps(row)


def test_the_key_tells_other_weights_and_another_image_of_the_same_name(kodak):
    path = kodak / "kodim01.png"
    before = task(Shift(bits=4), path).key
    assert task(Shift(bits=4, digest="d1"), path).key != before
    Image.fromarray(photograph(seed=9)).save(path)
    assert task(Shift(bits=4), path).key != before


def test_the_bench_writes_figures_and_the_table_of_our_codec_beside_peers(kodak, tmp_path, own):
    given = arguments(kodak, tmp_path, "--codecs", "walloc-rgb@q=20,50,80,effort=1", "--peers", "jpeg", "webp")
    figures = bench_image.run(given)
    assert figures == json.loads((tmp_path / "image.json").read_text("utf-8"))
    assert list(figures["curves"]) == ["jpeg", "webp", "walloc-rgb, effort 1"]
    assert figures["images"] == ["kodim01", "kodim02"]
    assert figures["codecs"]["walloc-rgb, effort 1"]["walloc-rgb weights"] == "abcd" and "pillow" in figures["codecs"]["webp"]
    assert "bench_image" in figures["command"] and "effort=1" in figures["command"]
    against = figures["bd_rate"]["walloc-rgb, effort 1"]["webp"]
    assert against["percent"] > 100 and against["overlap_db"][0] < against["overlap_db"][1]  # bytes as they are: a poor codec
    point = figures["curves"]["walloc-rgb, effort 1"][0]
    assert point["bpp"] == pytest.approx(8 * sum(point["bytes_by_image"]) / 2 / (48 * 64))
    assert {c for c, *_ in own} == {"walloc-rgb"}
    assert {q for _, q, e in own if e} == {20, 50, 80} and {e for *_, e in own} - {0} == {1}  # 0: warming up
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert "| walloc-rgb, effort 1 |" in readme and f"{against['percent']:+.1f} (" in readme
    assert readme.startswith("a\n<!-- figures:image -->\n| codec |") and readme.endswith("<!-- /figures:image -->\nz\n")


def test_a_second_run_measures_nothing_and_says_the_same(kodak, tmp_path, own):
    given = arguments(kodak, tmp_path, "--codecs", "walloc-rgb@q=20,80", "--peers", "webp")
    first = bench_image.run(given)
    count = len(own)
    assert bench_image.run(given) == first and len(own) == count >= 4


def test_curves_without_common_quality_are_named_not_hidden(kodak, tmp_path, own):
    given = arguments(kodak, tmp_path, "--codecs", "walloc-rgb@q=0,10", "--peers", "webp")
    figures = bench_image.run(given)
    assert "no overlap" in figures["bd_rate"]["walloc-rgb, effort 2"]["webp"]["refused"]
    assert "no overlap" in (tmp_path / "README.md").read_text("utf-8")


def test_rows_of_other_images_and_settings_in_the_cache_do_not_enter_the_means(kodak, tmp_path, own):
    bench_image.run(arguments(kodak, tmp_path, "--codecs", "walloc-rgb@q=20,50,80", "--peers", "webp"))
    figures = bench_image.run(arguments(kodak, tmp_path, "--codecs", "walloc-rgb@q=20,80", "--peers", "webp", "--items", "kodim02"))
    assert figures["images"] == ["kodim02"]
    assert [p["setting"] for p in figures["curves"]["walloc-rgb, effort 2"]] == ["quality=20", "quality=80"]
    assert all(len(p["bytes_by_image"]) == 1 for points in figures["curves"].values() for p in points)


def test_image_selection(kodak):
    assert [p.stem for p in image_paths(kodak, ["kodim02", "kodim01"])] == ["kodim02", "kodim01"]
    with pytest.raises(InputError, match="kodim99"):
        image_paths(kodak, ["kodim99"])
    with pytest.raises(InputError, match="--kodak"):
        image_paths(kodak / "none")


def test_the_environment_variable_names_the_folder(monkeypatch):
    monkeypatch.setenv("LATENTPRESS_KODAK", "/some/where")
    assert kodak_folder() == Path("/some/where")
    assert bench_image.parse([]).kodak == Path("/some/where")


def test_nothing_to_measure_is_refused(kodak, tmp_path):
    with pytest.raises(InputError, match="--codecs"):
        bench_image.run(arguments(kodak, tmp_path, "--codecs", "--peers"))


def test_figures_are_not_made_of_rows_that_failed(kodak, tmp_path, own):
    (kodak / "kodim02.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"of 4 rows failed: webp on kodim02: .*kodim02\.png: no readable image"):
        bench_image.run(arguments(kodak, tmp_path, "--codecs", "--peers", "webp@q=20,80"))
    assert not (tmp_path / "image.json").exists()


def test_own_codec_refuses_what_is_no_rgb_image(own):
    with pytest.raises(InputError, match="uint8"):
        OwnCodec(codec="walloc-rgb", quality=50).encode(np.zeros((4, 4), np.uint8))
