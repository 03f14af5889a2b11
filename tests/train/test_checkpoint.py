"""Checkpoints: whole or not there, the newest few, never of another model."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from latentpress.errors import InputError
from latentpress.train.checkpoint import Checkpoints, read_weights, save_weights, write_whole

CPU = torch.device("cpu")


def test_the_newest_are_kept_and_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, {"codec": "a"}, 2)
    assert checkpoints.newest(CPU) is None
    for step in (5, 10, 100_000_000):
        checkpoints.save(step, {"model": {"w": torch.full((2,), float(step))}})
    assert [p.name for p in checkpoints.files()] == ["step-00000010.pt", "step-100000000.pt"]
    state = checkpoints.newest(CPU)
    assert state is not None and state["step"] == 100_000_000 and state["model"]["w"].tolist() == [1e8, 1e8]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"first")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="a was not written: No space left on device"):
            write_whole(tmp_path / "a", b"second")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"first")]


def test_a_checkpoint_of_another_model_is_refused_and_both_are_named(tmp_path: Path) -> None:
    Checkpoints(tmp_path, {"codec": "walloc-rgb", "model": {"width": 96, "levels": 8}}, 2).save(3, {})
    with pytest.raises(InputError, match="made by walloc-rgb width=96, this run trains walloc-rgb width=128"):
        Checkpoints(tmp_path, {"codec": "walloc-rgb", "model": {"width": 128, "levels": 8}}, 2).newest(CPU)
    with pytest.raises(InputError, match="made by walloc-rgb, this run trains compressai/x"):
        Checkpoints(tmp_path, {"codec": "compressai/x", "model": {}}, 2).newest(CPU)


class Command:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made-by-a-checkpoint",)


@pytest.mark.parametrize("kind", ["cut", "nothing", "pickle"])
def test_damaged_and_hostile_checkpoints_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints(tmp_path, {"codec": "a"}, 2)
    path = checkpoints.save(3, {"model": {"w": torch.zeros(1000)}})
    path.write_bytes({"cut": path.read_bytes()[:2000], "nothing": b"", "pickle": pickle.dumps(Command())}[kind])
    with pytest.raises(InputError, match=r"step-00000003.pt: no readable checkpoint .*; delete it") as caught:
        checkpoints.newest(CPU)
    assert "\n" not in str(caught.value) and not (tmp_path / "made-by-a-checkpoint").exists()


def test_weights_keep_what_they_say_of_themselves(tmp_path: Path) -> None:
    state = {"w": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last), "n": torch.tensor(3)}
    save_weights(tmp_path / "w.safetensors", state, {"codec": "a", "step": 3, "model": {"width": 2}})
    found, facts = read_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(found[k], state[k]) for k in state) and facts == {"codec": "a", "step": 3, "model": {"width": 2}}
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"w.safetensors: no readable weights"):
        read_weights(tmp_path / "w.safetensors")
