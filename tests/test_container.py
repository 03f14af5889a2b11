"""What the .lpz container promises: exact round trips, few bytes, typed errors for any bytes, and files that are whole or not there."""

from __future__ import annotations

import errno
import io
import os
import pickle
import random
import re
import resource
import secrets
import signal
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress import container
from latentpress.codecs.base import Chunk, Encoded
from latentpress.container import DTYPES, HEADER_MAX, SHORT_NAMES, Limits, read, read_chunk, read_header, rescue, write, write_file
from latentpress.errors import ChecksumError, FormatError, InputError, LimitError, UnsupportedError
from tests.hostile import EXTREMES, fields_of, mutations, parts_of, reseal, time_limit, varint, with_fields

NOISE = random.Random(20).randbytes(1 << 16)
DIGEST = bytes.fromhex("5d41402abc4b2a76")
OURS = (FormatError, LimitError, UnsupportedError)  # ChecksumError is a FormatError

PHOTO = Encoded(
    codec="walloc-rgb",
    digest=DIGEST,
    shape=(512, 768, 3),
    dtype="uint8",
    dims=("y", "x", "band"),
    parameters={"level": 200},
    chunks=(Chunk(payload=NOISE[:40]),),
)
TILED = replace(
    PHOTO,
    codec="grid",
    digest=b"",
    dtype="uint16",
    parameters={"level": 3, "halo": 4, "tile": 256},
    chunks=tuple(Chunk(payload=NOISE[100 * i : 100 * i + 6 + i], position=(i // 3, i % 3) if i else ()) for i in range(6)),
)
METADATA = {"icc": NOISE[:9], "exif": b"", "text": b'{"a": 1}'}
SMALL, LARGE = write(PHOTO), write(TILED, metadata=METADATA)
FILES = pytest.mark.parametrize("blob", [SMALL, write(PHOTO, metadata=METADATA), LARGE], ids=["photo", "metadata", "tiled"])


# ---- round trips and size ----

WIDE = Limits(pixels=1 << 600, samples=1 << 600)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=16)  # at most 64 bytes
numbers = st.integers(0, 300) | st.integers(0, 2**63 - 1)
keys = st.from_regex(r"[!-~]{1,64}", fullmatch=True).filter(lambda key: key != "data")


@st.composite
def encodeds(draw: st.DrawFn) -> Encoded:
    dims = draw(st.just(("y", "x", "band")) | st.lists(texts, max_size=8, unique=True).map(tuple))
    rank = draw(st.integers(1, 8))
    positions = draw(st.sets(st.tuples(*[numbers] * rank).filter(any), max_size=6))
    origin = [()] if draw(st.booleans()) or not positions else []
    return Encoded(
        codec=draw(st.sampled_from(sorted(SHORT_NAMES.values())) | texts),
        digest=draw(st.sampled_from([b"", DIGEST])),
        shape=tuple(draw(st.integers(1, 2**63 - 1) | st.integers(1, 400)) for _ in dims),
        dtype=draw(st.sampled_from(DTYPES)),
        dims=dims,
        parameters=draw(st.dictionaries(st.just("level") | texts, numbers, max_size=5)),
        chunks=tuple(Chunk(payload=draw(st.binary(max_size=300)), position=position) for position in [*origin, *sorted(positions)]),
    )


@settings(max_examples=150, deadline=None)
@given(encodeds(), st.dictionaries(keys, st.binary(max_size=200), max_size=4))
def test_what_is_written_is_read(encoded, metadata):
    blob = write(encoded, metadata=metadata)
    file = read(blob, limits=WIDE)
    assert (file.encoded, file.metadata, file.damage) == (encoded, metadata, ())
    assert read(blob, limits=WIDE, partial=True) == file
    assert write(file.encoded, metadata=file.metadata) == blob


@settings(max_examples=50, deadline=None)
@given(encodeds(), st.dictionaries(keys, st.binary(max_size=200), max_size=4))
def test_header_and_single_chunks_are_read_without_the_rest(encoded, metadata):
    blob = write(encoded, metadata=metadata)
    header = read_header(blob[:HEADER_MAX], limits=WIDE)
    for name in ("codec", "digest", "shape", "dtype", "dims", "parameters"):
        assert getattr(header, name) == getattr(encoded, name)
    for chunk in encoded.chunks:
        assert read_chunk(blob, chunk.position, limits=WIDE) == chunk
        assert read_chunk(io.BytesIO(blob), chunk.position, limits=WIDE) == chunk


@pytest.mark.parametrize("size", [10_000, 60_000])
@pytest.mark.parametrize("level", [0, 127, 128, 16383])
@pytest.mark.parametrize("codec", sorted(SHORT_NAMES.values()))
def test_one_photograph_costs_at_most_40_bytes_besides_its_payload(codec, level, size):
    blob = write(replace(PHOTO, codec=codec, parameters={"level": level}, chunks=(Chunk(payload=NOISE[:size]),)))
    assert len(blob) - size <= 40
    assert read(blob).overhead == len(blob) - size


def test_the_chunk_table_says_where_everything_stands():
    file = read(LARGE)
    assert [entry.kind for entry in file.chunk_table] == ["exif", "icc", "text"] + ["data"] * 6
    payload = 0
    for entry, after in zip(file.chunk_table, [*[e.offset for e in file.chunk_table[1:]], None], strict=True):
        assert after is None or entry.offset + entry.length == after
    for chunk, entry in zip(file.encoded.chunks, file.chunk_table[3:], strict=True):
        assert LARGE[entry.offset : entry.offset + entry.length].endswith(chunk.payload)
        assert entry.position == chunk.position
        payload += len(chunk.payload)
    assert file.overhead == len(LARGE) - payload - sum(map(len, METADATA.values()))


def test_an_all_zero_position_is_the_origin():
    zeros = replace(PHOTO, chunks=(Chunk(payload=b"a", position=(0, 0)), Chunk(payload=b"b", position=(0, 1))))
    blob = write(zeros)
    assert [chunk.position for chunk in read(blob).encoded.chunks] == [(), (0, 1)]
    assert read_chunk(blob, (0, 0)) == read_chunk(blob, ()) == Chunk(payload=b"a")


def test_any_buffer_can_be_read():
    assert read(bytearray(LARGE)) == read(memoryview(bytearray(LARGE))) == read(memoryview(LARGE)) == read(LARGE)


def test_short_codes_never_change():
    assert {1: "walloc-rgb", 2: "walloc-rgb-16x", 3: "walloc-rgb-4x"}.items() <= SHORT_NAMES.items()


def test_a_name_with_a_short_code_may_be_spelt_out():
    (_, identity), *rest = fields_of(SMALL)
    assert identity == DIGEST + b"\x01"
    assert read(with_fields(SMALL, [(2, DIGEST + b"walloc-rgb"), *rest])).encoded == PHOTO


def test_the_container_loads_neither_torch_nor_a_codec():
    code = "import sys, latentpress.container; print([m for m in sys.modules if m == 'torch' or m.startswith('latentpress.codecs.')])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    plain = "['latentpress.codecs.base', 'latentpress.codecs.varint']"  # what a codec is, and how numbers are written: no codec itself
    assert done.stdout.strip() == plain


# ---- hostile bytes ----


def survives(blob: bytes) -> None:
    """Reading ends in an error of ours, or in a file that is written and read again without a change; so does partial reading."""
    with time_limit(5.0):
        try:
            file = read(blob)
        except OURS:
            with suppress(*OURS):
                assert read(blob, partial=True).damage
        else:
            assert read(write(file.encoded, metadata=file.metadata)).encoded == file.encoded
            assert read(blob, partial=True) == file


@FILES
def test_every_flipped_bit_is_noticed(blob):
    for bit in range(8 * len(blob)):
        bad = bytearray(blob)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(OURS):
            read(bad)


@FILES
def test_behind_right_checksums_every_flipped_bit_is_survived(blob):
    for bit in range(8 * len(blob)):
        bad = bytearray(blob)
        bad[bit // 8] ^= 1 << bit % 8
        survives(reseal(bad))


@FILES
def test_every_cut_is_noticed_and_gives_what_is_whole(blob):
    whole = read(blob)
    for size in range(len(blob)):
        with pytest.raises(FormatError):
            read(blob[:size])
        if size < read_header(blob).size:
            with pytest.raises(FormatError):
                read(blob[:size], partial=True)
            continue
        rest = read(blob[:size], partial=True)
        complete = [entry for entry in whole.chunk_table if entry.offset + entry.length <= size]
        assert rest.chunk_table == complete
        assert rest.damage


READERS = {
    "read": read,
    "partial": lambda blob: read(blob, partial=True),
    "memory": lambda blob: read_chunk(blob, ()),
    "file": lambda blob: read_chunk(io.BytesIO(blob), (1, 1)),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_thousands_of_mutations_end_in_our_errors(reader):
    results = {"read": 0, "refused": 0}
    for blob in (SMALL, LARGE):
        for bad in mutations(blob, 1500, seed=len(blob)):
            with time_limit(5.0):
                try:
                    reader(bad)
                    results["read"] += 1
                except OURS:
                    results["refused"] += 1
                except InputError as error:
                    assert "no chunk has position" in str(error)
    assert results["refused"] > 500


def test_mutations_are_the_same_for_the_same_seed_and_half_pass_the_checksums():
    first = list(mutations(LARGE, 400, seed=1))
    assert first == list(mutations(LARGE, 400, seed=1)) != list(mutations(LARGE, 400, seed=2))
    assert sum(bad != LARGE for bad in first) > 380
    assert len(set(first)) > 350
    assert all(bad == reseal(bad) for bad in first[1::2])


def test_reseal_leaves_a_healthy_file_as_it_is_and_heals_every_checksum():
    assert reseal(LARGE) == LARGE
    bad = bytearray(LARGE)
    parts = parts_of(LARGE)
    places = [parts.header - 4, *[crc for _, crc, _ in parts.chunks], parts.index[1] - 4]
    for at in places:
        bad[at] ^= 0xFF
    assert reseal(bad) == LARGE


def refused(blob: bytes, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        read(blob)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_a_size_that_no_data_backs_reserves_nothing():
    for blob in (SMALL, LARGE):
        for start, stop in parts_of(blob).numbers:
            for extreme in (*EXTREMES, 2**63, 2**70):
                bad = reseal(blob[:start] + varint(extreme) + blob[stop:])
                tracemalloc.start()
                try:
                    survives(bad)
                    peak = tracemalloc.get_traced_memory()[1]
                finally:
                    tracemalloc.stop()
                assert peak < 1 << 18, f"{peak} bytes for {extreme} at byte {start}"


@pytest.mark.parametrize("bad", [
    SMALL[:4] + b"\x96\x00" + SMALL[5:],
    SMALL[:4] + b"\x17\x82\x00" + SMALL[6:],
    SMALL[:4] + b"\x17\x02\x89\x00" + SMALL[7:],
    with_fields(SMALL, [(t, v[:-1] + b"\x83\x00" if t == 6 else v) for t, v in fields_of(SMALL)]),
    with_fields(SMALL, [(t, b"\x83\x80\x00" if t == 12 else v) for t, v in fields_of(SMALL)]),
    SMALL[:32] + b"\xa8\x00" + SMALL[33:],
], ids=["header-length", "tag", "field-length", "axis", "level", "chunk-length"])  # fmt: skip
def test_an_overlong_number_is_refused(bad):
    refused(reseal(bad), FormatError, "longer than needed")


def test_a_number_has_at_most_nine_bytes():
    fields = [(t, b"\x01" if t == 12 else v) for t, v in fields_of(SMALL)]
    longest = with_fields(SMALL, [*fields[:-1], (12, varint(2**63 - 1))])
    assert read(longest).encoded.parameters == {"level": 2**63 - 1}
    refused(with_fields(SMALL, [*fields[:-1], (12, varint(2**63))]), FormatError, "more than 9 bytes")
    refused(with_fields(SMALL, [*fields[:-1], (12, b"\xff" * 40)]), FormatError, "more than 9 bytes")


IDENTITY, SHAPE = (2, DIGEST + b"\x01"), (6, varint(512) + varint(768) + b"\x03")
RULES = {
    "field-twice": ([IDENTITY, SHAPE, SHAPE], FormatError, "field 6 after field 6"),
    "fields-out-of-order": ([SHAPE, IDENTITY], FormatError, "field 2 after field 6"),
    "two-names": ([IDENTITY, (4, b"\x01"), SHAPE], FormatError, "names the codec"),
    "no-name": ([SHAPE], FormatError, "names the codec"),
    "no-shape": ([IDENTITY], FormatError, "shape is missing"),
    "short-digest": ([(2, DIGEST[:7]), SHAPE], FormatError, "needs 8 bytes"),
    "digest-without-name": ([(2, DIGEST), SHAPE], FormatError, "name is not"),
    "empty-name": ([(4, b""), SHAPE], FormatError, "name is not"),
    "long-name": ([(4, b"n" * 65), SHAPE], FormatError, "name is not"),
    "control-in-name": ([(4, b"a\nb"), SHAPE], FormatError, "name is not"),
    "delete-in-name": ([(4, b"a\x7f"), SHAPE], FormatError, "name is not"),
    "name-no-utf8": ([(4, b"\xed\xa0\x80"), SHAPE], FormatError, "not UTF-8"),
    "unknown-short-code": ([(2, DIGEST + b"\x1f"), SHAPE], UnsupportedError, "number 31"),
    "short-code-0": ([(4, b"\x00"), SHAPE], UnsupportedError, "number 0"),
    "unknown-even-tag": ([IDENTITY, SHAPE, (18, b"")], UnsupportedError, "field 18"),
    "no-metadata-counted": ([IDENTITY, SHAPE, (16, b"\0")], FormatError, "at least 1"),
    "tag-0": ([(0, b""), IDENTITY, SHAPE], UnsupportedError, "field 0"),
    "axis-of-0": ([IDENTITY, (6, b"\x01\x00\x03")], FormatError, "at least 1"),
    "nine-axes": ([IDENTITY, (6, b"\x01" * 9)], FormatError, "at most 8"),
    "two-axes-without-dims": ([IDENTITY, (6, b"\x01\x01")], FormatError, "3 axis names for 2"),
    "no-axes-without-dims": ([IDENTITY, (6, b"")], FormatError, "3 axis names for 0"),
    "dims-repeat": ([IDENTITY, (6, b"\x01\x01"), (8, b"\x01y\x01y")], FormatError, "twice"),
    "dims-cut": ([IDENTITY, (6, b"\x01\x01"), (8, b"\x01y\x02x")], FormatError, "needs 2 bytes"),
    "unknown-dtype": ([IDENTITY, SHAPE, (10, b"float16")], UnsupportedError, "float16"),
    "object-dtype": ([IDENTITY, SHAPE, (10, b"O")], UnsupportedError, "'O'"),
    "empty-level": ([IDENTITY, SHAPE, (12, b"")], FormatError, "needs 1 bytes"),
    "two-levels": ([IDENTITY, SHAPE, (12, b"\x01\x01")], FormatError, "after the level"),
    "parameter-twice": ([IDENTITY, SHAPE, (14, b"\x01a\x01\x01a\x02")], FormatError, "'a'"),
    "parameters-out-of-order": ([IDENTITY, SHAPE, (14, b"\x01b\x01\x01a\x02")], FormatError, "'a'"),
    "level-among-others": ([IDENTITY, SHAPE, (14, b"\x05level\x01")], FormatError, "own field"),
    "parameter-without-value": ([IDENTITY, SHAPE, (14, b"\x01a")], FormatError, "needs 1 bytes"),
    "long-header": ([IDENTITY, SHAPE, (15, bytes(4096))], FormatError, "holds 4096"),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
def test_a_header_that_breaks_a_rule_is_refused(case):
    fields, error, match = RULES[case]
    refused(with_fields(SMALL, fields), error, match)


def test_an_unknown_odd_field_is_skipped():
    fields = sorted([*fields_of(SMALL), (3, b""), (7, b"future"), (2**62 + 1, b"far away")])
    assert read(with_fields(SMALL, fields)).encoded == PHOTO


def test_defaults_may_be_spelt_out():
    assert read(with_fields(SMALL, sorted([*fields_of(SMALL), (8, b"\x01y\x01x\x04band"), (10, b"uint8"), (14, b"")]))).encoded == PHOTO


def chunk(kind: bytes, payload: bytes = b"", *, of: bytes = SMALL) -> bytes:
    """A sealed chunk for the header of `of`; kind: type and what belongs to it."""
    frame = kind + varint(len(payload))
    seed = google_crc32c.value(of[: parts_of(of).header - 4])
    return frame + google_crc32c.extend(google_crc32c.extend(seed, frame), payload).to_bytes(4, "little") + payload


HEAD, DATA = SMALL[: parts_of(SMALL).header], chunk(b"\x01", b"data")
SEQUENCES = {
    "nothing": ([], FormatError, "without an end mark"),
    "no-data-chunk": ([b"\0"], FormatError, "no data chunk"),
    "metadata-only": ([chunk(b"\x10\x03icc"), b"\0"], FormatError, "no data chunk"),
    "no-end-mark": ([DATA], FormatError, "without an end mark"),
    "bytes-after-the-end": ([DATA, b"\0\0"], FormatError, "1 bytes after the end mark"),
    "second-file-after-the-end": ([DATA, b"\0", SMALL], FormatError, "after the end mark"),
    "index-of-one-chunk": ([DATA, b"\0", bytes(14)], FormatError, "14 bytes after the end mark"),
    "two-chunks-no-index": ([DATA, chunk(b"\x02\x01\x01"), b"\0"], FormatError, "0 bytes after the end mark"),
    "origin-twice": ([DATA, DATA, b"\0"], FormatError, "rising positions"),
    "position-twice": ([chunk(b"\x02\x01\x05"), chunk(b"\x02\x01\x05"), b"\0"], FormatError, "rising positions"),
    "positions-fall": ([chunk(b"\x02\x01\x06"), chunk(b"\x02\x01\x05"), b"\0"], FormatError, "rising positions"),
    "origin-later": ([chunk(b"\x02\x01\x06"), DATA, b"\0"], FormatError, "rising positions"),
    "positions-of-two-lengths": ([chunk(b"\x02\x01\x01"), chunk(b"\x02\x02\x01\x02"), b"\0"], FormatError, "rising positions"),
    "origin-as-position": ([chunk(b"\x02\x02\x00\x00"), b"\0"], FormatError, "origin is stored"),
    "position-of-nothing": ([chunk(b"\x02\x00"), b"\0"], FormatError, "origin is stored"),
    "position-of-nine": ([chunk(b"\x02\x09" + b"\x01" * 9), b"\0"], FormatError, "holds 8"),
    "metadata-twice": ([chunk(b"\x10\x01a"), chunk(b"\x10\x01b"), chunk(b"\x10\x01a"), DATA, b"\0"], FormatError, "'a' at byte .* twice"),
    "key-data": ([chunk(b"\x10\x04data"), DATA, b"\0"], FormatError, "metadata key 'data'"),
    "key-empty": ([chunk(b"\x10\x00"), DATA, b"\0"], FormatError, "name is not"),
    "key-space": ([chunk(b"\x10\x03a b"), DATA, b"\0"], FormatError, "metadata key 'a b'"),
    "key-not-ascii": ([chunk(b"\x10\x02\xc3\xa9"), DATA, b"\0"], FormatError, "metadata key"),
    "unknown-type": ([chunk(b"\x03"), DATA, b"\0"], UnsupportedError, "chunk type 3"),
    "type-128": ([chunk(b"\x80"), DATA, b"\0"], UnsupportedError, "chunk type 128"),
    "length-past-the-end": ([b"\x01" + varint(2**62) + bytes(4)], FormatError, "4611686018427387904 bytes of payload, 0 are left"),
}  # fmt: skip


@pytest.mark.parametrize("case", SEQUENCES)
def test_chunks_that_break_a_rule_are_refused(case):
    parts, error, match = SEQUENCES[case]
    refused(HEAD + b"".join(parts), error, match)
    survives(HEAD + b"".join(parts))


def test_metadata_may_stand_anywhere():
    blob = write(PHOTO, metadata={"a": b"1", "b": b"2"})
    parts = parts_of(blob)
    a, b, data = (blob[start:stop] for start, _, stop in parts.chunks)
    assert read(blob[: parts.header] + b + data + a + b"\0").metadata == {"a": b"1", "b": b"2"}


def test_a_metadata_chunk_that_is_gone_is_noticed():
    blob = write(PHOTO, metadata={"a": b"1", "b": b"2"})
    parts = parts_of(blob)
    start, _, stop = parts.chunks[0]
    bad = blob[:start] + blob[stop:]
    refused(bad, FormatError, "1 metadata chunks, the header counts 2")
    assert read(bad, partial=True).damage == ("1 metadata chunks, the header counts 2",)


def test_a_chunk_of_another_file_is_noticed():
    other = write(replace(PHOTO, parameters={"level": 201}))
    refused(SMALL[: parts_of(SMALL).header] + other[parts_of(other).header :], ChecksumError, "chunk at the origin")


def test_swapped_chunks_are_noticed():
    parts = parts_of(LARGE)
    chunks = [LARGE[start:stop] for start, _, stop in parts.chunks]
    chunks[-1], chunks[-2] = chunks[-2], chunks[-1]
    bad = LARGE[: parts.header] + b"".join(chunks) + LARGE[parts.chunks[-1][2] :]
    refused(bad, FormatError, r"chunk \(1, 1\) at byte \d+ follows chunk \(1, 2\)")


def test_payloads_swapped_between_places_are_noticed():
    same = replace(TILED, chunks=tuple(replace(c, payload=c.payload[:6]) for c in TILED.chunks))
    blob = write(same)
    (*_, first, second), size = parts_of(blob).chunks, 6
    bad = bytearray(blob)
    for (_, _, here), (_, _, there) in ((first, second), (second, first)):
        bad[here - size : here] = blob[there - size : there]
    refused(bytes(bad), ChecksumError, "chunk")


def test_a_checksum_error_says_where_and_survives_pickling():
    bad = bytearray(SMALL)
    bad[-2] ^= 1
    with pytest.raises(ChecksumError) as caught:
        read(bad)
    assert (caught.value.part, caught.value.offset) == ("chunk at the origin", 31)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_index_that_lies_is_noticed():
    start, stop = parts_of(LARGE).index
    for at in range(start, stop - 4):
        for other in {0, 1, 127, LARGE[at] ^ 1} - {LARGE[at]}:
            bad = reseal(LARGE[:at] + bytes([other]) + LARGE[at + 1 :])
            refused(bad, FormatError, "disagrees")
            wrong = {read_or_none(bad, chunk.position) for chunk in TILED.chunks} - set(TILED.chunks)
            assert wrong <= {None}, "read_chunk believed an index that lies"


def with_index(body: bytes) -> bytes:
    """LARGE with another index, sealed."""
    return reseal(LARGE[: parts_of(LARGE).index[0]] + body + bytes(4) + (len(body) + 4).to_bytes(4, "little"))


INDEX = LARGE[slice(*parts_of(LARGE).index)][:-4]  # 6 chunks, 2 numbers a position


NO_INDEX = {
    "empty": b"",
    "count-only": b"\x06",
    "cut": INDEX[:-1],
    "byte-more": INDEX + b"\0",
    "one-more": b"\x07" + INDEX[1:],
    "many-more": varint(2**19) + INDEX[1:],
    "long-positions": b"\x06" + varint(2**62) + INDEX[2:],
    "past-end": INDEX[:-1] + b"\x7f",
    "far-past-end": INDEX[:-1] + varint(2**62),
    "overlong": b"\x06\x82\x00" + INDEX[2:],
}


@pytest.mark.parametrize("body", NO_INDEX.values(), ids=NO_INDEX)
def test_an_index_that_is_none_is_refused_and_not_used(body):
    bad = with_index(body)
    refused(bad, FormatError, "index")
    assert [read_chunk(bad, chunk.position) for chunk in TILED.chunks] == list(TILED.chunks)
    in_part = read(bad, partial=True)
    assert in_part.encoded == TILED and in_part.damage


def test_random_access_compares_a_chunk_with_the_index():
    short = with_index(INDEX[:-1] + bytes([INDEX[-1] - 1]))
    assert read_chunk(short, (1, 1)) == TILED.chunks[4]
    with pytest.raises(FormatError, match="disagrees"):
        read_chunk(short, (1, 2))


def test_a_damaged_index_is_told_from_one_that_lies():
    bad = bytearray(LARGE)
    bad[parts_of(LARGE).index[0]] ^= 1
    refused(bytes(bad), ChecksumError, "index at byte")


def read_or_none(blob: bytes, position: tuple[int, ...]) -> Chunk | None:
    try:
        return read_chunk(blob, position)
    except (*OURS, InputError):
        return None


def test_the_length_of_the_index_is_checked():
    for other in (0, 4, 13, 2**32 - 1):
        refused(LARGE[:-4] + other.to_bytes(4, "little"), FormatError, "index")


@pytest.mark.parametrize("bad, match", [
    (b"", "not an .lpz file: it is empty"),
    (b"\x89PNG\r\n\x1a\n", "not an .lpz file"),
    (b"LPX\0", "not an .lpz file"),
    (b"LP", "needs 3 bytes, 2 are there"),
    (SMALL[:4], "needs 1 bytes, 0 are there"),
    (SMALL[:20], "the header has 31 bytes, only 20 are there"),
], ids=["empty", "png", "wrong-magic", "two-bytes", "four-bytes", "twenty-bytes"])  # fmt: skip
def test_what_is_no_header_is_said(bad, match):
    with pytest.raises(FormatError, match=match):
        read_header(bad)
    refused(bad, FormatError, match)


def test_a_later_version_is_refused_before_anything_else():
    refused(b"LPZ\x01" + SMALL[4:], UnsupportedError, "version 1: .* install a newer")


def test_the_header_of_no_file_is_longer_than_header_max():
    parameters = {"level": 2**63 - 1} | {f"{i:02d}" + "p" * 50: 2**63 - 1 for i in range(64)}
    blob = write(replace(PHOTO, parameters=parameters))
    assert 3900 < read_header(blob[:HEADER_MAX]).size <= HEADER_MAX
    with pytest.raises(InputError, match="holds 4096"):
        write(replace(PHOTO, parameters=parameters | {f"{i}" * 60: 1 for i in range(10)}))


# ---- damaged files, read in part ----


@FILES
@pytest.mark.parametrize("fill", [0x00, 0xFF, None])
def test_a_damaged_byte_costs_one_chunk(blob, fill):
    whole = read(blob)
    lengths = read_header(blob).size, whole.chunk_table[-1].offset + whole.chunk_table[-1].length
    for at in range(*lengths):
        bad = bytearray(blob)
        bad[at] = blob[at] ^ 0x55 if fill is None else fill
        if bad == blob:
            continue
        hit = next(e for e in whole.chunk_table if e.offset <= at < e.offset + e.length)
        file = read(bad, partial=True)
        assert file.chunk_table == [e for e in whole.chunk_table if e != hit]
        assert set(file.encoded.chunks) == {c for c in whole.encoded.chunks if hit.kind != "data" or c.position != hit.position}
        assert file.metadata == {k: v for k, v in whole.metadata.items() if k != hit.kind}
        assert any(f"bytes {hit.offset} to " in line for line in file.damage)


def test_damage_names_position_and_bytes():
    entry = next(e for e in read(LARGE).chunk_table if e.position == (1, 1))
    bad = bytearray(LARGE)
    bad[entry.offset + 10] ^= 1
    file = read(bad, partial=True)
    assert file.damage == (f"chunk (1, 1), bytes {entry.offset} to {entry.offset + entry.length - 1}: damaged, left out",)


def test_a_damaged_payload_of_the_only_chunk_is_all_that_is_said():
    bad = bytearray(SMALL)
    bad[-2] ^= 1
    assert read(bad, partial=True).damage == (f"chunk at the origin, bytes 31 to {len(SMALL) - 2}: damaged, left out",)


def test_a_chunk_inside_a_damaged_payload_is_no_chunk():
    inner = chunk(b"\x10\x03icc", b"false")
    chunks = (Chunk(payload=b"x" + inner + b"x"), Chunk(payload=b"after", position=(1,)))
    blob = write(replace(PHOTO, chunks=chunks))
    assert inner in blob
    bad = bytearray(blob)
    bad[blob.index(inner) - 1] ^= 1
    file = read(bad, partial=True)
    assert (file.metadata, file.encoded.chunks) == ({}, chunks[1:])
    bad[parts_of(blob).chunks[0][0]] = 0x7F  # its type: the frame says nothing any more
    file = read(bad, partial=True)
    assert (file.metadata, file.encoded.chunks) == ({}, chunks[1:])


def test_neighbours_lost_together_are_both_named():
    table = read(LARGE).chunk_table
    bad = bytearray(LARGE)
    for entry in table[4:7]:
        bad[entry.offset : entry.offset + entry.length] = bytes(entry.length)
    file = read(bad, partial=True)
    assert list(file.damage) == [
        f"chunk {e.position}, bytes {e.offset} to {e.offset + e.length - 1}: damaged, left out" for e in table[4:7]
    ]
    assert file.chunk_table == table[:4] + table[7:]


def test_a_damaged_index_costs_no_chunk():
    start, stop = parts_of(LARGE).index
    for at in range(start, stop + 4):
        bad = bytearray(LARGE)
        bad[at] ^= 0x10
        file = read(bad, partial=True)
        assert file.encoded == TILED
        assert file.damage
        assert read_chunk(bad, (1, 1)) == TILED.chunks[4], "without its index the file is walked"


def test_without_index_whole_chunks_are_found_behind_damage():
    table = read(LARGE).chunk_table
    bad = bytearray(LARGE[: table[-1].offset + table[-1].length])
    bad[table[4].offset] = 0x7F
    assert read(bad, partial=True).chunk_table == table[:4] + table[5:]


def test_partial_reading_keeps_the_rules_between_chunks():
    file = read(HEAD + DATA + chunk(b"\x02\x01\x02", b"2") + chunk(b"\x02\x01\x01", b"1") + chunk(b"\x10\x01a") * 2 + b"\0", partial=True)
    assert [c.payload for c in file.encoded.chunks] == [b"data", b"2"]
    assert len(file.damage) == 2


def test_a_damaged_header_is_an_error_also_in_part():
    for at in range(read_header(LARGE).size):
        bad = bytearray(LARGE)
        bad[at] ^= 0x40
        with pytest.raises((FormatError, UnsupportedError)):
            read(bad, partial=True)


def test_partial_reading_does_bounded_work(monkeypatch):
    """Whole chunks between frames that claim most of the file: each claim would be checksummed to its end."""
    claim = b"\x01" + varint(100_000) + bytes(4)
    blob = HEAD + b"".join(claim + chunk(b"\x10\x04%04d" % i) for i in range(2000)) + bytes(100_000)
    summed, real = 0, google_crc32c.extend

    def extend(crc: int, data: bytes) -> int:
        nonlocal summed
        summed += len(data)
        return real(crc, data)

    monkeypatch.setattr(google_crc32c, "extend", extend)
    assert len(read(blob, partial=True).metadata) == 2000
    assert summed > 1 << 27
    monkeypatch.setattr(rescue, "RESCUE_BYTES", 1 << 23)
    summed = 0
    assert 50 < len(read(blob, partial=True).metadata) < 2000
    assert summed < 4 * len(blob) + (1 << 23) + 100_000
    monkeypatch.setattr(rescue, "RESCUE_PLACES", 10)
    assert len(read(blob, partial=True).metadata) <= 10


# ---- limits ----


@pytest.mark.parametrize("limits, match", [
    (Limits(pixels=512 * 768 - 1), "393216 pixels, the limit is 393215; raise Limits.pixels"),
    (Limits(samples=512 * 768 * 3 - 1), "samples"),
    (Limits(chunks=8), "chunks"),
    (Limits(metadata_bytes=16), "metadata"),
    (Limits(file_bytes=len(LARGE) - 1), "bytes, the limit"),
])  # fmt: skip
@pytest.mark.parametrize("partial", [False, True])
def test_a_limit_holds_and_can_be_raised(limits, match, partial):
    with pytest.raises(LimitError, match=match):
        read(LARGE, limits=limits, partial=partial)
    enough = Limits(pixels=512 * 768, samples=512 * 768 * 3, chunks=9, metadata_bytes=17, file_bytes=len(LARGE))
    assert read(LARGE, limits=enough, partial=partial).encoded == TILED


def test_bands_count_as_samples_not_as_pixels():
    wide = write(replace(PHOTO, shape=(2, 3, 1000)))
    assert read(wide, limits=Limits(pixels=6)).encoded.shape == (2, 3, 1000)
    with pytest.raises(LimitError, match="6000 samples"):
        read_header(wide, limits=Limits(samples=5999))


def test_random_access_obeys_limits():
    with pytest.raises(LimitError, match="chunks"):
        read_chunk(LARGE, (1, 1), limits=Limits(chunks=5))
    with pytest.raises(LimitError, match="chunks"):
        read_chunk(LARGE[:-1], (1, 2), limits=Limits(chunks=5))


# ---- random access ----


class Counted(io.BytesIO):
    """A file that counts what is read, and gives at most 1000 bytes at a time."""

    taken = 0

    def read(self, size=-1):
        data = super().read(min(size, 1000))
        self.taken += len(data)
        return data


def test_random_access_reads_little_of_a_large_file():
    chunks = tuple(Chunk(payload=NOISE[i : i + 5000], position=(i,) if i else ()) for i in range(300))
    file = Counted(write(replace(PHOTO, chunks=chunks)))
    assert read_chunk(file, (77,)) == chunks[77]
    assert file.taken < HEADER_MAX + 2 * 300 * 6 + 5000 + 500


def test_a_position_that_is_not_there_is_said():
    for blob in (SMALL, LARGE):
        with pytest.raises(InputError, match=r"no chunk has position \(7, 7\)"):
            read_chunk(blob, (7, 7))


def test_random_access_checks_the_chunk():
    for blob, position in ((SMALL, ()), (LARGE, (1, 2))):
        bad = bytearray(blob)
        bad[parts_of(blob).chunks[-1][2] - 1] ^= 1
        with pytest.raises(ChecksumError):
            read_chunk(bad, position)


# ---- what cannot be written ----


@pytest.mark.parametrize("change, match", [
    ({"digest": b"123"}, "digest of 3 bytes"),
    ({"codec": ""}, "codec name"),
    ({"codec": "x" * 65}, "codec name"),
    ({"codec": "a\nb"}, "codec name"),
    ({"codec": "\ud800"}, "codec name"),
    ({"shape": (512, 0, 3)}, "shape"),
    ({"shape": (1,) * 9, "dims": tuple("abcdefghi")}, "shape"),
    ({"shape": (512, 768)}, "dims"),
    ({"dims": ("y", "y", "band")}, "dims"),
    ({"dims": ("y", "", "band")}, "axis name"),
    ({"dtype": "float16"}, "dtype='float16'"),
    ({"parameters": {"level": -1}}, "-1 cannot be stored"),
    ({"parameters": {"tile": 2**63}}, "9223372036854775808 cannot be stored"),
    ({"parameters": {"": 1}}, "parameter name"),
    ({"chunks": ()}, "no data chunk"),
    ({"chunks": (Chunk(payload=b"", kind="icc"),)}, "kind 'icc'"),
    ({"chunks": (Chunk(payload=b"", position=(-1,)),)}, "-1 cannot be stored"),
    ({"chunks": (Chunk(payload=b"", position=(1,) * 9),)}, "positions"),
    ({"chunks": (Chunk(payload=b""), Chunk(payload=b"", position=(0, 0)))}, "rising"),
    ({"chunks": (Chunk(payload=b"", position=(2,)), Chunk(payload=b"", position=(1,)))}, "rising"),
    ({"chunks": (Chunk(payload=b"", position=(1,)), Chunk(payload=b"", position=(1, 2)))}, "different lengths"),
])  # fmt: skip
def test_what_the_format_cannot_hold_is_refused(change, match):
    with pytest.raises(InputError, match=match):
        write(replace(PHOTO, **change))


@pytest.mark.parametrize("key", ["", "data", "a b", "é", "a\n", "k" * 65])
def test_a_metadata_key_that_cannot_be_read_is_refused(key):
    with pytest.raises(InputError, match="metadata key"):
        write(PHOTO, metadata={key: b""})


# ---- files on disk ----


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole(tmp_path):
    write_file(tmp_path / "a.lpz", LARGE)
    assert (tmp_path / "a.lpz").read_bytes() == LARGE
    assert left_over(tmp_path) == ["a.lpz"]


def test_a_file_that_exists_stays_unless_overwriting_is_allowed(tmp_path):
    path = tmp_path / "a.lpz"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="exists: choose another name, or allow overwriting"):
        write_file(path, LARGE)
    assert path.read_bytes() == b"old"
    path.chmod(0o640)
    write_file(path, LARGE, overwrite=True)
    assert path.read_bytes() == LARGE
    assert path.stat().st_mode & 0o777 == 0o640
    assert left_over(tmp_path) == ["a.lpz"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    write_file(tmp_path / "a.lpz", SMALL)
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a.lpz").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_that_exists_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "a.lpz").write_bytes(b"old")
    monkeypatch.setattr(os, "open", None)
    with pytest.raises(InputError, match="exists"):
        write_file(tmp_path / "a.lpz", LARGE)


def no_links(*_):
    raise OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("link", [os.link, no_links], ids=["links", "no-links"])
def test_a_file_that_appears_meanwhile_stays(tmp_path, monkeypatch, link):
    path, fsync = tmp_path / "a.lpz", os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (path.write_bytes(b"theirs"), fsync(handle)))
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(InputError, match="exists: choose another name"):
        write_file(path, SMALL)
    assert path.read_bytes() == b"theirs"
    assert left_over(tmp_path) == ["a.lpz"]


def test_a_temporary_file_of_another_process_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda size: "same")
    (tmp_path / ".lpz-same.tmp").write_bytes(b"theirs")
    with pytest.raises(InputError):
        write_file(tmp_path / "a.lpz", SMALL)
    assert (tmp_path / ".lpz-same.tmp").read_bytes() == b"theirs"
    assert left_over(tmp_path) == [".lpz-same.tmp"]


def test_file_systems_without_hard_links_are_written_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    write_file(tmp_path / "a.lpz", SMALL)
    assert (tmp_path / "a.lpz").read_bytes() == SMALL
    assert left_over(tmp_path) == ["a.lpz"]


def test_behind_a_link_the_file_is_replaced(tmp_path):
    (tmp_path / "real.lpz").write_bytes(b"old")
    (tmp_path / "link.lpz").symlink_to("real.lpz")
    write_file(tmp_path / "link.lpz", SMALL, overwrite=True)
    assert (tmp_path / "link.lpz").is_symlink()
    assert (tmp_path / "real.lpz").read_bytes() == SMALL


BAD_PLACES = {"folder": ".", "missing": "missing/a.lpz", "file": "file/a.lpz", "long": "n" * 300, "zero": "zero\0byte"}


@pytest.mark.parametrize("name", BAD_PLACES.values(), ids=BAD_PLACES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path, name, overwrite):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        write_file(tmp_path / name, SMALL, overwrite=overwrite)
    assert "\n" not in str(caught.value) and tmp_path.name in str(caught.value)
    assert left_over(tmp_path) == ["file"]


def test_what_is_no_regular_file_is_never_replaced_by_one(tmp_path):
    """Devices, pipes, sockets. A pipe of the test's own: were the guard broken, a real device would be gone from the machine."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match="device"):
            write_file(tmp_path / name, SMALL, overwrite=True)
    assert (tmp_path / "pipe").is_fifo()


def test_file_and_folder_are_flushed_to_disk_in_this_order(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def record(handle: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), left_over(tmp_path)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    write_file(tmp_path / "a.lpz", SMALL)
    (file, before), (folder, after) = synced
    assert (os.path.dirname(file), folder) == (str(tmp_path), str(tmp_path))
    assert before == [os.path.basename(file)] and after == ["a.lpz"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.lpz"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match="No space left") as caught:
        write_file(path, LARGE, overwrite=True)
    monkeypatch.undo()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert left_over(tmp_path) == ["a.lpz"]


def test_an_interrupt_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a.lpz", SMALL)
    assert left_over(tmp_path) == []


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write_some = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write_some(handle, data[:7]))
    write_file(tmp_path / "a.lpz", LARGE)
    monkeypatch.undo()
    assert (tmp_path / "a.lpz").read_bytes() == LARGE


def run_child(code: str, *arguments: object, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-P", "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, **more)


def test_a_disk_that_the_system_calls_full_leaves_nothing(tmp_path):
    """A real refusal by the kernel: no file of the child may exceed 64 KiB."""
    code = """if True:
        import sys
        from latentpress.container import write_file
        from latentpress.errors import InputError
        try: write_file(sys.argv[1], bytes(1 << 20))
        except InputError as error: print(error)"""

    def allow_little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    child = run_child(code, tmp_path / "a.lpz", preexec_fn=allow_little)
    assert "was not written: File too large" in child.communicate(timeout=60)[0]
    assert left_over(tmp_path) == []


def test_a_tiny_file_system_that_is_full_leaves_what_was_there(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount")
    try:
        write_file(tmp_path / "a.lpz", SMALL)
        with pytest.raises(InputError, match="No space left"):
            write_file(tmp_path / "a.lpz", bytes(1 << 20), overwrite=True)
        assert (tmp_path / "a.lpz").read_bytes() == SMALL
        assert left_over(tmp_path) == ["a.lpz"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


STOP_AT = """
import os, sys, time
from latentpress.container import write_file

def stop(*arguments, **named):
    if call == "write":
        real(arguments[0], bytes(arguments[1][:1000]))
    print("here", flush=True)
    time.sleep(60)

call, path, overwrite = sys.argv[1:]
real = getattr(os, call)
setattr(os, call, stop)
write_file(path, bytes(1 << 20), overwrite=overwrite == "True")
"""


@pytest.mark.parametrize("call, overwrite", [("write", False), ("fsync", False), ("link", False), ("write", True), ("replace", True)])
def test_a_killed_process_leaves_no_part_of_a_file_at_the_final_name(tmp_path, call, overwrite):
    path = tmp_path / "a.lpz"
    if overwrite:
        path.write_bytes(b"old")
    with run_child(STOP_AT, call, path, overwrite) as child:
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    (temporary,) = set(left_over(tmp_path)) - {"a.lpz"}
    assert re.fullmatch(r"\.lpz-[0-9a-f]{16}\.tmp", temporary), "in the same folder, so that the rename is atomic"
    assert (path.read_bytes() if overwrite else path.exists()) == (b"old" if overwrite else False)
    write_file(path, SMALL, overwrite=overwrite)  # what the dead process left is in nobody's way
    assert path.read_bytes() == SMALL


def test_public_names_are_documented():
    for name in ("Limits", "ChunkEntry", "Header", "File", "write", "read", "read_header", "read_chunk", "read_metadata", "write_file"):
        assert getattr(container, name).__doc__
