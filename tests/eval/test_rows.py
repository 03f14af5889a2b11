import json
import resource

import pytest

from latentpress.errors import FormatError, InputError
from latentpress.eval.rows import RowCache

A, B = {"codec": "a", "item": "x", "bytes": 1}, {"codec": "b", "item": "x", "bytes": 2}


def cache(path):
    return RowCache(path, ("codec", "item"))


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


def test_a_disk_that_takes_no_more_is_one_line_and_what_was_written_stays_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    full, (soft, hard) = cache(path), resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = [{"codec": "a", "item": str(i), "pad": "x" * 50} for i in range(9)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(InputError, match=r"rows\.jsonl: a row cannot be written .*; the 3 rows before are whole: make room") as caught:
            for row in rows:
                full.add(row)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.read_text("utf-8").splitlines() == [json.dumps(r) for r in rows[:3]]
    again = cache(path)
    again.add(rows[3])
    assert list(cache(path)) == rows[:4]


def test_rows_are_put_in_order_without_losing_any(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = cache(path)
    for row in (A, B, A | {"bytes": 9}):
        rows.add(row)
    rows.arrange([("b", "x"), ("c", "x")])
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [B, A | {"bytes": 9}] == list(rows)
    before = path.stat()
    rows.arrange([("b", "x")])
    assert path.stat().st_ino == before.st_ino  # nothing to do
