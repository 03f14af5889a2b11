"""Arrays and tables in the formats that people have: read as they are, written back the same, refused in one line."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.base import Signal
from latentpress.errors import FormatError, InputError
from latentpress.formats.array import array_bytes, array_metadata_bytes, array_metadata_of, array_of, array_signal, read_array, write_folder
from latentpress.formats.image import image_bytes
from latentpress.formats.table import checked_table, csv_text, table_bytes, with_known_categories

IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(12))
NUMBERS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.mark.parametrize(
    ("suffix", "blob"), [("", IDX), (".gz", gzip.compress(IDX, mtime=0)), (".xz", lzma.compress(IDX))], ids=["plain", "gz", "xz"]
)
def test_idx_as_its_page_says(tmp_path: Path, suffix: str, blob: bytes) -> None:
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(blob)
    signal = read_array(path)
    np.testing.assert_array_equal(signal.data, NUMBERS)
    assert signal.dims == ("sample", "y", "x") and signal.data.dtype == np.uint8
    assert array_bytes(signal, ".idx") == IDX


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4"])
@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 3, 4), (1, 2, 2, 3)])
def test_every_format_gives_back_what_it_was_given(dtype: str, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).integers(-100 if dtype[0] == "i" else 0, 100, shape).astype(dtype)
    for suffix in (".npy", ".npz", ".idx"):
        back = array_of(array_bytes(array_signal(data), suffix), "file", suffix)
        np.testing.assert_array_equal(back.data, data)
        assert back.data.dtype == data.dtype and back.dims[0] == "sample"


@pytest.mark.parametrize(
    ("blob", "message"),
    [(b"", "no .npy"), (b"\x1f\x8bxx", "damaged .gz"), (IDX[:-1], "27 bytes, its header"), (b"PK\3\4zzz", "no .npy"), (b"\x93NUMPY", "no .npy")],
)
def test_what_is_no_array_is_refused(blob: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        array_of(blob, "some-file", "")
    assert "some-file" in str(refusal.value) and "\n" not in str(refusal.value)


def test_archives_of_several_arrays_and_floats_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=NUMBERS, b=NUMBERS)
    with pytest.raises(InputError, match="holds 2 arrays"):
        array_of(buffer.getvalue(), "f.npz", ".npz")
    for data in (np.zeros(3), np.zeros(3, bool), np.zeros((1,) * 5, np.uint8), np.array(3)):
        with pytest.raises(InputError):
            array_signal(data)


def test_folders_of_png_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    for name, image in zip(("b", "a", "c"), images, strict=True):
        (tmp_path / f"{name}.png").write_bytes(image_bytes(Signal(data=image[:, :, None], dims=("y", "x", "band")), ".png"))
    signal = read_array(tmp_path)
    np.testing.assert_array_equal(signal.data, images[[1, 0, 2]])
    assert signal.meta["array"]["files"] == ["a.png", "b.png", "c.png"]
    write_folder(signal, tmp_path / "out")
    np.testing.assert_array_equal(read_array(tmp_path / "out").data, signal.data)
    with pytest.raises(InputError, match="cannot be made"):
        write_folder(signal, tmp_path / "out")
    (tmp_path / "d.png").write_bytes(image_bytes(Signal(data=images[0, :2, :, None], dims=("y", "x", "band")), ".png"))
    with pytest.raises(InputError, match=r"d\.png.*one size"):
        read_array(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.png"):
        read_array(tmp_path / "empty")


@pytest.mark.parametrize("name", ["../up.png", "/abs.png", "a/b.png", "", "a\\b.png", 3])
def test_names_that_lead_out_of_a_folder_are_refused(name: object) -> None:
    with pytest.raises(FormatError, match="plain names"):
        array_metadata_of(array_metadata_bytes({"files": [name]}))


def test_metadata_that_is_damaged_or_too_large_is_refused() -> None:
    blob = array_metadata_bytes({"files": ["a.png"] * 1000})
    assert array_metadata_of(blob) == {"files": ["a.png"] * 1000}
    for bad in (blob[:-1], blob + b"x", b"", b"abc"):
        with pytest.raises(FormatError):
            array_metadata_of(bad)
    with pytest.raises(FormatError):
        array_metadata_of(blob, limit=100)


# ---- tables

# a lone carriage return: Python's own writer leaves it without quotes, and then no reader can tell it from the end of a row
FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=("Cs",)), max_size=6)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_csv_text_comes_back_byte_for_byte(data: st.DataObject) -> None:
    delimiter, newline = data.draw(st.sampled_from(",;\t|")), data.draw(st.sampled_from(["\n", "\r\n"]))
    columns = data.draw(st.integers(2, 4))
    kinds = [data.draw(st.sampled_from([st.integers(-(10**17), 10**17).map(str), FIELDS])) for _ in range(columns)]
    rows = [[f"name{i}" for i in range(columns)]] + [[data.draw(k) for k in kinds] for _ in range(data.draw(st.integers(0, 5)))]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=newline).writerows(rows)
    blob = out.getvalue().encode()
    signal = array_of(blob, "t.csv", ".csv")
    assert signal.data.dtype == np.int64 and signal.data.shape == (len(rows) - 1, columns)
    about = array_metadata_of(array_metadata_bytes(signal.meta["array"]))
    assert array_bytes(Signal(data=signal.data, dims=signal.dims, meta={"array": about}), ".csv") == blob


def test_columns_are_integers_only_where_the_text_says_no_more() -> None:
    signal = array_of(b"a,b,c\n1,01,x\n-2,2,\n", "t.csv", ".csv")
    types = [c["type"] for c in signal.meta["array"]["table"]["columns"]]
    assert types == ["integer", "category", "category"]
    assert signal.data.tolist() == [[1, 0, 0], [-2, 1, 1]]
    headless = array_of(b"1,2\n3,4", "t.csv", ".csv")
    assert headless.data.tolist() == [[1, 2], [3, 4]] and array_bytes(headless, ".csv") == b"1,2\n3,4"


def test_spelling_that_cannot_be_kept_is_told() -> None:
    with pytest.warns(UserWarning, match="are not kept"):
        array_of(b'a,b\n"1",2\n', "t.csv", ".csv")


@pytest.mark.parametrize(("blob", "message"), [(b"", "empty"), (b"a,b\n1\n", "row 2 has 1"), (b"\xff\xfe", "UTF-8"), (b'a,b\n"1', "damaged CSV")])
def test_what_is_no_table_is_refused(blob: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        array_of(blob, "t.csv", ".csv")


def test_parquet_keeps_its_schema() -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({
        "i": pa.array([1, -5, 3], pa.int16()), "b": pa.array([True, False, True]), "s": pa.array(["x", None, "y"]),
        "d": pa.array(["u", "v", "u"]).dictionary_encode(), "w": pa.array([2**32 - 1, 0, 5], pa.uint32()),
    }).replace_schema_metadata({"k": "v"})  # fmt: skip
    out = io.BytesIO()
    pq.write_table(table, out)
    signal = array_of(out.getvalue(), "t.parquet", ".parquet")
    again = pq.read_table(io.BytesIO(array_bytes(signal, ".parquet")))
    assert again.equals(table) and again.schema.equals(table.schema, check_metadata=True)
    for bad in (pa.table({"f": [1.5]}), pa.table({"n": pa.array([1, None])})):
        out = io.BytesIO()
        pq.write_table(bad, out)
        with pytest.raises(InputError, match=r"t\.parquet: column"):
            array_of(out.getvalue(), "t.parquet", ".parquet")
    with pytest.raises(InputError, match="damaged Parquet"):
        array_of(b"PAR1nothing", "t.parquet", ".parquet")


def test_categories_are_numbered_as_the_circuit_learned_them() -> None:
    known = array_of(b"k,n\nred,1\nblue,2\n", "a.csv", ".csv").meta["array"]["table"]
    other = array_of(b"k,n\nblue,7\ngreen,8\nred,9\n", "b.csv", ".csv")
    renumbered = with_known_categories(other, known)
    assert renumbered.data.tolist() == [[1, 7], [2, 8], [0, 9]]
    assert csv_text(renumbered.data, renumbered.meta["array"]["table"]) == "k,n\nblue,7\ngreen,8\nred,9\n"
    with pytest.raises(InputError, match="was trained on"):
        with_known_categories(array_of(b"x,n\nblue,7\n", "b.csv", ".csv"), known)
    with pytest.raises(InputError, match="of type"):
        with_known_categories(array_of(b"k,n\n3,7\n", "b.csv", ".csv"), known)


@pytest.mark.parametrize("change", [
    {"kind": "exe"}, {"columns": []}, {"delimiter": "\n"}, {"newline": ""}, {"header": 1}, {"columns": [{"name": 1, "type": "integer"}]},
    {"columns": [{"name": "a", "type": "category"}]}, {"columns": [{"name": "a", "type": "category", "categories": [1]}]}, {"metadata": 3},
])  # fmt: skip
def test_descriptions_that_no_reader_wrote_are_refused(change: dict[str, object]) -> None:
    table = array_of(b"a\n1\n", "t.csv", ".csv").meta["array"]["table"]
    assert checked_table(table, 1) == table
    with pytest.raises(FormatError, match="description"):
        checked_table({**table, **change}, 1)


def test_codes_without_category_and_arrays_that_are_no_tables_are_refused() -> None:
    signal = array_of(b"a,b\nx,1\n", "t.csv", ".csv")
    with pytest.raises(FormatError, match="without category"):
        table_bytes(Signal(data=signal.data + 5, dims=signal.dims, meta=signal.meta), ".csv")
    with pytest.raises(InputError, match="no table"):
        table_bytes(array_signal(NUMBERS), ".csv")
    assert table_bytes(array_signal(NUMBERS[0]), ".csv") == b"0,1,2\n3,4,5\n"
