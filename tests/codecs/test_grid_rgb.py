"""grid-rgb: lossless for everything it takes, tiles, refusals, training to a preset that codes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress import api, container
from latentpress.codecs.base import Signal, Target
from latentpress.codecs.grid_rgb import GridRGB, from_planes, to_planes
from latentpress.codecs.grid_train import GridModel, training_planes
from latentpress.codecs.presets import read_preset
from latentpress.codecs.registry import load_codec
from latentpress.entropy.grid_network import GridConfig
from latentpress.errors import FormatError, InputError, UnsupportedError
from tests.helpers import deep, natural

SMALL = GridConfig(width=8, blocks=1, head=8)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "small-grid"
    torch.manual_seed(5)
    GridModel.from_options(SMALL).freeze(folder, [torch.from_numpy(natural(64, 80)).permute(2, 0, 1)], {"licence": "none"})
    return folder


@settings(deadline=None, max_examples=25)
@given(h=st.integers(1, 30), w=st.integers(1, 30), bands=st.sampled_from([None, 1, 3]), wide=st.booleans(), seed=st.integers(0, 9))
def test_every_sample_comes_back(preset, h, w, bands, wide, seed):
    codec = load_codec(preset)
    shape = (h, w) if bands is None else (h, w, bands)
    data = np.random.default_rng(seed).integers(0, 65536 if wide else 256, shape).astype(np.uint16 if wide else np.uint8)
    encoded = codec.encode(Signal(data=data, dims=("y", "x", "band")[: data.ndim]), Target(quality=50))
    decoded = codec.decode(encoded)
    assert decoded.data.dtype == data.dtype and np.array_equal(decoded.data, data)


@pytest.mark.parametrize("make", [lambda: natural(50, 70), lambda: deep(natural(20, 30)), lambda: natural(31, 17)[..., :1]])
def test_the_colour_transform_is_reversible(make):
    data = make()
    assert np.array_equal(from_planes(to_planes(data), data.shape, str(data.dtype)), data)


def test_planes_of_no_image_are_refused():
    planes = np.array([255, 255, 255], np.int32).reshape(3, 1, 1)
    with pytest.raises(FormatError, match="outside uint8"):
        from_planes(planes, (1, 1, 3), "uint8")


def test_large_images_are_coded_in_tiles_that_stand_alone(preset):
    codec = GridRGB(read_preset(preset, "small-grid"), tile=64)
    image = natural(130, 100)
    encoded = codec.encode(Signal(data=image, dims=codec.dims), Target(quality=50))
    assert len(encoded.chunks) == 6 == codec.places(encoded)
    assert np.array_equal(codec.decode(encoded).data, image)
    from dataclasses import replace

    part = codec.decode(replace(encoded, chunks=encoded.chunks[:1])).data
    assert np.array_equal(part[:64, :64], image[:64, :64]) and (part[64:] == 128).all()


def test_api_and_metadata(tmp_path):
    from PIL import Image

    picture = np.dstack([natural(40, 60), np.arange(2400, dtype=np.uint8).reshape(40, 60)])
    Image.fromarray(picture).save(tmp_path / "a.png")
    blob = api.encode(tmp_path / "a.png", lossless=True)
    assert container.read_header(blob).codec == "grid-rgb"
    assert np.array_equal(api.decode(blob).data, picture)


@pytest.mark.parametrize(
    "options, words", [({"quality": 60}, "quality"), ({"max_bytes": 9000}, "max_bytes"), ({"codec": "walloc-rgb"}, "walloc-rgb")]
)
def test_lossless_refuses_what_contradicts_it(options, words):
    with pytest.raises(InputError, match=words):
        api.encode(natural(16, 16), lossless=True, **options)


def test_targets_of_a_lossy_codec_are_refused(preset):
    with pytest.raises(UnsupportedError, match="lossless"):
        load_codec(preset).encode(Signal(data=natural(8, 8), dims=("y", "x", "band")), Target(psnr=30))


@pytest.mark.parametrize("effort", [0, 2])
def test_symbols_coded_again_give_the_same_bytes(effort):
    codec, image = load_codec("grid-rgb"), natural(160, 170)
    encoded = codec.encode(Signal(data=image, dims=codec.dims), Target(quality=50), effort=effort)
    assert codec.recode(encoded, codec.symbols(encoded)) == encoded and np.array_equal(codec.decode(encoded).data, image)


def test_it_beats_png_and_webp_on_a_photograph():
    import io

    from PIL import Image

    image = natural(256, 256)
    sizes = {}
    for name, options in (("PNG", {"optimize": True}), ("WEBP", {"lossless": True, "method": 6})):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, name, **options)
        sizes[name] = len(buffer.getvalue())
    assert len(api.encode(image, lossless=True)) < 0.96 * min(sizes.values())


def test_training_lowers_the_bits():
    torch.manual_seed(2)
    model = GridModel.from_options(SMALL)
    batch = torch.stack([torch.from_numpy(natural(64, 64, top=t)).permute(2, 0, 1) for t in (0, 90)]).float() / 255
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    costs = []
    for _ in range(12):
        optimiser.zero_grad()
        torch.manual_seed(0)
        losses = model(batch)
        losses.main.backward()
        optimiser.step()
        costs.append(float(losses.main))
    assert costs[-1] < 0.93 * costs[0] and float(losses.scalars["bpp"]) == pytest.approx(3 * costs[-1])


def test_training_sees_integers_that_samples_give():
    torch.manual_seed(0)
    planes = training_planes(torch.rand(2, 3, 32, 32))
    assert torch.equal(planes, planes.round())
    for p in planes.numpy().astype(np.int32):
        from_planes(p, (16, 16, 3), "uint8")
