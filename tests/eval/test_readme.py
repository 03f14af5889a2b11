import pytest

from latentpress.errors import InputError
from latentpress.eval.readme import replace_block, table, write_block

TEXT = "# Title\n<!-- figures:image -->\nold\nrows\n<!-- /figures:image -->\ntail\n<!-- figures:speed -->\nkept\n<!-- /figures:speed -->\n"


def test_a_block_is_replaced_and_nothing_else():
    new = replace_block(TEXT, "image", "| a |\n")
    assert new == TEXT.replace("old\nrows\n", "| a |\n")
    assert replace_block(new, "image", "| a |") == new


@pytest.mark.parametrize(
    "text",
    [
        "no marks",
        "<!-- figures:image -->\nonly the first",
        "<!-- /figures:image -->\n<!-- figures:image -->",
        "<!-- figures:image -->\n<!-- /figures:image -->\n<!-- figures:image -->\n<!-- /figures:image -->",
    ],
)
def test_a_text_without_its_two_marks_is_refused(text):
    with pytest.raises(InputError, match="figures:image"):
        replace_block(text, "image", "x")


def test_a_file_without_marks_stays_as_it_is(tmp_path):
    path = tmp_path / "README.md"
    with pytest.raises(InputError, match="no such file"):
        write_block(path, "image", "x")
    path.write_text("nothing here", "utf-8")
    with pytest.raises(InputError, match=r"README\.md"):
        write_block(path, "image", "x")
    assert path.read_text("utf-8") == "nothing here"
    path.write_text(TEXT, "utf-8")
    write_block(path, "speed", "new")
    assert path.read_text("utf-8") == TEXT.replace("kept", "new")


def test_a_table_has_one_cell_for_each_column():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
    with pytest.raises(InputError, match="1 cells"):
        table(["a", "b"], [["1"]])
