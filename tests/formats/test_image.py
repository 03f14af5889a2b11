"""Image files to signals and back: every mode Pillow reads, metadata kept or warned about, refusals that name the remedy."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from latentpress import api
from latentpress.codecs.base import Signal
from latentpress.errors import FormatError, InputError
from latentpress.formats.alpha import merge_alpha, split_alpha
from latentpress.formats.image import DIMS, WRITABLE, image_bytes, read_image

NOISE = np.random.default_rng(5)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def samples(bands: int, dtype: type = np.uint8, side: int = 20) -> np.ndarray:
    return NOISE.integers(0, np.iinfo(dtype).max, (side, side + 3, bands), dtype, endpoint=True)


def signal(bands: int, dtype: type = np.uint8, **meta: object) -> Signal:
    return Signal(data=samples(bands, dtype), dims=DIMS, meta=meta)


def file(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int = 6) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "maker"
    return tags.tobytes().removeprefix(b"Exif\0\0")


def orientation_of(stored: bytes) -> int:
    tags = Image.Exif()
    tags.load(stored)
    return tags[0x0112]


# ---- reading


@pytest.mark.parametrize("mode, bands", [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_plain_modes_come_sample_for_sample(mode, bands):
    data = samples(bands)
    image = Image.fromarray(data[:, :, 0] if bands == 1 else data)
    assert image.mode == mode
    read = read_image(file(image))
    assert read.dims == DIMS and np.array_equal(read.data, data) and read.data.dtype == np.uint8


def test_bilevel_becomes_0_and_255():
    image = Image.fromarray(samples(1)[:, :, 0]).convert("1")
    assert np.array_equal(read_image(file(image)).data[:, :, 0], np.asarray(image) * np.uint8(255))


def test_a_palette_becomes_its_colours():
    image = Image.fromarray(samples(3)).quantize(16)
    assert np.array_equal(read_image(file(image)).data, np.asarray(image.convert("RGB")))


def test_a_palette_with_transparency_becomes_rgba():
    image = Image.fromarray(samples(3)).quantize(16)
    data = read_image(file(image, transparency=3)).data
    assert data.shape[2] == 4
    assert np.array_equal(data[:, :, 3] == 0, np.asarray(image) == 3)


@pytest.mark.parametrize("mode, clear", [("L", 7), ("RGB", (1, 2, 3))])
def test_a_transparent_colour_becomes_alpha(mode, clear):
    image = Image.new(mode, (4, 3), clear)
    image.putpixel((0, 0), 200 if mode == "L" else (200, 0, 0))
    alpha = read_image(file(image, transparency=clear)).data[:, :, -1]
    assert alpha[0, 0] == 255 and alpha[1:].max() == 0


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_keeps_all_bits(format):
    data = samples(1, np.uint16)
    read = read_image(file(Image.fromarray(data[:, :, 0]), format))
    assert read.data.dtype == np.uint16 and np.array_equal(read.data, data)


def test_a_transparent_16_bit_gray_becomes_alpha():
    data = np.full((4, 5), 513, np.uint16)
    data[0, 0] = 514
    read = read_image(file(Image.fromarray(data), transparency=513)).data
    assert np.array_equal(read[:, :, 0], data)
    assert read[0, 0, 1] == 65535 and read[1:, :, 1].max() == 0


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_16_bit_colour_png_keeps_all_bits(bands):
    imagecodecs = pytest.importorskip("imagecodecs")
    data = samples(bands, np.uint16)
    read = read_image(imagecodecs.png_encode(data))
    assert read.data.dtype == np.uint16 and np.array_equal(read.data, data)
    assert np.array_equal(read_image(image_bytes(Signal(data=data, dims=DIMS), ".png")).data, data)


def test_deep_colour_that_would_be_cut_is_refused():
    imagecodecs = pytest.importorskip("imagecodecs")
    tiff = imagecodecs.tiff_encode(samples(3, np.uint16)) if hasattr(imagecodecs, "tiff_encode") else None
    ppm = b"P6\n2 1\n65535\n" + bytes(12)
    for blob in filter(None, (tiff, ppm)):
        with pytest.raises(InputError, match=r"more than 8 bits.*16-bit PNG"):
            read_image(blob)


@pytest.mark.parametrize("mode, format", [("CMYK", "JPEG"), ("F", "TIFF"), ("LAB", "TIFF")])
def test_modes_without_a_place_are_refused_with_the_remedy(mode, format):
    with pytest.raises(InputError, match=f"mode {mode} is not supported; convert"):
        read_image(file(Image.new(mode, (8, 8)), format))


def test_wide_integers_are_refused_with_the_remedy():
    with pytest.raises(InputError, match="70000; scale"):
        read_image(file(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_further_frames_are_warned_about(format):
    frames = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in (0, 255)]
    blob = file(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="only the first of 2 frames"):
        assert read_image(blob).data.shape[:2] == (8, 8)


def test_no_image_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("no image")
    with pytest.raises(InputError, match=r"note\.txt: (no image file|damaged image)"):
        read_image(path)
    with pytest.raises(InputError, match=r"absent\.png: cannot be read"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match=r"(no image file|damaged image)"):
        read_image(file(Image.new("RGB", (64, 64)))[:-30])


# ---- metadata


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_icc_exif_and_xmp_are_read(format):
    options: dict = {"icc_profile": ICC, "exif": b"Exif\0\0" + exif()}
    if format == "PNG":
        options["pnginfo"] = info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Title", "one")
    else:
        options["xmp"] = XMP
    meta = read_image(file(Image.new("RGB", (16, 16)), format, **options)).meta
    assert meta["icc"] == ICC and meta["xmp"] == XMP
    assert meta["exif"][:2] in (b"II", b"MM")  # from the byte-order mark on
    if format != "AVIF":  # which keeps the orientation in its own box
        assert orientation_of(meta["exif"]) == 6
    assert meta.get("text") == ({"Title": "one"} if format == "PNG" else None)


def test_the_comment_of_a_jpeg_is_kept():
    blob = file(Image.new("RGB", (8, 8)), "JPEG", comment="by hand")
    meta = read_image(blob).meta
    assert meta["text"] == {"Comment": "by hand"}
    assert read_image(image_bytes(read_image(blob), ".jpg")).meta["text"] == meta["text"]


def test_tiff_tags_that_describe_its_layout_are_left_behind():
    tags = Image.Exif()
    tags[0x010F], tags[0x9C9B] = "maker", b"t\0"
    tags[0x8769] = {0x829A: 0.5}
    meta = read_image(file(Image.new("RGB", (16, 16)), "TIFF", exif=tags.tobytes())).meta
    kept = Image.Exif()
    kept.load(meta["exif"])
    assert kept[0x010F] == "maker" and kept.get_ifd(0x8769)[0x829A] == 0.5
    assert kept[0x9C9B] == b"t\0"
    assert 273 not in kept and 256 not in kept
    assert "exif" not in read_image(file(Image.new("RGB", (16, 16)), "TIFF")).meta


def test_resolution_is_kept_when_it_means_something():
    assert read_image(file(Image.new("L", (8, 8)), "JPEG", dpi=(300, 200))).meta["dpi"] == (300, 200)
    assert "dpi" not in read_image(file(Image.new("L", (8, 8)), "BMP", dpi=(0, 0))).meta


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff"])
def test_writers_keep_icc_exif_and_xmp(suffix):
    photo = signal(3, icc=ICC, exif=exif(1), xmp=XMP)
    meta = read_image(image_bytes(photo, suffix)).meta
    assert meta["icc"] == ICC and meta["xmp"] == XMP
    tags = Image.Exif()
    tags.load(meta["exif"])
    assert tags[0x010F] == "maker"


def test_png_keeps_everything():
    photo = signal(4, icc=ICC, exif=exif(), xmp=XMP, dpi=(300.0, 300.0), text={"Title": "höhe", "Comment": "two"})
    back = read_image(image_bytes(photo, ".png"))
    assert np.array_equal(back.data, photo.data)
    assert back.meta["text"] == photo.meta["text"] and back.meta["exif"] == photo.meta["exif"]
    assert back.meta["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize(
    "suffix, lost",
    [(".ppm", "dpi, exif, icc, text, xmp"), (".bmp", "exif, icc, text, xmp"), (".webp", "dpi, text"), (".jpg", "text"), (".tif", "text")],
)
def test_what_a_format_cannot_keep_is_warned_about(suffix, lost):
    photo = signal(3, icc=ICC, exif=exif(), xmp=XMP, dpi=(300.0, 300.0), text={"Title": "one"})
    with pytest.warns(UserWarning, match=f"without {lost}; .png keeps all"):
        image_bytes(photo, suffix)


def test_npy_and_deep_png_warn_as_well():
    with pytest.warns(UserWarning, match="without icc"):
        api.signal_bytes(signal(3, icc=ICC), ".npy")
    pytest.importorskip("imagecodecs")
    with pytest.warns(UserWarning, match="without icc"):
        image_bytes(signal(3, np.uint16, icc=ICC), ".png")


def test_a_text_name_that_png_cannot_hold_is_warned_about():
    with pytest.warns(UserWarning, match="is not written"):
        back = read_image(image_bytes(signal(1, text={"日本": "a", "Title": "b"}), ".png"))
    assert back.meta["text"] == {"Title": "b"}


# ---- writing


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm", ".bmp"])
@pytest.mark.parametrize("bands", [1, 3])
def test_lossless_formats_give_the_same_samples(suffix, bands):
    photo = signal(bands)
    assert np.array_equal(read_image(image_bytes(photo, suffix)).data, photo.data)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bands", [2, 4])
def test_lossless_formats_keep_transparency(suffix, bands):
    photo = signal(bands)
    assert np.array_equal(read_image(image_bytes(photo, suffix)).data, photo.data)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("bands", [1, 3])
def test_lossy_formats_give_nearly_the_same_samples(suffix, bands):
    smooth = np.broadcast_to(np.linspace(0, 255, 64)[:, None, None], (64, 64, bands)).astype(np.uint8)
    back = read_image(image_bytes(Signal(data=smooth, dims=DIMS), suffix)).data
    assert np.abs(back.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_gray_is_written(suffix):
    photo = signal(1, np.uint16)
    assert np.array_equal(read_image(image_bytes(photo, suffix)).data, photo.data)


def test_two_dimensional_data_is_gray():
    flat = Signal(data=samples(1)[:, :, 0], dims=DIMS[:2])
    assert np.array_equal(read_image(image_bytes(flat, ".png")).data[:, :, 0], flat.data)


def test_npy_is_the_array():
    photo = signal(3)
    assert np.array_equal(np.load(io.BytesIO(api.signal_bytes(photo, ".npy"))), photo.data)


@pytest.mark.parametrize(
    "suffix, bands, dtype, remedy",
    [
        (".jpg", 4, np.uint8, "write .png or .webp"),
        (".pgm", 2, np.uint8, "write .png or .webp"),
        (".pgm", 3, np.uint8, "write .ppm"),
        (".webp", 1, np.uint16, "written as .png, .tif or .pgm"),
        (".tif", 3, np.uint16, "written as .png only"),
        (".xyz", 3, np.uint8, "images are written as .avif"),
        ("", 3, np.uint8, "images are written as .avif"),
        (".png", 5, np.uint8, "write .npy"),
        (".png", 3, np.float32, "write .npy"),
    ],
)
def test_refusals_name_the_remedy(suffix, bands, dtype, remedy):
    photo = Signal(data=np.zeros((4, 4, bands), dtype), dims=DIMS)
    with pytest.raises(InputError, match=remedy):
        image_bytes(photo, suffix)


def test_what_pillow_refuses_to_write_is_our_error():
    wide = Signal(data=np.zeros((1, 16400, 3), np.uint8), dims=DIMS)
    with pytest.raises(InputError, match=r"\.webp cannot hold this image.*write another format"):
        image_bytes(wide, ".webp")
    with pytest.raises(InputError, match=r"\.jpg cannot hold"):
        image_bytes(signal(3, exif=b"II" + bytes(70000)), ".jpg")


def test_every_writable_suffix_writes():
    for suffix in WRITABLE:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(image_bytes(signal(1), suffix)) > 20


# ---- alpha


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [2, 4])
def test_alpha_comes_apart_and_together(dtype, bands):
    photo = signal(bands, dtype)
    colour, png = split_alpha(photo)
    assert png is not None and colour.data.shape[2] == bands - 1
    assert np.array_equal(merge_alpha(colour, png).data, photo.data)


def test_opaque_signals_pass():
    for bands in (1, 3):
        photo = signal(bands)
        assert split_alpha(photo) == (photo, None)


def test_alpha_joins_a_gray_signal_without_bands():
    merged = merge_alpha(Signal(data=np.zeros((4, 5), np.uint8), dims=DIMS[:2]), file(Image.new("L", (5, 4), 9)))
    assert merged.dims == DIMS and merged.data.shape == (4, 5, 2)


@pytest.mark.parametrize("image", [Image.new("L", (5, 5)), Image.new("RGB", (5, 4)), Image.new("I;16", (5, 4))], ids=["size", "mode", "depth"])
def test_an_alpha_plane_that_does_not_fit_is_refused(image):
    with pytest.raises(FormatError, match="alpha plane"):
        merge_alpha(Signal(data=np.zeros((4, 5, 3), np.uint8), dims=DIMS), file(image))


def test_a_damaged_or_giant_alpha_plane_is_refused(monkeypatch):
    colour = Signal(data=np.zeros((40, 50, 3), np.uint8), dims=DIMS)
    png = file(Image.fromarray(samples(1, side=40)[:, :, 0]).resize((50, 40)))
    for bad in (b"", b"no png", png[: len(png) // 2]):
        with pytest.raises(FormatError, match="alpha plane"):
            merge_alpha(colour, bad)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(FormatError, match="alpha plane"):
        merge_alpha(colour, png)
