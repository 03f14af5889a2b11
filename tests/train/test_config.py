"""Settings: who wins, what is refused and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentpress.codecs.image_walloc import WallocRGBModel
from latentpress.errors import InputError
from latentpress.train.config import TrainConfig, build, parse_settings, read_yaml, resolve, with_lmbda, write_yaml
from tests.train.tiny import Tiny


def test_the_command_line_wins_over_the_file_and_that_over_the_model_and_that_over_the_defaults() -> None:
    assert TrainConfig(codec="c", run="r").optimiser == "adamw"
    file = {"codec": "walloc-rgb", "run": "r", "rate": 0.5, "batch": 3, "model": {"width": 64, "levels": 4}}
    config, options = resolve(WallocRGBModel, file, parse_settings(["batch=5", "model.width=32"]))
    assert (config.optimiser, config.rate, config.batch) == ("soap", 0.5, 5)
    assert (options.width, options.levels, options.context) == (32, 4, 192) and config.model["width"] == 32


@pytest.mark.parametrize(("values", "message"), [
    ({"optimizer": "soap"}, "no setting is called optimizer; near: optimiser"),
    ({"model": {"widht": 3}}, "no setting is called model.widht; near: width"),
    ({"zzzz": 1}, "no setting is called zzzz; known: codec, run"),
    ({"batch": "many"}, "batch='many': int expected"),
    ({"batch": 2.5}, "batch=2.5: int expected"),
    ({"batch": True}, "batch=True: int expected"),
    ({"rate": "nan"}, "rate='nan': float expected"),
    ({"steps": -1}, "steps=-1: a positive number expected"),
    ({"precision": "16"}, "'32' or 'bf16' expected"),
    ({"model": 3}, "model=3: names with values expected"),
])  # fmt: skip
def test_settings_that_do_not_exist_or_fit_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(Tiny, {"codec": "tiny", "run": "r"}, values)


def test_numbers_that_yaml_reads_as_texts_are_numbers() -> None:
    config, _ = resolve(Tiny, {"codec": "tiny", "run": "r"}, parse_settings(["rate=1e-4", "steps=1e3", "precision=32"]))
    assert config.rate == 1e-4 and config.steps == 1000 and config.precision == "32"


def test_a_written_configuration_reads_as_the_same(tmp_path: Path) -> None:
    config, _ = resolve(Tiny, {"codec": "tiny", "run": "r", "minutes": 2.5})
    (tmp_path / "c.yaml").write_text(write_yaml(config))
    assert build(TrainConfig, read_yaml(tmp_path / "c.yaml")) == config


@pytest.mark.parametrize(("text", "message"), [("a: [", "no readable YAML"), ("- 1", "name: value"), (None, "no readable YAML")])
def test_files_that_hold_no_settings_are_refused_by_name(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_set_needs_a_value() -> None:
    with pytest.raises(InputError, match="--set batch: name=value expected"):
        parse_settings(["batch"])


def test_lmbda_is_for_models_that_have_one() -> None:
    with pytest.raises(InputError, match="walloc-rgb has no single lmbda"):
        with_lmbda(WallocRGBModel, 0.01)
    assert with_lmbda(WallocRGBModel, None) == {}
