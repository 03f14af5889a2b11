"""The API on one image: what travels beside the samples, lossless transparency, latents, and one line an error."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

import latentpress
from latentpress import api, container
from latentpress.codecs.base import Signal
from latentpress.errors import FormatError, InputError, LatentpressError, LimitError, MissingPresetError
from tests.helpers import deep, natural, psnr

ORIENTATION, ARTIST = 0x0112, 0x013B
DIMS = ("y", "x", "band")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>\xc3\xa9</a></x:xmpmeta>'


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION], tags[ARTIST] = 6, "nobody"
    return tags


def saved(image: Image.Image, suffix: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def png(**options: Any) -> bytes:
    texts = PngInfo()
    texts.add_text("Title", "plain")
    texts.add_itxt("Comment", "日本")
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return saved(Image.fromarray(natural(24, 40)), ".png", icc_profile=ICC, exif=exif(), pnginfo=texts, dpi=(300, 150), **options)


def reopened(blob: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(blob))
    image.load()
    return image


def through(source: Any, **options: Any) -> Signal:
    return latentpress.decode(latentpress.encode(source, **options))


# ---- what travels


def test_everything_beside_the_samples_of_a_png_survives() -> None:
    signal = through(png())
    assert signal.data.shape == (24, 40, 3)  # not turned: orientation is a tag
    back = reopened(api.signal_bytes(signal, ".png"))
    assert back.info["icc_profile"] == ICC
    assert back.getexif()[ORIENTATION] == 6 and back.getexif()[ARTIST] == "nobody"
    assert back.text["XML:com.adobe.xmp"] == XMP.decode()
    assert (back.text["Title"], back.text["Comment"]) == ("plain", "日本")
    assert back.info["dpi"] == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_profile_exif_and_xmp_go_from_format_to_format(suffix: str) -> None:
    source = saved(Image.fromarray(natural(24, 40)), suffix, icc_profile=ICC, exif=exif(), xmp=XMP)
    signal = through(source)
    assert signal.meta["icc"] == ICC
    for target in (suffix, ".png"):
        back = reopened(api.signal_bytes(signal, target))
        assert back.size == (40, 24)
        assert back.info["icc_profile"] == ICC
        assert back.getexif()[ORIENTATION] == 6 and back.getexif()[ARTIST] == "nobody"
        assert back.info["xmp"] == XMP and signal.meta["xmp"] == XMP


def test_tiff_is_turned_upright_on_reading_and_its_storage_tags_stay_behind() -> None:
    image = natural(24, 40)
    source = saved(Image.fromarray(image), ".tif", icc_profile=ICC, exif=exif(), dpi=(300, 150))
    signal = api.as_signal(source)
    assert np.array_equal(signal.data, np.rot90(image, -1))
    for suffix in (".png", ".tif"):
        blob = api.signal_bytes(signal, suffix)
        assert np.array_equal(api.as_signal(blob).data, signal.data)
        back = reopened(blob)
        assert back.getexif()[ARTIST] == "nobody" and ORIENTATION not in back.getexif()
        assert back.info["icc_profile"] == ICC and back.info["dpi"] == pytest.approx((300, 150), abs=0.1)
    assert "dpi" not in api.as_signal(saved(Image.fromarray(image), ".tif")).meta


def test_exif_that_speaks_of_other_sizes_does_not_scramble_a_tiff(photo: np.ndarray) -> None:
    tags = exif()
    del tags[ORIENTATION]
    tags[256], tags[257], tags[277] = 40, 24, 1  # as cameras write them, before somebody cuts the picture
    signal = through(saved(Image.fromarray(photo), ".jpg", exif=tags))
    again = api.as_signal(api.signal_bytes(signal, ".tif"))
    assert np.array_equal(again.data, signal.data)
    assert reopened(api.signal_bytes(signal, ".tif")).getexif()[ARTIST] == "nobody"


def test_metadata_changes_no_sample_and_is_counted_in_the_budget() -> None:
    plain = api.as_signal(png()).data
    assert np.array_equal(through(png()).data, through(plain).data)
    assert len(latentpress.encode(png(), max_bytes=1500)) <= 1500
    with pytest.raises(LatentpressError, match="cannot hold"):
        latentpress.encode(png(), max_bytes=500)  # less than the profile


@pytest.mark.parametrize("bands", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_lossless(bands: int, dtype: type) -> None:
    image = natural(40, 24)
    image = deep(image) if dtype is np.uint16 else image
    alpha = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, image.shape[:2]).astype(dtype)
    data = np.dstack([image[:, :, : bands - 1], alpha])
    back = through(data)
    assert back.data.dtype == dtype and back.data.shape == data.shape
    assert np.array_equal(back.data[:, :, -1], alpha)
    assert psnr(data[:, :, :-1], back.data[:, :, :-1]) > 22
    again = api.as_signal(api.signal_bytes(back, ".png"))
    assert np.array_equal(again.data, back.data)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".npy"])
def test_16_bit_gray_is_written_and_read(suffix: str, tmp_path: Path) -> None:
    data = deep(natural(16, 24)[:, :, 0])[:, :, None]
    blob = api.signal_bytes(Signal(data=data, dims=DIMS), suffix)
    again = np.load(io.BytesIO(blob)) if suffix == ".npy" else api.as_signal(blob).data
    assert np.array_equal(again, data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_usual_mode_is_read(mode: str) -> None:
    image = Image.fromarray(deep(natural(16, 24)[:, :, 0])) if mode == "I;16" else Image.fromarray(natural(16, 24)).convert(mode)
    signal = through(saved(image, ".png"))
    assert signal.data.shape == (16, 24, {"LA": 2, "P": 3, "RGB": 3, "RGBA": 4}.get(mode, 1))
    assert signal.data.dtype == (np.uint16 if mode == "I;16" else np.uint8)


# ---- latents and files


@pytest.mark.parametrize("size", [(64, 64), (40, 24)])
def test_latents_come_without_synthesis(size: tuple[int, int]) -> None:
    blob = latentpress.encode(natural(*size))
    latents = latentpress.open_latents(blob)
    assert latents.ndim == 4 and latents.shape[0] == 1 and latents.dtype.is_floating_point
    assert tuple(latents.shape[2:]) == tuple(-(-n // 64) * 4 for n in size)  # stride 16, padded to whole latents of the hyper prior
    classic = latentpress.open_latents(latentpress.encode(natural(*size), codec="walloc-rgb-16x"))
    assert classic.shape[0] == 1 and tuple(classic.shape[2:]) == tuple(-(-n // 8) for n in size)


def test_files_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    size = latentpress.encode_file(tmp_path / "a.png", tmp_path / "a.lpz", quality=70)
    assert (tmp_path / "a.lpz").stat().st_size == size
    signal = latentpress.decode_file(tmp_path / "a.lpz", tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "b.npy"), signal.data)
    with pytest.raises(InputError, match=r"b\.npy: exists already"):
        latentpress.decode_file(tmp_path / "a.lpz", tmp_path / "b.npy")
    assert latentpress.encode(tmp_path / "a.png", quality=70) == (tmp_path / "a.lpz").read_bytes()


# ---- errors


def one_line(call: Any, *arguments: Any, match: str = "", **options: Any) -> LatentpressError:
    with pytest.raises(LatentpressError, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return caught.value


@pytest.mark.parametrize(
    "options",
    [{"quality": 101}, {"quality": -1}, {"quality": float("nan")}, {"bpp": 0}, {"bpp": float("inf")}, {"bpp": float("nan")}, {"psnr": 0},
     {"psnr": float("inf")}, {"max_bytes": 0}, {"max_bytes": 3}, {"quality": 1, "bpp": 1}, {"psnr": 30, "max_bytes": 900}, {"effort": 10},
     {"codec": "walloc-rbg"}, {"codec": "x" * 260}],
    ids=lambda options: str(options)[:40],
)  # fmt: skip
def test_bad_settings_are_one_line(options: dict[str, Any], photo: np.ndarray) -> None:
    one_line(latentpress.encode, photo, **options)


@pytest.mark.parametrize(
    "source",
    [b"", b"no image\n", np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 5), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8),
     np.zeros((4, 0), np.uint8), Signal(data=np.zeros((4, 4), np.uint8), dims=("time", "channel")), "absent/file.png", "x" * 260],
    ids=lambda s: repr(s)[:20],
)  # fmt: skip
def test_bad_sources_are_one_line(source: Any) -> None:
    one_line(latentpress.encode, source)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif", ".bmp", ".gif", "16-bit .png"])
def test_damaged_images_are_one_line(suffix: str) -> None:
    if suffix == "16-bit .png":
        whole = api.signal_bytes(Signal(data=deep(natural(16, 16)), dims=DIMS), ".png")
    else:
        whole = saved(Image.fromarray(natural(16, 16)), suffix)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        blob = bytearray(whole[: int(rng.integers(1, len(whole)))] if rng.integers(4) == 0 else whole)
        for at in rng.integers(0, min(len(blob), 400), 3):
            blob[at] = rng.integers(256)
        try:
            api.as_signal(bytes(blob))
        except LatentpressError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused


@pytest.mark.parametrize("blob", [b"", b"LPZ", b"garbage\nhello", png()], ids=["empty", "magic", "text", "png"])
def test_what_is_no_lpz_file_is_one_line(blob: bytes) -> None:
    for call in (latentpress.decode, latentpress.open_latents):
        assert isinstance(one_line(call, blob), FormatError)


def test_missing_files_presets_and_limits_are_said(photo: np.ndarray, tmp_path: Path) -> None:
    assert str(tmp_path / "a.lpz") in str(one_line(latentpress.decode, tmp_path / "a.lpz"))
    blob = latentpress.encode(photo)
    assert isinstance(one_line(latentpress.decode, blob, limits=container.Limits(pixels=100)), LimitError)
    assert isinstance(one_line(latentpress.encode, photo, codec="walloc-rbg", match="walloc-rgb"), MissingPresetError)


@pytest.mark.parametrize(
    "plain", [b"[]", b"{", b"\xff", b'{"text": []}', b'{"text": 3}', b'{"dpi": null}', b'{"dpi": ["a", "b"]}', b'{"dpi": [1]}', b"[" * 100_000]
)
def test_plain_metadata_that_lies_is_one_line(plain: bytes, photo: np.ndarray) -> None:
    encoded = container.read(latentpress.encode(photo)).encoded
    assert isinstance(one_line(latentpress.decode, container.write(encoded, metadata={"text": plain})), FormatError)


def test_alpha_that_lies_is_one_line(photo: np.ndarray) -> None:
    encoded = container.read(latentpress.encode(photo)).encoded
    other = saved(Image.new("L", (8, 8)), ".png")
    colour = saved(Image.new("RGB", (64, 64)), ".png")
    huge = bytearray(other)
    huge[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    for alpha in (b"", other[:60], other, colour, bytes(huge)):
        assert isinstance(one_line(latentpress.decode, container.write(encoded, metadata={"alpha": alpha})), FormatError)


@pytest.mark.parametrize("suffix, meta", [(".jpg", {"exif": bytes(70_000)}), (".tif", {"exif": b"x" * 50}), (".avif", {"exif": b"x" * 50})])
def test_metadata_that_a_format_cannot_hold_is_one_line(suffix: str, meta: dict[str, bytes], photo: np.ndarray) -> None:
    one_line(api.signal_bytes, Signal(data=photo, dims=DIMS, meta=meta), suffix, match=suffix)


@pytest.mark.parametrize("suffix", ["", ".xyz", ".jp2"])
def test_formats_that_are_not_written_are_named(suffix: str, photo: np.ndarray) -> None:
    one_line(api.signal_bytes, Signal(data=photo, dims=DIMS), suffix, match=r"\.png")


def test_texts_whose_keyword_png_cannot_hold_are_warned_about(photo: np.ndarray) -> None:
    signal = Signal(data=photo, dims=DIMS, meta={"text": {"日本": "x", "Title": "y"}})
    assert json.loads(container.read(latentpress.encode(signal)).metadata["text"])["text"]["日本"] == "x"
    with pytest.warns(UserWarning, match="Latin-1"):
        blob = api.signal_bytes(signal, ".png")
    assert reopened(blob).text == {"Title": "y"}
