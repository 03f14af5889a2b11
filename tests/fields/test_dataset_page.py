"""docs/FORMAT.md, section 17, is enough to read a dataset: here without latentpress, on top of the reader of the other sections."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import numpy as np

import latentpress
from latentpress.fields.reading import open_file
from tests.fields.datasets import weather
from tests.test_format_page import read_page


def read_dataset(blob: bytes) -> dict[str, Any]:
    page = read_page(blob)
    about = json.loads(zlib.decompress(page["metadata"]["dataset"]).decode("utf-8", "surrogatepass"))
    width = 1 + max(v.get("rank", 0) for v in about["variables"])
    chunks = {position or (0,) * width: payload for position, payload in page["data"]}
    values = {}
    for number, v in enumerate(about["variables"]):
        own = {p[1 : 1 + v.get("rank", 0)]: payload for p, payload in chunks.items() if p[0] == number}
        values[v["name"]] = own if "codec" in v else exact(own[()], v["dtype"], [about["dims"][d] for d in v["dims"]])
    return values


def exact(payload: bytes, dtype: str, shape: list[int]) -> Any:
    raw = zlib.decompress(payload)
    if dtype == "text":
        return np.array(json.loads(raw), object).reshape(shape)
    count, size = math.prod(shape), np.dtype(dtype).itemsize
    return np.array([raw[n::count] for n in range(count)]).view(f"V{size}").view(dtype).reshape(shape)


def test_a_dataset_is_read_by_the_page_alone() -> None:
    blob = latentpress.encode_dataset(weather(), max_error=0.5)
    values, file = read_dataset(blob), open_file(blob)
    assert list(values) == [v.name for v in file.description.variables]
    for v in file.description.variables:
        if v.coded is None:
            np.testing.assert_array_equal(values[v.name], file.read(v.name))
        elif len(v.shape) == 3:
            assert sorted(values[v.name]) == sorted((t, y, x) for t in range(3) for y in range(3) for x in range(5))
