"""Pillow opens and saves .lpz as it does every other format."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

import latentpress.plugins.pillow  # noqa: F401
from latentpress import api, container
from latentpress.codecs.base import Chunk, Encoded, Signal
from latentpress.errors import ChecksumError, LatentpressError

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def ramp(mode: str, width: int = 70, height: int = 50) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    planes = [2 * x, 3 * y, x + y, 255 - x]
    if mode == "I;16":
        return Image.fromarray((planes[0] * 257).astype(np.uint16))
    bands = {"L": [0], "LA": [0, 3], "RGB": [0, 1, 2], "RGBA": [0, 1, 2, 3]}[mode]
    data = np.stack([planes[k] for k in bands], axis=2).astype(np.uint8)
    return Image.fromarray(data[:, :, 0] if len(bands) == 1 else data)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "LPZ", **options)
    return buffer.getvalue()


def opened(blob: bytes) -> Image.Image:
    return Image.open(io.BytesIO(blob))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_modes_come_back_and_samples_nearly(mode):
    image = ramp(mode)
    back = opened(saved(image, quality=95))
    assert (back.format, back.mode, back.size) == ("LPZ", mode, image.size)
    peak = 65535 if mode == "I;16" else 255
    a, b = (np.asarray(i).astype(float) / peak for i in (image, back))
    assert np.abs(a - b).mean() < 0.03
    if mode in ("LA", "RGBA"):
        assert np.array_equal(np.asarray(back)[:, :, -1], np.asarray(image)[:, :, -1])  # opacity is lossless


def test_samples_are_those_of_latentpress_decode():
    blob = saved(ramp("RGB"))
    assert np.array_equal(np.asarray(opened(blob)), api.decode(blob).data)


def test_nothing_is_decoded_before_load(monkeypatch):
    blob = saved(ramp("RGBA"), icc_profile=ICC)
    calls: list[int] = []
    monkeypatch.setattr(api, "decode", lambda *a, **k: calls.append(1) or Signal(data=np.zeros((50, 70, 4), np.uint8), dims=("y", "x", "band")))
    image = opened(blob)
    assert image.size == (70, 50) and image.mode == "RGBA" and image.info["icc_profile"] == ICC and not calls
    image.load()
    image.load()
    assert calls == [1]


def test_only_the_front_of_a_file_is_read():
    blob = container.write(
        Encoded(codec="walloc-rgb", digest=bytes(8), shape=(50, 70, 3), dtype="uint8", dims=("y", "x", "band"), parameters={"level": 1},
                chunks=(Chunk(payload=bytes(10**6)),))
    )  # fmt: skip
    source = io.BytesIO(blob)
    read: list[int] = []
    source.read = lambda size=-1, r=source.read: read.append(size) or r(size)  # type: ignore[method-assign]
    assert Image.open(source).size == (70, 50)
    assert 0 <= sum(read) < 20000


def test_metadata_appears_in_info():
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "maker"
    image = opened(saved(ramp("RGB"), exif=tags, icc_profile=ICC, xmp=XMP, dpi=(300, 300)))
    assert image.getexif()[0x0112] == 6 and image.getexif()[0x010F] == "maker"
    assert image.info["icc_profile"] == ICC and image.info["xmp"] == XMP and image.info["dpi"] == (300, 300)


def test_metadata_of_the_image_is_kept_and_can_be_left_out():
    tags = Image.Exif()
    tags[0x010F] = "maker"
    image = opened(saved(ramp("RGB"), exif=tags.tobytes(), icc_profile=ICC))
    again = opened(saved(image))
    assert again.getexif()[0x010F] == "maker" and again.info["icc_profile"] == ICC
    bare = opened(saved(image, exif=None, icc_profile=None))
    assert not len(bare.getexif()) and "icc_profile" not in bare.info
    png = io.BytesIO()
    image.save(png, "PNG")
    assert Image.open(png).info["icc_profile"] == ICC


def test_texts_survive():
    image = ramp("L")
    image.text = {"Title": "one"}
    again = opened(saved(image))
    assert again.text == {"Title": "one"}
    assert opened(saved(again)).text == {"Title": "one"}


def test_paths_extension_and_mime(tmp_path):
    path = tmp_path / "photo.lpz"
    ramp("RGB").save(path)
    with Image.open(path) as image:
        assert image.get_format_mimetype() == "image/x-lpz"
        image.load()
    path.unlink()
    assert image.getpixel((0, 0))


def test_save_options_reach_the_encoder():
    image = ramp("RGB", 200, 150)
    small, large = (len(saved(image, quality=q)) for q in (0, 100))
    assert small < large
    limit = (small + large) // 2
    assert len(saved(image, max_bytes=limit)) <= limit
    assert 8 * len(saved(image, bpp=8 * limit / 30000)) <= 8 * limit
    assert saved(image, quality=30, codec="walloc-rgb", effort=0) == api.encode(np.asarray(image), quality=30, effort=0)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_other_modes_are_converted(mode):
    assert opened(saved(ramp("RGB").convert(mode))).mode == {"1": "L", "P": "RGB"}[mode]


def test_16_bit_colour_opens_in_8_bits_with_a_warning():
    data = np.stack([np.asarray(ramp("I;16"))] * 3, axis=2)
    image = opened(api.encode(data, quality=90))
    assert image.mode == "RGB"
    with pytest.warns(UserWarning, match="reduced to 8 bits"):
        image.load()
    assert np.abs(np.asarray(image).astype(int) - data // 257).max() < 40


def test_wrong_arguments_are_value_errors():
    for options in ({"quality": 101}, {"effort": 12}, {"quality": 3, "max_bytes": 900}, {"bpp": -1.0}):
        with pytest.raises(ValueError):
            saved(ramp("RGB"), **options)
    with pytest.raises(OSError, match="cannot write mode CMYK as LPZ"):
        saved(Image.new("CMYK", (8, 8)))
    with pytest.raises(OSError, match="no codec or preset"):
        saved(ramp("RGB"), codec="nothing of this name")


def test_a_file_of_another_kind_is_unidentified():
    with pytest.raises(UnidentifiedImageError):
        opened(b"PZL no image at all" * 20)


def test_damage_is_an_os_error_that_keeps_its_cause():
    blob = saved(ramp("RGB"))
    header = bytearray(blob)
    header[10] ^= 1
    with pytest.raises(OSError, match="CRC-32C") as caught:
        opened(bytes(header))
    assert isinstance(caught.value.__cause__, ChecksumError)
    for bad in (blob[:-20], blob[:-8] + bytes(8)):
        image = opened(bad)  # as with other formats, damage in the samples shows when they are asked for
        assert image.size == (70, 50)
        with pytest.raises(OSError) as caught:
            image.load()
        assert isinstance(caught.value.__cause__, LatentpressError)
        with pytest.raises(OSError):
            opened(bad).verify()


def test_a_sound_file_verifies_without_decoding(monkeypatch):
    blob = saved(ramp("RGB"))
    monkeypatch.setattr(api, "decode", None)
    opened(blob).verify()


def test_truncated_images_load_in_part_where_pillow_is_told_so(monkeypatch):
    data = np.zeros((64, 1100, 3), np.uint8)
    blob = api.encode(data, quality=10)
    entries = [e for e in container.read(blob).chunk_table if e.kind == "data"]
    assert len(entries) == 2
    damaged = bytearray(blob)
    damaged[entries[1].offset + entries[1].length - 1] ^= 1
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    image = opened(bytes(damaged))
    with pytest.warns(UserWarning, match="chunk"):
        image.load()
    assert np.asarray(image)[:, :1000].mean() < 20 < np.asarray(image)[:, 1040:].mean()


def test_pillows_limit_of_pixels_holds(monkeypatch):
    blob = saved(ramp("RGB"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        opened(blob)


def test_signals_that_are_no_images_are_refused():
    blob = container.write(
        Encoded(codec="grid", digest=b"", shape=(4, 5), dtype="float32", dims=("time", "lat"), parameters={}, chunks=(Chunk(payload=b"x"),))
    )
    with pytest.raises(OSError, match="no image; use latentpress"):
        opened(blob)
