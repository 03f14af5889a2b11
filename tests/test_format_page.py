"""docs/FORMAT.md is enough to write a reader: here is one, made from the page alone, and it agrees with latentpress on every file."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from latentpress import container
from latentpress.codecs.base import Chunk, Encoded

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "FORMAT.md").read_text(encoding="utf-8")
GOLDEN = sorted((ROOT / "tests" / "golden").glob("**/*.lpz"))


# ---- a reader from the page (sections in brackets); imports nothing of latentpress ----


def crc32c(data: bytes) -> int:
    """[1] bit by bit"""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


class Reader:
    def __init__(self, blob: bytes) -> None:
        self.blob, self.at = blob, 0

    def take(self, size: int) -> bytes:
        assert self.at + size <= len(self.blob), "ends early"
        self.at += size
        return self.blob[self.at - size : self.at]

    def varint(self) -> int:
        start = self.at
        while self.take(1)[0] & 0x80:
            pass
        digits = self.blob[start : self.at]
        assert len(digits) <= 9 and (len(digits) == 1 or digits[-1]), "a varint has one spelling"
        return sum((digit & 0x7F) << 7 * place for place, digit in enumerate(digits))

    def text(self, size: int) -> str:
        value = self.take(size)
        assert 1 <= size <= 64 and all(byte >= 0x20 and byte != 0x7F for byte in value), "no text"
        return value.decode("utf-8")

    def crc(self) -> int:
        return int.from_bytes(self.take(4), "little")

    @property
    def left(self) -> int:
        return len(self.blob) - self.at


def read_page(blob: bytes) -> dict:
    reader = Reader(blob)
    assert reader.take(4) == b"LPZ\0"  # [3]
    fields = Reader(reader.take(reader.varint()))
    head = blob[: reader.at]
    assert reader.crc() == crc32c(head)
    result = read_fields(fields) | {"data": [], "metadata": {}}
    begin, places = reader.at, []
    while (chunk := read_chunk(reader, head)) is not None:  # [4]
        kind, key, payload, start = chunk
        if kind == 16:
            assert key not in result["metadata"]
            result["metadata"][key] = payload
        else:
            result["data"].append((key, payload))
            places.append((key, start, reader.at))
    positions = [position for position, _ in result["data"]]
    assert positions and positions == sorted(set(positions)) and len({len(p) for p in positions if p}) <= 1
    if len(places) > 1:  # [5]
        assert read_index(reader, head, begin) == places
    assert reader.left == 0, "goes on too long"
    assert len(result["metadata"]) == result.pop("metadata_chunks")
    return result


def read_fields(fields: Reader) -> dict:
    values: dict[int, Reader] = {}
    while fields.left:
        tag = fields.varint()
        assert tag > max(values, default=-1)
        values[tag] = Reader(fields.take(fields.varint()))
        assert tag % 2 or tag in (2, 4, 6, 8, 10, 12, 14, 16), "must be understood"
    assert (2 in values) != (4 in values)
    identity = values[2] if 2 in values else values[4]
    result = {"digest": identity.take(8) if 2 in values else b"", "shape": (), "dims": (), "parameters": {}}
    if identity.left == 1 and identity.blob[identity.at] < 0x20:
        result["codec"] = {1: "walloc-rgb", 2: "walloc-rgb-16x", 3: "walloc-rgb-4x"}[identity.take(1)[0]]
    else:
        result["codec"] = identity.text(identity.left)
    while values[6].left:
        result["shape"] += (values[6].varint(),)
    while 8 in values and values[8].left:
        result["dims"] += (values[8].text(values[8].varint()),)
    if 8 not in values:
        result["dims"] = ("y", "x", "band")
    assert all(result["shape"]) and len(result["dims"]) == len(result["shape"]) <= 8
    result["metadata_chunks"] = values[16].varint() if 16 in values else 0
    result["dtype"] = values[10].text(values[10].left) if 10 in values else "uint8"
    if 12 in values:
        result["parameters"]["level"] = values[12].varint()
    while 14 in values and values[14].left:
        name = values[14].text(values[14].varint())
        result["parameters"][name] = values[14].varint()
    assert all(value.left == 0 for tag, value in values.items() if tag % 2 == 0)
    return result


def read_chunk(reader: Reader, head: bytes) -> tuple | None:
    start = reader.at
    kind = reader.take(1)[0]
    if kind == 0:
        return None
    assert kind in (1, 2, 16), "reserved"
    key: object = ()
    if kind == 2:
        key = tuple(reader.varint() for _ in range(reader.varint()))
        assert 1 <= len(key) <= 8 and any(key)
    elif kind == 16:
        key = reader.text(reader.varint())
    size = reader.varint()
    frame, stored = reader.blob[start : reader.at], reader.crc()
    payload = reader.take(size)
    assert stored == crc32c(head + frame + payload)
    return kind, key, payload, start


def read_index(reader: Reader, head: bytes, at: int) -> list[tuple[tuple[int, ...], int, int]]:
    size = int.from_bytes(reader.blob[-4:], "little")
    assert reader.at == len(reader.blob) - 4 - size
    body = reader.blob[reader.at : -8]
    index = Reader(body)
    count, rank = index.varint(), index.varint()
    places = []
    for _ in range(count):
        position = tuple(index.varint() for _ in range(rank))
        start = at + index.varint()
        at = start + index.varint()
        places.append((position if any(position) else (), start, at))
    assert index.left == 0
    reader.take(len(body))
    assert reader.crc() == crc32c(head + body)
    reader.take(4)
    return places


# ---- the promises ----


def agrees(blob: bytes) -> None:
    mine, theirs = read_page(blob), container.read(blob)
    for name in ("codec", "digest", "shape", "dtype", "dims", "parameters"):
        assert mine[name] == getattr(theirs.encoded, name)
    assert mine["data"] == [(chunk.position, chunk.payload) for chunk in theirs.encoded.chunks]
    assert mine["metadata"] == theirs.metadata


def examples() -> list[bytes]:
    """The files that the page walks through; every line stands where it says."""
    blobs = []
    for block in re.findall(r"```lpz\n(.*?)```", PAGE, re.S):
        blob = b""
        for line in block.splitlines():
            offset, digits = re.fullmatch(r" *(\d+)  ((?:[0-9a-f]{2} ?)+?)  +\S.*", line).groups()
            assert int(offset) == len(blob), line
            blob += bytes.fromhex(digits)
        blobs.append(blob)
    return blobs


PHOTO = Encoded(
    codec="walloc-rgb",
    digest=bytes.fromhex("5d41402abc4b2a76"),
    shape=(512, 768, 3),
    dtype="uint8",
    dims=("y", "x", "band"),
    parameters={"level": 200},
    chunks=(Chunk(payload=b"payload"),),
)
FIELD = Encoded(
    codec="grid",
    digest=b"",
    shape=(40, 300),
    dtype="float32",
    dims=("time", "lat"),
    parameters={"halo": 4, "tile": 128},
    chunks=(Chunk(payload=b"one"), Chunk(payload=b"three", position=(0, 2))),
)


def test_the_checksum_is_the_one_of_the_page():
    assert crc32c(b"123456789") == 0xE3069283


def test_the_examples_of_the_page_are_what_is_written():
    assert examples() == [container.write(PHOTO), container.write(FIELD, metadata={"text": b"{}"})]


@pytest.mark.parametrize("number", range(2))
def test_a_reader_made_from_the_page_reads_its_examples(number):
    agrees(examples()[number])


def test_a_reader_made_from_the_page_reads_what_is_written():
    noise = random.Random(3)
    for count in (1, 2, 40):
        chunks = tuple(Chunk(payload=noise.randbytes(200), position=(i // 7, i % 7) if i else ()) for i in range(count))
        encoded = Encoded(
            codec=f"codec number {count}",
            digest=noise.randbytes(8),
            shape=(9, 200, 70000, 2),
            dtype="int16",
            dims=("time", "latitude", "höhe", "band"),
            parameters={"level": 2**40, "tile": 0, "z": 2**63 - 1},
            chunks=chunks,
        )
        agrees(container.write(encoded, metadata={"icc": noise.randbytes(300), "exif": b""}))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_reader_made_from_the_page_reads_golden_files(path):
    agrees(path.read_bytes())


def test_numbers_on_the_page_are_those_of_the_code():
    for code, name in container.SHORT_NAMES.items():
        assert f"| {code} | {name} |" in PAGE
    assert f"one of `{' '.join(sorted(container.DTYPES, key=container.DTYPES.index))}`" in PAGE
    limits = container.Limits()
    for value, what in ((limits.pixels, "pixels"), (limits.samples, "samples"), (limits.file_bytes, "bytes of file")):
        assert f"2^{value.bit_length() - 1} {what}" in PAGE
    assert f"never longer than {container.HEADER_MAX} bytes" in PAGE
