"""Units, masks, rings and filling of planes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentpress.codecs.field_planes import (
    CONSTANT,
    FIELD,
    MISSING,
    Unit,
    filled,
    is_ring,
    normalised,
    pack_units,
    padded,
    restored,
    unit_of,
    unpack_units,
)
from latentpress.errors import FormatError

NAN = np.nan


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.one_of(st.just(NAN), st.floats(-1e9, 1e9))))
@settings(deadline=None)
def test_units_are_undone(plane: np.ndarray) -> None:
    unit = unit_of(plane)
    back = restored(normalised(plane, unit) if unit.kind == FIELD else None, unit, plane.shape, "float64")
    assert np.array_equal(np.isnan(back), np.isnan(plane))
    span = np.nanmax(np.abs(plane)) if unit.kind != MISSING else 0
    assert np.allclose(back, plane, atol=1e-5 * span + 1e-30, equal_nan=True)


def test_kinds_of_planes() -> None:
    assert unit_of(np.full((2, 2), NAN)) == Unit(MISSING)
    assert unit_of(np.full((2, 2), 3.5)) == Unit(CONSTANT, 3.5)
    assert unit_of(np.array([[1.0, NAN], [3.0, 1.0]])).kind == FIELD


units = st.lists(
    st.tuples(
        st.sampled_from([MISSING, CONSTANT, FIELD]), st.floats(-(2.0**90), 2.0**90, width=32), st.floats(2.0**-100, 2.0**90, width=32),
        st.one_of(st.none(), hnp.arrays(np.bool_, (5, 7))),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@given(units, st.binary(max_size=9))
@settings(deadline=None)
def test_what_stands_before_a_stream_comes_back(rows: list, rest: bytes) -> None:
    given_units = [
        Unit(MISSING) if kind == MISSING else Unit(kind, mean, deviation if kind == FIELD else 0.0, known) for kind, mean, deviation, known in rows
    ]
    packed = pack_units(given_units)
    back, at = unpack_units(packed + rest, len(given_units), (5, 7))
    assert at == len(packed)
    for a, b in zip(given_units, back, strict=True):
        assert (a.kind, a.mean, a.deviation) == (b.kind, b.mean, b.deviation)
        assert (a.known is None) == (b.known is None) and (a.known is None or np.array_equal(a.known, b.known))


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_foreign_bytes_are_units_or_a_format_error(blob: bytes) -> None:
    try:
        unpack_units(blob, 2, (6, 6))
    except FormatError as error:
        assert "damaged chunk" in str(error)


def test_a_mask_that_inflates_without_end_is_refused() -> None:
    import struct
    import zlib

    bomb = zlib.compress(bytes(10**7), 9)
    with pytest.raises(FormatError, match="mask"):
        unpack_units(bytes([CONSTANT + 4]) + struct.pack("<fI", 1.0, len(bomb)) + bomb, 1, (6, 6))


def test_the_same_mask_is_written_once() -> None:
    known = np.random.default_rng(0).random((40, 40)) < 0.5
    one, two = (len(pack_units([Unit(FIELD, 1.0, 2.0, known)] * n)) for n in (1, 2))
    assert two == one + 9


def test_gaps_are_filled_smoothly() -> None:
    y, x = np.mgrid[:64, :96]
    plane = np.sin(y / 15) + np.cos(x / 20)
    known = np.ones(plane.shape, bool)
    known[20:40, 30:60] = False
    full = filled(plane, known)
    assert np.array_equal(full[known], plane[known])
    assert np.abs(np.diff(full, axis=0)).max() < 0.4 and full.min() >= plane.min() and full.max() <= plane.max()
    assert filled(plane, np.zeros_like(known)).any() == False  # noqa: E712


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (3, 3)])
def test_gaps_of_small_planes_are_filled_too(shape: tuple[int, int]) -> None:
    plane, known = np.ones(shape), np.zeros(shape, bool)
    known[-1, -1] = True
    assert np.allclose(filled(plane, known), 1)


def wave(h: int = 60, w: int = 120, turns: float = 3.0) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.sin(2 * np.pi * turns * x / w + y / 9) + 0.3 * np.sin(y / 4)


def test_global_grids_are_rings_and_parts_are_not() -> None:
    assert is_ring(wave())
    assert not is_ring(wave(turns=2.5)) and not is_ring(wave()[:, :100])
    gaps = wave()
    gaps[10:30, 100:] = NAN
    assert is_ring(gaps)
    assert not is_ring(np.zeros((20, 40))) and not is_ring(wave()[:, :8]) and not is_ring(np.full((20, 40), NAN))


def test_a_ring_is_filled_up_to_a_ring() -> None:
    x = wave(30, 50).astype(np.float32)[None]
    full = padded(x, 64, 64, True)
    assert full.shape == (1, 64, 64) and np.array_equal(full[:, :30, :50], x)
    assert np.abs(np.diff(full[0], axis=1, append=full[0, :, :1])).max() < 1.05 * np.abs(np.diff(x[0], axis=1)).max()
    assert np.array_equal(padded(x, 64, 64, False)[0, 40], np.pad(x[0, -1], (0, 14), mode="edge"))
