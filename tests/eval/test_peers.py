import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from latentpress.errors import InputError, MissingExtraError
from latentpress.eval.metrics import psnr
from latentpress.eval.peers import DEFAULT, FAMILIES, Fit, at_most_bytes, family
from tests.eval.fakes import ShiftFamily, photograph

PILLOW = ["jpeg", "jpeg-444", "webp", "avif", "jpeg2000"]


@pytest.mark.parametrize("name", [*PILLOW, "jxl"])
def test_a_peer_gives_the_picture_back_and_more_quality_costs_more_bytes(name):
    if name == "jxl":
        pytest.importorskip("imagecodecs")
    peers, image = family(name), photograph()
    low, high = peers.at(peers.points[1]), peers.at(peers.points[-1])
    small, large = low.encode(image), high.encode(image)
    assert isinstance(small, bytes) and len(small) < len(large)
    decoded = high.decode(large)
    assert decoded.dtype == np.uint8 and decoded.shape == image.shape
    assert psnr(image, low.decode(small)) + 1 < psnr(image, decoded) and psnr(image, decoded) > 30


@pytest.mark.parametrize("name, subsampling", [("jpeg", 2), ("jpeg-444", 0)])
def test_jpeg_peers_write_the_subsampling_they_name(name, subsampling):
    from PIL import JpegImagePlugin

    peer = family(name).at(75)
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(peer.encode(photograph())))) == subsampling


@pytest.mark.parametrize("name", PILLOW)
def test_setting_and_digest_say_what_the_bytes_depend_on(name):
    peers = family(name)
    assert peers.at(peers.points[0]).setting != peers.at(peers.points[1]).setting
    assert "pillow" in peers.at(peers.points[0]).digest and "None" not in peers.at(peers.points[0]).digest


def test_settings_keep_what_the_figures_promise():
    assert family("webp").at(50).setting == "quality=50,method=6"
    assert family("avif").at(50).setting == "quality=50,speed=6,subsampling=4:2:0,max_threads=2"
    assert family("jpeg").at(50).setting == "quality=50,subsampling=4:2:0,optimize=True"


def test_peers_travel_to_worker_processes():
    for name in FAMILIES:
        peer = family(name).at(family(name).points[0])
        assert pickle.loads(pickle.dumps(peer)) == peer


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_arrays_of_another_kind_are_refused(image):
    with pytest.raises(InputError, match="uint8"):
        family("webp").at(50).encode(image)


def test_unknown_names_and_qualities_are_refused():
    with pytest.raises(InputError, match=r"'wepb'.*webp"):
        family("wepb")
    for peers in FAMILIES.values():
        for quality in (peers.low - 1, peers.high + 1):
            with pytest.raises(InputError, match="expected"):
                peers.at(quality)


def test_default_peers_need_no_extra():
    assert set(DEFAULT) <= set(PILLOW)


def test_a_missing_imagecodecs_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingExtraError, match=r"latentpress\[peers\]"):
        family("jxl").at(50).encode(photograph())


@pytest.mark.parametrize("bits", range(1, 9))
def test_at_most_bytes_finds_the_highest_quality_that_fits(bits):
    image, peers = photograph(), ShiftFamily()
    exact = len(peers.at(bits).encode(image))
    for budget, expected in [(exact, bits), (exact + 9, bits), (exact - 1, bits - 1)]:
        if expected >= peers.low:
            fit = at_most_bytes(peers, image, budget)
            assert fit == Fit(peer=peers.at(expected), quality=expected, blob=peers.at(expected).encode(image))


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_at_most_bytes_keeps_the_budget_with_real_codecs(name):
    image = photograph(96, 96)
    fit = at_most_bytes(family(name), image, 1500)
    assert len(fit.blob) <= 1500 < len(family(name).at(min(family(name).high, fit.quality + 10)).encode(image))


def test_at_most_bytes_refuses_a_budget_that_nothing_fits():
    with pytest.raises(InputError, match="lowest quality, 20 allowed"):
        at_most_bytes(family("webp"), photograph(), 20)
