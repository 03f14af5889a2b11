"""What a run tells, and to whom."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch

from latentpress.train.log import LINES, Log, read_lines

REPORT = {"points": [{"quality": 50.0, "bpp": 0.5, "psnr": 30.0}], "cost": 1.5, "estimated": False}


def test_lines_after_the_checkpoint_and_half_written_ones_are_dropped(tmp_path: Path) -> None:
    log = Log(tmp_path, step=0, steps=10, minutes=None)
    for step in (2, 4, 6):
        log.train(step, {"loss": float(step)}, step / 10)
    log.close()
    with open(tmp_path / LINES, "a") as file:
        file.write('{"kind": "train", "st')
    again = Log(tmp_path, step=4, steps=10, minutes=None)
    again.train(6, {"loss": 60.0}, 0.6)
    again.close()
    assert [(line["step"], line["loss"]) for line in read_lines(tmp_path, "train")] == [(2, 2.0), (4, 4.0), (6, 60.0)]


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path, step=0, steps=10, minutes=None)
    log.train(5, {"loss": 1.25, "bpp": 0.5}, 0.5)
    log.validation(5, REPORT)
    log.validation(6, REPORT | {"estimated": True, "points": [{"quality": None, "bpp": 0.25, "psnr": 20.0}]})
    log.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 5 (50.0 %) loss 1.25 bpp 0.5"
    assert lines[1] == "step 5 validation, real bytes: 0.5000 bpp 30.00 dB  cost 1.5000" and "estimated bits" in lines[2]
    assert all("\x1b" not in line for line in lines)
    assert [json.loads(line)["kind"] for line in (tmp_path / LINES).read_text().splitlines()] == ["train", "validation", "validation"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    log = Log(tmp_path, step=0, steps=10, minutes=None)
    log.train(5, {"loss": 1.25, "bpp": 0.5, "psnr": 31.5, "steps_per_second": 2.0}, 0.5)
    log.close()
    shown = terminal.getvalue()
    assert "1.2500 loss" in shown and "0.500 bpp" in shown and "31.50 dB" in shown and "2.00 it/s" in shown and "50.0 %" in shown


def test_tensorboard_has_the_scalars_and_the_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(tmp_path, step=0, steps=10, minutes=None)
    log.train(5, {"loss": 1.25}, 0.5)
    log.validation(5, REPORT)
    log.pictures(5, torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))
    log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Scalars("train/loss")[0].value == 1.25 and board.Scalars("validation/psnr at 50.0")[0].value == 30
    assert board.Images("original, decoded")[0].width == 16
