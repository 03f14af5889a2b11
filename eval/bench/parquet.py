"""rows.parquet: the rows of rows.jsonl for data frames. Versions are a map, as each codec names its own libraries."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from latentpress.container import write_file
from latentpress.errors import MissingExtraError
from latentpress.eval.rows import Row


def write_parquet(path: Path, rows: Iterable[Row]) -> None:
    """All rows, in their order; a field that some rows lack is null there. The file is replaced in one step."""
    arrow, parquet = packages()
    data = [r | {"versions": list(r["versions"].items())} for r in rows]
    names = list(dict.fromkeys(k for r in data for k in r))
    columns = {n: arrow.array([r.get(n) for r in data], _type(arrow, n)) for n in names}
    buffer = io.BytesIO()
    parquet.write_table(arrow.table(columns), buffer)
    write_file(path, buffer.getvalue(), overwrite=True)


def _type(arrow: Any, name: str) -> Any:
    """Types of the columns that a run without a single good row would leave open; all other metrics are float64."""
    text = ("domain", "codec", "digest", "setting", "item", "item_digest", "status", "error", "note")
    known = dict.fromkeys(text, arrow.string()) | dict.fromkeys(("schema", "runs", "threads", "bytes", "peak_bytes"), arrow.int64())
    known |= {"shape": arrow.list_(arrow.int64()), "versions": arrow.map_(arrow.string(), arrow.string())}
    if name == "machine":
        return arrow.struct([("system", arrow.string()), ("architecture", arrow.string()), ("cores", arrow.int64()), ("cpu", arrow.string())])
    return known.get(name, arrow.float64())


def packages() -> tuple[Any, Any]:
    """pyarrow and its Parquet module, or MissingExtraError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "bench") from error
    return pyarrow, pyarrow.parquet
