"""From the command line to a preset that codes: train, resume, export, encode and decode by path."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import latentpress
from latentpress import api
from latentpress.cli import app
from latentpress.codecs.presets import read_description
from latentpress.codecs.registry import load_codec
from latentpress.errors import InputError, MissingPresetError
from latentpress.train.export import export
from latentpress.train.log import read_lines
from tests.helpers import natural, psnr

SMALL = ["width=16", "latents=16", "analysis_blocks=1", "synthesis_blocks=1", "hyper=8", "context=16", "levels=3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(4):
        Image.fromarray(natural(96, 128, top=60 * i)).save(folder / f"{i}.png")
    return folder


def command(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def training(data: Path, run: Path, *more: str) -> Any:
    settings = [s for name in SMALL for s in ("--set", f"model.{name}")]
    return command("train", "walloc-rgb", "--data", data, "--run", run, *settings, "--set", "batch=1", "--set", "crop=64", "--set", "warmup=0",
                   "--set", "log_every=1", "--set", "validate_every=3", "--set", "validation_images=1", "--set", "validation_side=64",
                   "--set", "accelerator=cpu", *more)  # fmt: skip


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, then one more."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    for steps, more in ((3, ()), (4, ("--resume",))):
        done = training(data, folder, "--steps", str(steps), *more)
        assert done.exit_code == 0, done.exception
    return folder


@pytest.fixture(scope="module")
def preset(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presets") / "my-preset"
    done = command("export", run, "-o", folder, "--licence", "CC0")
    assert done.exit_code == 0, done.exception
    assert "quality 100:" in done.stdout
    return folder


def test_a_resumed_run_has_one_curve_and_validates_in_real_bytes(run: Path) -> None:
    assert [line["step"] for line in read_lines(run, "train")] == [1, 2, 3, 4]
    validations = read_lines(run, "validation")
    assert [line["step"] for line in validations] == [3, 4] and not any(line["estimated"] for line in validations)
    assert [point["quality"] for point in validations[0]["points"]] == [14, 42, 70, 100]
    assert all(point["bpp"] > 0 and point["psnr"] > 5 for point in validations[0]["points"])


def test_an_exported_preset_encodes_and_decodes_by_path(preset: Path, tmp_path: Path) -> None:
    photo, coded, back = tmp_path / "p.png", tmp_path / "p.lpz", tmp_path / "q.png"
    Image.fromarray(natural(70, 90)).save(photo)
    assert command("encode", "--codec", preset, photo, "-o", coded).exit_code == 0
    assert command("decode", "--codec", preset, coded, "-o", back).exit_code == 0
    assert psnr(np.asarray(Image.open(back)), natural(70, 90)) > 5
    assert command("verify", "--codec", preset, coded).exit_code == 0
    pixels = api.decode(coded, codec=preset).data
    assert np.array_equal(pixels, np.asarray(Image.open(back))) and np.array_equal(api.decode(coded, codec=load_codec(preset)).data, pixels)
    assert latentpress.open_latents(coded, codec=preset).shape[1] == 16
    assert api.decode_file(coded, tmp_path / "r.png", codec=preset).data.shape == (70, 90, 3)


def test_a_file_of_a_preset_that_is_not_installed_says_how_to_decode_it(preset: Path, tmp_path: Path, photo: np.ndarray) -> None:
    blob = latentpress.encode(photo, codec=preset)
    with pytest.raises(MissingPresetError, match=r"'my-preset'.*; a file made with a preset's folder decodes with --codec FOLDER"):
        latentpress.decode(blob)


def test_a_file_alone_makes_nobody_load_a_folder(preset: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> None:
    blob = latentpress.encode(photo, codec=preset)
    monkeypatch.chdir(preset.parent)  # here the name of the preset is the path of a folder
    with pytest.raises(MissingPresetError):
        latentpress.decode(blob)


def test_another_preset_does_not_decode_it(preset: Path, photo: np.ndarray) -> None:
    digest = load_codec("walloc-rgb").digest.hex()
    with pytest.raises(MissingPresetError, match=f"of 'my-preset'; given were {digest}: .*--codec"):
        latentpress.decode(latentpress.encode(photo, codec=preset), codec="walloc-rgb")
    with pytest.raises(MissingPresetError, match="given were"):
        latentpress.decode(latentpress.encode(photo), codec=preset)


def test_a_renamed_preset_decodes_what_it_made(preset: Path, tmp_path: Path, photo: np.ndarray) -> None:
    blob = latentpress.encode(photo, codec=preset)
    (tmp_path / "other-name").symlink_to(preset)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for file in preset.iterdir():
        (renamed / file.name).write_bytes(file.read_bytes())
    assert np.array_equal(latentpress.decode(blob, codec=renamed).data, latentpress.decode(blob, codec=preset).data)


def test_the_preset_says_where_it_comes_from_and_names_no_folder_of_the_machine(preset: Path, data: Path) -> None:
    description = read_description(preset)
    provenance = description["provenance"]
    assert provenance["run"]["step"] == 4 and provenance["run"]["config"]["batch"] == 1 and provenance["data"].startswith("4 photographs")
    assert provenance["validation"]["samples"] == 1 and len(provenance["validation"]["points"]) == 4
    assert str(data) not in (preset / "preset.json").read_text()
    card = (preset / "README.md").read_text()
    assert "latentpress encode --codec ./my-preset" in card and "| steps | 4 |" in card and "CC0" in card and "None" not in card


def test_a_bare_weights_file_exports_when_it_is_told_what_it_is(run: Path, data: Path, tmp_path: Path) -> None:
    """As the loop before this one wrote them: the default model, no name in the metadata."""
    from latentpress.codecs.image_walloc import WallocRGBModel

    torch.manual_seed(0)
    state = {k: v.contiguous() for k, v in WallocRGBModel().state_dict().items()}
    save_file(state, tmp_path / "old.safetensors", metadata={"config": '{"run": "old", "batch": 4, "data": "/nowhere"}', "step": "7"})
    with pytest.raises(InputError, match=r"old.safetensors: does not say what it was trained as; give --model"):
        export(tmp_path / "old.safetensors", tmp_path / "preset", data=str(data))
    description = export(tmp_path / "old.safetensors", tmp_path / "preset", model="walloc-rgb", data=str(data), side=64, effort=0, images=1)
    assert description["provenance"]["run"]["step"] == 7 and "/nowhere" not in str(description)
    assert load_codec(tmp_path / "preset").id == "walloc-rgb"


def test_weights_of_another_model_and_presets_that_exist_are_refused(run: Path, preset: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds a preset already.*--overwrite"):
        export(run, preset)
    with pytest.raises(InputError, match=r"no such file"):
        export(tmp_path / "none", tmp_path / "x")
    state = load_file(run / "weights.safetensors")
    save_file(state | {"extra": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"wrong.safetensors: does not fit walloc-rgb; .* tensors differ, the first is"):
        export(tmp_path / "wrong.safetensors", tmp_path / "x", model="walloc-rgb", data=str(data))
    assert not (tmp_path / "x").exists()


def test_the_best_weights_export_over_an_old_preset(run: Path, tmp_path: Path, data: Path) -> None:
    target = tmp_path / "p"
    export(run, target, images=1, side=64, effort=0)
    old = (target / "weights.safetensors").read_bytes()
    export(run, target, images=1, side=64, effort=0, best=True, overwrite=True)
    assert {p.name for p in target.iterdir()} == {"preset.json", "weights.safetensors", "README.md"}
    assert [p.name for p in tmp_path.iterdir()] == ["p"] and old


def test_a_file_of_settings_trains_and_the_command_line_wins(data: Path, run: Path, tmp_path: Path) -> None:
    text = (run / "config.yaml").read_text().replace(str(run), str(tmp_path / "again"))
    (tmp_path / "settings.yaml").write_text(text)
    done = command("train", tmp_path / "settings.yaml", "--steps", "1", "--set", "validate_every=9")
    assert done.exit_code == 0, done.exception
    assert [line["step"] for line in read_lines(tmp_path / "again", "train")] == [1]


@pytest.mark.parametrize(("arguments", "message"), [
    (["walloc-rbg"], "did you mean 'walloc-rgb'"),
    (["walloc-rgb", "--steps", "1"], "give --data FOLDER"),
    (["walloc-rgb", "--set", "bath=3"], "no setting is called bath; near: batch"),
    (["walloc-rgb", "--lmbda", "0.1"], "has no single lmbda"),
    (["nowhere.yaml"], "no readable YAML"),
    (["walloc-rgb", "--data", "nowhere"], "--steps or --minutes"),
])  # fmt: skip
def test_commands_that_cannot_work_say_why(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed = command("train", *arguments)
    assert isinstance(failed.exception, latentpress.LatentpressError) and message in str(failed.exception)


def test_without_the_entropy_coder_validation_estimates_and_says_so(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    for name in [m for m in sys.modules if m == "latentpress.entropy.coder"]:
        monkeypatch.delitem(sys.modules, name)
    assert training(data, tmp_path / "run", "--steps", "1").exit_code == 0
    (report,) = read_lines(tmp_path / "run", "validation")
    assert report["estimated"] and "constriction" in report["note"] and report["points"][0]["bpp"] > 0


def test_a_preset_by_path_codes_from_standard_input(preset: Path, tmp_path: Path) -> None:
    photo = io.BytesIO()
    Image.fromarray(natural(64, 64)).save(photo, "PNG")
    runner = CliRunner()
    coded = runner.invoke(app, ["encode", "--codec", str(preset), "-", "-o", "-"], input=photo.getvalue())
    decoded = runner.invoke(app, ["decode", "--codec", str(preset), "-", "-o", "-"], input=coded.stdout_bytes)
    assert Image.open(io.BytesIO(decoded.stdout_bytes)).size == (64, 64)
