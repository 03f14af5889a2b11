"""bounded/NAME: the bound holds over any base, on machines where the base decodes a little differently too, and masks are exact."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress import container
from latentpress.codecs import bounded, registry
from latentpress.codecs.base import Chunk, Codec, Encoded, Signal, Target
from latentpress.codecs.bounded import Bounded, whole_planes
from latentpress.codecs.registry import load_codec
from latentpress.errors import FormatError, InputError, LatentpressError, MissingPresetError, UnsupportedError
from tests import test_payload_page_lattice as page
from tests.codecs.test_lattice import misses, named, same_bits, waves


class Coarse(Codec):
    """Rounded to a fifth of the deviation and less, deflated. `wobble`: how differently this machine decodes, in deviations."""

    id, domain, dims, name, drift = "coarse", "field", ("y", "x"), "coarse", 2.0**-10
    wobble = 0.0

    def encode(self, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        x = signal.data.astype(np.float64)
        if not np.isfinite(x[~np.isnan(x)]).all() or np.abs(x[np.isfinite(x)]).max(initial=0) > 1e30:
            raise UnsupportedError("coarse: too large")
        step = np.float64(np.nanstd(x) / 5 * 10 ** -((target.quality or 0) / 40) or 1.0)
        codes = np.where(np.isnan(x), 2**30, np.clip(np.round((x - np.nanmean(x)) / step), -(2**29), 2**29)).astype(np.int32)
        head = struct.pack("<dd", np.nanmean(x), step)
        return Encoded(codec=self.name, digest=b"", shape=x.shape, dtype=str(signal.data.dtype), dims=signal.dims, parameters={"b": 300, "a": 1},
                       chunks=(Chunk(payload=head + zlib.compress(codes.tobytes(), 9)),))  # fmt: skip

    def decode(self, encoded: Encoded) -> Signal:
        try:
            mean, step = struct.unpack_from("<dd", encoded.chunks[0].payload)
            codes = np.frombuffer(zlib.decompress(encoded.chunks[0].payload[16:]), np.int32).reshape(encoded.shape)
        except (struct.error, zlib.error, ValueError) as error:
            raise FormatError(f"coarse: {error}") from error
        with np.errstate(all="ignore"):
            data = np.where(codes == 2**30, np.nan, mean + step * codes)
            turns = np.where(np.arange(data.size).reshape(data.shape) % 3 == 0, 1, -1)
            return Signal(data=(data + turns * self.wobble * np.nanstd(data)).astype(encoded.dtype), dims=encoded.dims)

    def symbols(self, encoded: Encoded) -> tuple[np.ndarray, ...]:
        return tuple(np.frombuffer(c.payload, np.uint8).astype(np.int32) for c in encoded.chunks)

    def recode(self, encoded: Encoded, symbols: tuple[np.ndarray, ...]) -> Encoded:
        return dataclasses.replace(encoded, chunks=tuple(Chunk(payload=s.astype(np.uint8).tobytes()) for s in symbols))


CODEC = Bounded(Coarse())
FLOATS = st.one_of(st.floats(width=32), st.floats(-100, 100, width=32), st.sampled_from([0.0, -0.0, np.nan, 273.15, 1e-42, 1e20]))


@pytest.fixture
def over_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the base wherever it can be had, though it were larger."""
    monkeypatch.setattr(bounded, "smallest", lambda payloads: payloads[-1])


def through(signal: Signal, codec: Bounded = CODEC, effort: int = 2, **target: Any) -> np.ndarray:
    """By way of bytes."""
    blob = container.write(codec.encode(signal, Target(**target), effort=effort))
    back = codec.decode(container.read(blob).encoded)
    assert back.dims == signal.dims and back.data.dtype == signal.data.dtype and back.data.shape == signal.data.shape
    return back.data


def has_base(encoded: Encoded) -> bool:
    return any(chunk.payload[0] for chunk in encoded.chunks)


# ---- the bound


def arrays(dtype: Any) -> Any:
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7), elements=FLOATS)


@settings(max_examples=60, deadline=None)
@given(st.one_of(arrays(np.float32), arrays(np.float64)), st.floats(1e-6, 1e6), st.sampled_from([None, 1e20, 0.0, 273.15]))
def test_the_bound_holds_for_any_floats_and_masks_are_exact(x: np.ndarray, bound: float, fill: float | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "smallest", lambda payloads: payloads[-1])
        back = through(named(x) if fill is None else named(x, fill=fill), max_error=bound)
    known = np.isfinite(x) & (True if fill is None else x != fill)
    assert same_bits(back[~known], x[~known])
    assert (misses(x, back)[known] <= bound).all()


@pytest.mark.parametrize("wobble", [1, -1])
@pytest.mark.parametrize("percent", [10, 1, 0.3])
def test_it_holds_where_the_base_decodes_as_differently_as_it_says(wobble: int, percent: float, over_base: None) -> None:
    x = waves(4, 30, 40, noise=0.3)
    bound = float(x.std()) * percent / 100
    encoded = CODEC.encode(named(x), Target(max_error=bound))
    far = Coarse()
    far.wobble = wobble * Coarse.drift
    back = Bounded(far).decode(encoded).data
    assert has_base(encoded) and (misses(x, back) <= bound).all()
    assert not same_bits(back, CODEC.decode(encoded).data)


def test_a_bound_that_leaves_nothing_for_the_residual_takes_no_base(over_base: None) -> None:
    x = waves(2, 20, 30)
    for target in ({"max_error": 1e-3 * float(x.std())}, {"max_error": 0.0}, {"max_rel_error": 1e-3}):
        encoded = CODEC.encode(named(x), Target(**target))
        assert not has_base(encoded)
    assert same_bits(through(named(x), max_error=0.0), x)


def test_a_bound_for_each_point_holds_at_each_point(over_base: None) -> None:
    x = waves(3, 20, 30, noise=0.5)
    bound = np.linspace(0.1, 3, 30) * np.ones((20, 1))
    encoded = CODEC.encode(named(x), Target(max_error=bound))
    assert not has_base(encoded) and (misses(x, CODEC.decode(encoded).data) <= bound).all()
    exact = np.where(np.arange(30) == 7, 0.0, bound)
    assert same_bits(through(named(x), max_error=exact)[..., 7], x[..., 7])
    with pytest.raises(InputError, match="one for each point"):
        CODEC.encode(named(x), Target(max_error=np.ones((3, 3))))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int32"])
def test_integers_are_lattice_alone(dtype: str, over_base: None) -> None:
    x = np.round(waves(20, 30) - 240).astype(dtype)
    x[2:4] = 7
    encoded = CODEC.encode(named(x, fill=7), Target(max_error=2.0))
    back = CODEC.decode(encoded).data
    assert not has_base(encoded) and np.abs(back.astype(int) - x).max() <= 2 and (back[2:4] == 7).all()


def test_fill_values_beside_missing_points_are_exact(over_base: None) -> None:
    x = waves(2, 20, 30)
    x[0, 3:5], x[1, 6:9] = np.nan, 1e20
    encoded = CODEC.encode(named(x, fill=np.float32(1e20)), Target(max_error=0.5))
    back = CODEC.decode(encoded).data
    known = np.isfinite(x) & (x < 1e20)
    assert has_base(encoded) and same_bits(back[~known], x[~known]) and misses(x, back)[known].max() <= 0.5


# ---- what is taken


def test_a_chunk_is_never_larger_than_lattice_alone_by_more_than_its_head() -> None:
    lattice = load_codec("lattice")
    for x in (waves(3, 40, 50), np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)):
        sizes = [len(container.write(c.encode(named(x), Target(max_error=0.05)))) for c in (CODEC, lattice)]
        assert sizes[0] <= sizes[1] + 48


def test_effort_buys_qualities_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    usual = Coarse.encode

    def encode(self: Coarse, signal: Signal, target: Target, *, effort: int = 2) -> Encoded:
        tried.append(float(target.quality or 0))
        return usual(self, signal, target, effort=effort)

    monkeypatch.setattr(Coarse, "encode", encode)
    counts = []
    for effort in (0, 1, 2, 3, 9):
        tried.clear()
        CODEC.encode(named(waves(20, 30)), Target(max_error=0.5), effort=effort)
        counts.append(len(tried))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] > counts[2]


def test_regions_and_missing_chunks(monkeypatch: pytest.MonkeyPatch, over_base: None) -> None:
    from latentpress.codecs import lattice_chunks

    monkeypatch.setattr(lattice_chunks, "POINTS", 3 * 20 * 30)
    x = waves(2, 5, 20, 30)
    encoded = CODEC.encode(named(x), Target(max_error=0.5))
    assert len(encoded.chunks) == CODEC.places(encoded) == 4 and encoded.parameters == {"planes": 3}
    region = (slice(1, 2), slice(0, 2), slice(3, 9), slice(29, 30))
    wanted = set(CODEC.chunks_of(encoded, region))
    some = dataclasses.replace(encoded, chunks=tuple(c for c in encoded.chunks if (c.position or (0,)) in wanted))
    assert 0 < len(some.chunks) < 4
    np.testing.assert_array_equal(CODEC.decode_region(some, region).data, CODEC.decode(encoded).data[region])
    lost = CODEC.decode(dataclasses.replace(encoded, chunks=encoded.chunks[1:])).data
    assert np.isnan(lost[0, :3]).all() and np.isfinite(lost[1]).all()


def test_symbols_coded_again_give_the_same_bytes(over_base: None) -> None:
    x = waves(4, 20, 30)
    x[:, 3:6] = np.nan
    for target in (Target(max_error=0.5), Target(max_error=0.0)):
        encoded = CODEC.encode(named(x), target)
        assert CODEC.recode(encoded, CODEC.symbols(encoded)) == encoded


# ---- names

needs_entry_point = pytest.mark.skipif("bounded" not in registry.codec_entry_points(), reason="the environment is older than the codec: make env")


@needs_entry_point
def test_a_file_finds_its_codec_by_name_and_other_weights_are_refused() -> None:
    codec = load_codec("bounded/vaeformer-field")
    assert codec.name == "bounded/vaeformer-field" and codec.digest != registry.load_installed("vaeformer-field").digest
    assert registry.load_installed("bounded/vaeformer-field").digest == codec.digest
    assert registry.domain_of("bounded/vaeformer-field") == "field" and "bounded" not in registry.names()


NAMELESS = ["bounded", "bounded/", "bounded/nothing", "bounded/bounded/vaeformer-field", "bounded/walloc-rgb", "bounded/lattice"]


@needs_entry_point
@pytest.mark.parametrize("name", NAMELESS)
def test_names_without_a_base_are_refused_in_a_line(name: str) -> None:
    for load in (load_codec, registry.load_installed):
        with pytest.raises((MissingPresetError, UnsupportedError)) as refusal:
            load(name)
        assert "\n" not in str(refusal.value)


def test_other_targets_and_empty_arrays_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="max_error"):
        CODEC.encode(named(waves(4, 4)), Target(quality=50))
    with pytest.raises(UnsupportedError, match="have points"):
        CODEC.encode(named(np.zeros((3, 0), np.float32)), Target(max_error=0.1))
    with pytest.raises(UnsupportedError, match="float32, float64"):
        CODEC.encode(named(np.zeros((2, 2), np.complex64)), Target(max_error=0.1))


# ---- damage


@given(st.data())
@settings(deadline=None, max_examples=120)
def test_damaged_chunks_are_an_error_or_a_field(data: st.DataObject) -> None:
    payload = bytearray(WHOLE.chunks[0].payload)
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "noise"]))
    if kind == "flip":
        for _ in range(data.draw(st.integers(1, 3))):
            payload[data.draw(st.integers(0, min(len(payload) - 1, 700)))] = data.draw(st.integers(0, 255))
    elif kind == "cut":
        del payload[data.draw(st.integers(0, len(payload) - 1)) :]
    elif kind == "grow":
        payload += data.draw(st.binary(min_size=1, max_size=9))
    else:
        payload = bytearray([data.draw(st.integers(0, 3))]) + data.draw(st.binary(max_size=80))
    damaged = dataclasses.replace(WHOLE, chunks=(Chunk(payload=bytes(payload)),))
    try:
        assert CODEC.decode(damaged).data.shape == WHOLE.shape
    except LatentpressError as error:
        assert "\n" not in str(error)


HEADERS: list[dict[str, Any]] = [{"parameters": {}}, {"parameters": {"planes": 0}}, {"parameters": {"planes": 3, "more": 1}}, {"dtype": "int16"},
                                 {"shape": (3, 12, 15)}, {"shape": ()}, {"shape": (1 << 20, 12, 14)}, {"shape": (3, 1 << 14, 1 << 14)}]  # fmt: skip


@pytest.mark.parametrize("change", HEADERS, ids=str)
def test_headers_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LatentpressError) as refusal:
        changed = dataclasses.replace(WHOLE, **change)
        if CODEC.places(changed) != len(changed.chunks):
            raise FormatError("as the container does")
        CODEC.decode(changed)
    assert "\n" not in str(refusal.value)


def _whole() -> Encoded:
    x = waves(3, 12, 14, noise=0.5)
    x[1, :5, :5], x[2, 3] = np.nan, 1e20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "smallest", lambda payloads: payloads[-1])
        return CODEC.encode(named(x, fill=np.float32(1e20)), Target(max_error=0.5))


WHOLE = _whole()


# ---- the page


def by_the_page(encoded: Encoded, codec: Bounded) -> np.ndarray:
    """docs/FORMAT.md, section 20, on top of the reader of section 16; the base by its codec."""
    cursor = page.Cursor(encoded.chunks[0].payload)
    kind, fill, base, step = cursor.take(1)[0], None, None, 0.0
    planes, shape = (int(np.prod(encoded.shape[:-2])), *encoded.shape[-2:]), encoded.shape
    if kind:
        step = struct.unpack("<d", cursor.take(8))[0]
    if kind & 2:
        fill = struct.unpack("<d", cursor.take(8))[0]
    if kind:
        part = inside(cursor.take(cursor.v()))
        base = codec.base.decode(Encoded(codec=codec.base.name, digest=codec.base.digest, shape=planes, dtype=encoded.dtype, dims=("plane", "y", "x"),
                                         parameters=part[0], chunks=tuple(Chunk(payload=c, position=p) for p, c in part[1]))).data  # fmt: skip
    parameters, chunks = inside(cursor.take(len(cursor.data) - cursor.at))
    assert len(chunks) == 1 and parameters["planes"] >= planes[0]
    residual = page.decode(chunks[0][1], planes, np.dtype(encoded.dtype))
    if base is None:
        return residual.reshape(shape)
    finite = np.isfinite(residual)
    values = np.where(finite, base.astype(np.float64) + step * residual.astype(np.float64), residual)
    return (values if fill is None else np.where(residual == np.inf, fill, values)).astype(encoded.dtype).reshape(shape)


def inside(part: bytes) -> tuple[dict[str, int], list[tuple[tuple[int, ...], bytes]]]:
    cursor = page.Cursor(part)
    parameters = {cursor.take(cursor.v()).decode(): cursor.v() for _ in range(cursor.v())}
    count, numbers = cursor.v(), cursor.v()
    places = [(tuple(cursor.v() for _ in range(numbers)), cursor.v()) for _ in range(count)]
    chunks = [(position, cursor.take(size)) for position, size in places]
    assert cursor.at == len(part)
    return parameters, chunks


def test_the_page_decodes_what_the_package_wrote() -> None:
    np.testing.assert_array_equal(by_the_page(WHOLE, CODEC), CODEC.decode(WHOLE).data)
    exact = CODEC.encode(named(waves(2, 12, 14)), Target(max_error=0.0))
    np.testing.assert_array_equal(by_the_page(exact, CODEC), CODEC.decode(exact).data)


# ---- with the base that ships


@pytest.fixture(scope="module")
def real() -> Any:
    return Bounded(load_codec("vaeformer-field"))


@pytest.mark.parametrize("shape", [(20, 30), (4, 33, 65), (70, 1), (5,)], ids=str)
def test_the_bound_holds_over_the_transformer(real: Any, shape: tuple[int, ...], over_base: None) -> None:
    x = waves(*((1, *shape) if len(shape) == 1 else shape), noise=0.3).reshape(shape)
    x.flat[:3] = np.nan
    back = through(named(x), real, max_error=3.0)
    assert np.array_equal(np.isnan(back), np.isnan(x)) and misses(x, back)[~np.isnan(x)].max() <= 3.0
    assert has_base(real.encode(named(x), Target(max_error=3.0)))


def test_the_transformer_drifts_less_than_it_says(real: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between float32 and float64, which differ more than two orders of the same float32 sums."""
    from latentpress.codecs.vaeformer_core import Core

    x = waves(3, 100, 150, noise=0.5)
    encoded = real.base.encode(named(x), Target(quality=60))
    single = real.base.decode(encoded).data.astype(np.float64)
    usual = Core.synthesise

    def double(self: Core, latents: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        self.synthesis.double()
        try:
            return usual(self, latents.double(), *arguments, **options)
        finally:
            self.synthesis.float()

    monkeypatch.setattr(Core, "synthesise", double)
    far = real.base.decode(encoded).data.astype(np.float64)
    assert 0 < np.abs(far - single).max() < real.base.drift * float(x.std()) / 4


def test_chunks_are_whole_planes() -> None:
    assert whole_planes((4, 3000, 3000)).size == (3, 3000, 3000) and whole_planes((7,)).size[1:] == (1, 7)
