import json

from latentpress.eval.figures import environment, write_figures


def test_figures_are_json_with_one_line_for_each_deep_entry(tmp_path):
    figures = {"command": "x", "curves": {"a": [{"bpp": 1.0, "list": [1, 2]}, {"bpp": 2.0, "list": []}]}, "empty": {}, "none": None}
    path = tmp_path / "deep" / "image.json"
    write_figures(path, figures)
    text = path.read_text("utf-8")
    assert json.loads(text) == figures
    assert '      {"bpp": 1.0, "list": [1, 2]},\n' in text and text.endswith("}\n")
    assert [p.name for p in path.parent.iterdir()] == ["image.json"]


def test_the_environment_names_versions_and_cores():
    about = environment()
    assert about["versions"]["python"] and about["versions"]["numpy"] and about["cores"] >= 1
