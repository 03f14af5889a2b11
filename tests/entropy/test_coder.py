"""The coder: what is pushed is pulled, in the bits that the tables promise, in words that never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from latentpress.entropy.coder import Decoder, Encoder, SequentialDecoder, SequentialEncoder
from latentpress.entropy.tables import MAX_SYMBOL, TOTAL, Tables, gaussian_tables, quantise_masses
from latentpress.errors import FormatError

CODERS = [(Encoder, Decoder), (SequentialEncoder, SequentialDecoder)]
Push = tuple[NDArray[np.int32], NDArray[np.int64], Tables]


def draw(seed: int, count: int, tables: Tables, spread: int = 3) -> Push:
    random = np.random.default_rng(seed)
    rows = random.integers(0, tables.rows, count)
    return random.integers(-spread, spread + 1, count).astype(np.int32), rows, tables


@st.composite
def pushes(make: st.DrawFn) -> list[Push]:
    out = []
    for _ in range(make(st.integers(1, 4))):
        sizes = make(st.lists(st.integers(2, 40), min_size=1, max_size=5))
        seed = make(st.integers(0, 2**32 - 1))
        random = np.random.default_rng(seed)
        tables = Tables.from_masses([random.random(n) ** 4 + 1e-9 for n in sizes], [int(random.integers(-20, 20)) for _ in sizes])
        symbols, rows, _ = draw(seed, make(st.integers(0, 60)), tables, make(st.sampled_from([1, 30, 10**6, MAX_SYMBOL - 1])))
        out.append((symbols, rows, tables))
    return out


@pytest.mark.parametrize(("encoder", "decoder"), CODERS)
@given(pushes())
@settings(max_examples=60, deadline=None)
def test_what_is_pushed_is_pulled(encoder: type, decoder: type, given_pushes: list[Push]) -> None:
    coder = encoder()
    for symbols, rows, tables in given_pushes:
        coder.push(symbols, rows, tables)
    source = decoder(coder.finish())
    for symbols, rows, tables in given_pushes:
        np.testing.assert_array_equal(source.pull(rows, tables), symbols)
    source.close()


@pytest.mark.parametrize(("encoder", "decoder"), CODERS)
def test_size_is_what_the_tables_promise(encoder: type, decoder: type) -> None:
    tables = gaussian_tables([0.2, 1.0, 5.0, 40.0])
    random = np.random.default_rng(0)
    rows = random.integers(0, 4, 40_000)
    symbols = np.round(random.normal(size=40_000) * np.array([0.2, 1, 5, 40])[rows]).astype(np.int32)
    symbols[:50] = random.integers(-(10**6), 10**6, 50)  # escapes count too
    coder = encoder()
    coder.push(symbols, rows, tables)
    assert 8 * len(coder.finish()) == pytest.approx(tables.bits(symbols, rows), rel=1e-3, abs=128)


FROZEN = {
    Encoder: "060000a80100000effffff7e423a00b609000000",
    SequentialEncoder: "fff8ffff040010fe3effff01a48d1dc6",
}


def frozen_push() -> Push:
    tables = Tables.from_counts([np.array([TOTAL - 3, 2, 1]), np.array([1, 5, TOTAL // 2, TOTAL // 2 - 6])], [-1, 7])
    return np.array([-1, 8, 9, -1, 0, 7, 100, -5, 9], np.int32), np.array([0, 1, 1, 0, 0, 1, 1, 0, 1]), tables


@pytest.mark.parametrize("encoder", [Encoder, SequentialEncoder])
def test_the_words_are_those_of_the_day_the_format_was_made(encoder: type) -> None:
    coder = encoder()
    coder.push(*frozen_push())
    assert coder.finish().hex() == FROZEN[encoder]


def plain_rans(symbols: NDArray[np.int32], tables: Tables) -> bytes:
    """Textbook rANS over row 0: 64-bit state, 32-bit words, 24-bit probabilities, symbols in reverse."""
    words, state = [], 0
    cdf = tables.cdf.astype(object)
    for s in symbols[::-1]:
        left, right = int(cdf[s - tables.low[0]]), int(cdf[s - tables.low[0] + 1])
        if state >> (64 - 24) >= right - left:
            words.append(state & 0xFFFFFFFF)
            state >>= 32
        state = ((state // (right - left)) << 24) | (state % (right - left) + left)
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    return np.array(words, "<u4").tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_ans_is_textbook_rans_with_exactly_our_counts(seed: int) -> None:
    random = np.random.default_rng(seed)
    tables = Tables.from_masses([random.random(random.integers(2, 300)) ** 6 + 1e-12], [-4])
    symbols = random.integers(-4, int(tables.high[0]), 500).astype(np.int32)
    coder = Encoder()
    coder.push(symbols, np.zeros(500, np.int64), tables)
    assert coder.finish() == plain_rans(symbols, tables)


@given(st.binary(max_size=120), st.integers(0, 50))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_symbols_or_a_format_error(blob: bytes, count: int) -> None:
    tables = gaussian_tables([0.3, 2.0])
    for decoder in (Decoder, SequentialDecoder):
        try:
            source = decoder(blob)
            assert source.pull(np.arange(count) % 2, tables).dtype == np.int32
            source.close()
        except FormatError:
            pass


def test_a_decoder_that_stops_early_is_noticed() -> None:
    """Reading on past the end cannot be told from a stream of lowest symbols; counts come from checked headers."""
    tables = gaussian_tables([2.0])
    symbols, rows, _ = draw(1, 200, tables)
    coder = Encoder()
    coder.push(symbols, rows, tables)
    blob = coder.finish()
    for count in (0, 100, 199):
        source = Decoder(blob)
        source.pull(np.zeros(count, np.int64), tables)
        with pytest.raises(FormatError, match="left"):
            source.close()


def test_wrong_arguments_are_refused() -> None:
    tables = gaussian_tables([1.0])
    for symbols, rows in (
        (np.zeros(2, np.int64), np.zeros(2, int)),
        (np.zeros(2, np.int32), np.zeros(3, int)),
        (np.zeros(2, np.int32), np.array([0, 1])),
        (np.full(2, MAX_SYMBOL, np.int32), np.zeros(2, int)),
    ):
        with pytest.raises(ValueError, match=r"expected|rows|magnitude"):
            Encoder().push(symbols, rows, tables)


def test_tables_refuse_what_is_no_distribution() -> None:
    good = Tables.from_counts([np.array([TOTAL - 1, 1])], [0])
    for cdf in ([0, 5, 5, TOTAL], [1, 5, TOTAL], [0, 5, TOTAL - 1], [0, TOTAL]):
        with pytest.raises(ValueError, match="row 0"):
            Tables(np.array(cdf, np.int32), np.array([0, len(cdf)], np.int32), good.low)
    for mass in ([1.0], [1.0, -1.0, 2.0], [np.nan, 1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="masses"):
            quantise_masses(np.array(mass))


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50).filter(lambda m: sum(m) > 0))
def test_quantised_masses_keep_every_symbol_and_the_sum(mass: list[float]) -> None:
    counts = quantise_masses(np.array(mass))
    share = np.array(mass) / sum(mass) * TOTAL
    assert counts.min() >= 1 and counts.sum() == TOTAL and np.abs(counts - share).max() <= len(mass) + 2


def test_tables_survive_storage() -> None:
    tables = gaussian_tables([0.5, 3.0])
    again = Tables.from_state(tables.state("t"), "t")  # type: ignore[arg-type]
    assert all(np.array_equal(getattr(tables, k), getattr(again, k)) for k in ("cdf", "start", "low"))
