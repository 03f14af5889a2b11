"""Tables of integer and categorical columns, CSV and Parquet, as arrays int64 [row, column]; what the schema says travels as plain data.

    read_table(path) -> Signal          meta["array"]["table"]: kind, columns (name, type, categories), dialect
    table_bytes(signal, ".csv")         and back

A CSV column whose every field is an integer in its usual spelling is one of integers; any other column is one of categories, numbered in the order
of their first appearance, so that the text comes back as it was. Parquet needs pyarrow.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Signal
from latentpress.errors import FormatError, InputError, MissingExtraError

DIMS = ("sample", "variable")
TABLES = frozenset([".csv", ".tsv", ".parquet"])
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_ARROW_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def read_table(blob: bytes, name: str, suffix: str) -> Signal:
    """data int64 [row, column]. Raises InputError that names the file and the remedy, MissingExtraError without pyarrow."""
    return _parquet(blob, name) if suffix == ".parquet" else _csv(blob, name)


# ---- CSV


def _csv(blob: bytes, name: str) -> Signal:
    try:
        text = blob.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: no UTF-8 text ({error}); convert it first") from error
    dialect = _dialect(text)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=dialect["delimiter"], strict=True))
    except csv.Error as error:
        raise InputError(f"{name}: damaged CSV ({error})") from error
    if not rows or not rows[0]:
        raise InputError(f"{name}: an empty table")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise InputError(f"{name}: row {number} has {len(row)} fields, the first has {len(rows[0])}")
    header = len(set(rows[0])) == len(rows[0]) and not any(_INTEGER.fullmatch(f) for f in rows[0])
    names = rows[0] if header else [f"column {i + 1}" for i in range(len(rows[0]))]
    body = rows[1:] if header else rows
    fields = list(zip(*body, strict=True)) if body else [()] * len(names)
    columns, described = zip(*(_column(values, label) for values, label in zip(fields, names, strict=True)), strict=True)
    table = {"kind": "csv", "header": header, **dialect, "columns": list(described)}
    signal = Signal(data=np.stack(columns, 1) if body else np.zeros((0, len(names)), np.int64), dims=DIMS, meta={"array": {"table": table}})
    if csv_text(signal.data, table) != text:
        warnings.warn(f"{name}: quotes, spaces or line ends of this CSV file are not kept; all values are", UserWarning, stacklevel=2)
    return signal


def _dialect(text: str) -> dict[str, Any]:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t|", key=first.count)
    return {"delimiter": delimiter, "newline": "\r\n" if first.endswith("\r") else "\n", "last_newline": text.endswith("\n")}


def _column(values: tuple[str, ...], label: str) -> tuple[NDArray[np.int64], dict[str, Any]]:
    if all(map(_INTEGER.fullmatch, values)):
        return np.array(list(map(int, values)), np.int64), {"name": label, "type": "integer"}
    codes: dict[str, int] = {}
    numbers = [codes.setdefault(v, len(codes)) for v in values]
    return np.array(numbers, np.int64), {"name": label, "type": "category", "categories": list(codes)}


def csv_text(data: NDArray[np.integer[Any]], table: Mapping[str, Any]) -> str:
    """Raises FormatError for codes that name no category."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=table["delimiter"], lineterminator=table["newline"])
    if table["header"]:
        writer.writerow([c["name"] for c in table["columns"]])
    writer.writerows(zip(*(_fields(data[:, i], c) for i, c in enumerate(table["columns"])), strict=True))
    text = out.getvalue()
    return text if table["last_newline"] else text.removesuffix(table["newline"])


def _fields(codes: NDArray[np.integer[Any]], column: Mapping[str, Any]) -> list[Any]:
    if "categories" not in column:
        return codes.tolist()
    categories = column["categories"]
    if len(codes) and not (codes.min() >= -1 and codes.max() < len(categories)):
        raise FormatError(f"column {column['name']!r}: a code without category")
    return [categories[c] if c >= 0 else None for c in codes.tolist()]


# ---- Parquet


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "tables") from error
    return pyarrow


def _parquet(blob: bytes, name: str) -> Signal:
    pa = _pyarrow()
    try:
        table = pa.parquet.read_table(io.BytesIO(blob))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{name}: damaged Parquet file ({' '.join(str(error).split())[:200]})") from error
    columns, described = [], []
    for label, column in zip(table.column_names, table.columns, strict=True):
        codes, about = _arrow_column(pa, column.combine_chunks(), label, name)
        columns.append(codes)
        described.append(about)
    if not columns:
        raise InputError(f"{name}: a table without columns")
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    about_table = {"kind": "parquet", "columns": described} | ({"metadata": metadata} if metadata else {})
    return Signal(data=np.stack(columns, 1), dims=DIMS, meta={"array": {"table": about_table}})


def _arrow_column(pa: Any, column: Any, label: str, name: str) -> tuple[NDArray[np.int64], dict[str, Any]]:
    kind = str(column.type)
    if kind in _ARROW_INTEGERS or kind == "bool":
        if column.null_count:
            raise InputError(f"{name}: column {label!r} has {column.null_count} missing numbers; fill them, or store the column as text")
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.int64), {"name": label, "type": kind}
    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
        raise InputError(f"{name}: column {label!r} is of type {kind}; integers, booleans and texts are coded, so drop or convert it")
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    about = {"name": label, "type": str(plain), "categories": encoded.dictionary.to_pylist()}
    if pa.types.is_dictionary(column.type):
        about |= {"index": str(column.type.index_type), "ordered": column.type.ordered}
    return codes, about


def _parquet_bytes(data: NDArray[np.integer[Any]], table: Mapping[str, Any]) -> bytes:
    pa = _pyarrow()
    arrays = []
    for i, column in enumerate(table["columns"]):
        if "categories" not in column:
            kind = {"integer": "int64"}.get(column["type"], column["type"])
            arrays.append(pa.array(data[:, i]).cast(pa.bool_() if kind == "bool" else getattr(pa, kind)()))
            continue
        fields = _fields(data[:, i], column)
        plain = getattr(pa, {"category": "string"}.get(column["type"], column["type"]))()
        if "index" in column:
            indices = pa.array(data[:, i], mask=data[:, i] < 0).cast(getattr(pa, column["index"])())
            arrays.append(pa.DictionaryArray.from_arrays(indices, pa.array(column["categories"], plain), ordered=column["ordered"]))
        else:
            arrays.append(pa.array(fields, plain))
    whole = pa.table(arrays, names=[c["name"] for c in table["columns"]]).replace_schema_metadata(table.get("metadata"))
    out = io.BytesIO()
    pa.parquet.write_table(whole, out)
    return out.getvalue()


def table_bytes(signal: Signal, suffix: str) -> bytes:
    """The bytes of a .csv, .tsv or .parquet file; a plain array gets columns without names. Raises InputError for arrays of other shapes."""
    if signal.data.ndim != 2:
        raise InputError(f"an array of shape {signal.data.shape} is no table; write .npy")
    table = checked_table((signal.meta.get("array") or {}).get("table"), signal.data.shape[1])
    if suffix == ".parquet":
        return _parquet_bytes(signal.data, table)
    return csv_text(signal.data, {"header": table["kind"] != "plain", "delimiter": "\t" if suffix == ".tsv" else ",", "newline": "\n",
                                  "last_newline": True, **table}).encode()  # fmt: skip


def checked_table(table: Any, columns: int) -> dict[str, Any]:
    """The description of a table as it stands in a file, or that of a plain array. Raises FormatError for one that was not written here."""
    if table is None:
        return {"kind": "plain", "columns": [{"name": f"column {i + 1}", "type": "integer"} for i in range(columns)]}
    texts = {"category", "string", "large_string"}
    types = {"integer", "bool", *texts, *_ARROW_INTEGERS}

    def column_fits(c: Any) -> bool:
        return (
            isinstance(c, dict) and isinstance(c.get("name"), str) and c.get("type") in types and isinstance(c.get("categories", []), list)
            and all(isinstance(v, str) for v in c.get("categories", [])) and ("categories" in c) == (c["type"] in texts)
            and c.get("index", "int32") in _ARROW_INTEGERS and isinstance(c.get("ordered", False), bool) and ("index" in c) == ("ordered" in c)
        )  # fmt: skip

    fits = isinstance(table, dict) and table.get("kind") in ("csv", "parquet") and isinstance(table.get("columns"), list)
    if not fits or len(table["columns"]) != columns or not all(map(column_fits, table["columns"])):
        raise FormatError("metadata chunk 'array': no valid description of a table")
    plain = {"header": bool, "last_newline": bool, "delimiter": str, "newline": str}
    if not all(isinstance(table[k], kind) for k, kind in plain.items() if k in table) or table.get("newline", "\n") not in ("\n", "\r\n"):
        raise FormatError("metadata chunk 'array': no valid description of a table")
    if table.get("delimiter", ",") not in (",", ";", "\t", "|") or (table["kind"] == "csv" and not set(plain) <= set(table)):
        raise FormatError("metadata chunk 'array': no valid description of a table")
    metadata = table.get("metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError("metadata chunk 'array': no valid description of a table")
    return table


def with_known_categories(signal: Signal, known: Mapping[str, Any]) -> Signal:
    """The same table with categories numbered as in `known` (the table that a circuit was trained on); new ones follow.

    Raises InputError for other columns.
    """
    about = dict(signal.meta.get("array") or {})
    table = about.get("table")
    if table is None:
        return signal
    names, expected = [c["name"] for c in table["columns"]], [c["name"] for c in known["columns"]]
    if names != expected:
        raise InputError(f"columns {names[:8]}: this circuit was trained on {expected[:8]}")
    data, columns = signal.data.copy(), []
    for i, (mine, theirs) in enumerate(zip(table["columns"], known["columns"], strict=True)):
        if ("categories" in mine) != ("categories" in theirs):
            raise InputError(f"column {mine['name']!r} is of type {mine['type']}, this circuit was trained on {theirs['type']}")
        if "categories" in mine and "index" not in mine:
            order = {c: n for n, c in enumerate(theirs["categories"])}
            renumber = np.array([order.setdefault(c, len(order)) for c in mine["categories"]] + [-1], np.int64)  # the last: missing
            data[:, i] = renumber[data[:, i]]
            mine = {**mine, "categories": list(order)}
        columns.append(mine)
    about["table"] = {**table, "columns": columns}
    return Signal(data=data, dims=signal.dims, meta={**signal.meta, "array": about})
