import json

import pytest

from latentpress.errors import FormatError
from latentpress.eval.rows import RowCache

A, B = {"codec": "a", "image": "x", "bytes": 1}, {"codec": "b", "image": "x", "bytes": 2}


def cache(path):
    return RowCache(path, ("codec", "image"))


def test_rows_come_back_from_the_file_and_the_last_of_a_key_wins(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    first = cache(path)
    assert ("a", "x") not in first
    for row in (A, B, A | {"bytes": 9}):
        first.add(row)
    again = cache(path)
    assert again["a", "x"]["bytes"] == 9 and again["b", "x"] == B
    assert len(list(again)) == 2 and ("a", "y") not in again


@pytest.mark.parametrize("cut", range(1, len(json.dumps(B)) + 1))
def test_a_last_line_that_was_cut_short_is_measured_again(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(A) + "\n" + json.dumps(B)[:cut], "utf-8")
    broken = cache(path)
    assert ("a", "x") in broken and ("b", "x") not in broken
    broken.add(B)
    assert list(cache(path)) == [A, B]


@pytest.mark.parametrize("line", ["not json", '{"codec": "a"}', "[1]"])
def test_other_damage_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(A) + "\n" + line + "\n" + json.dumps(B) + "\n", "utf-8")
    with pytest.raises(FormatError, match="line 2"):
        cache(path)
