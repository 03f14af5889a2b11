"""The loop: what is promised about resuming, several processes, auxiliary losses and steps that are no numbers."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentpress.errors import InputError
from latentpress.train.checkpoint import read_weights
from latentpress.train.log import LINES, read_lines
from latentpress.train.loop import train
from tests.train.tiny import Tiny, TinyOptions, config, photographs, same

ROOT = Path(__file__).parent.parent.parent
CURVE = ("step", "loss", "bpp", "psnr", "norm", "auxiliary", "rate")
WORKER = """
import json, sys
sys.path.append(sys.argv[1])
from pathlib import Path
from tests.train.tiny import Tiny, config
from latentpress.train.loop import train
train(config(Path(sys.argv[2]), Path(sys.argv[3]), **json.loads(sys.argv[4])), trainable=Tiny)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs"))


def curve(run: Path) -> list[dict[str, Any]]:
    return [{k: line[k] for k in CURVE} for line in read_lines(run, "train")]


def newest(run: Path) -> dict[str, Any]:
    return torch.load(sorted((run / "checkpoints").glob("*.pt"))[-1], weights_only=True)  # type: ignore[no-any-return]


def weights(run: Path) -> dict[str, Tensor]:
    return newest(run)["model"]  # type: ignore[no-any-return]


def worker(run: Path, data: Path, settings: dict[str, Any], **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-c", WORKER, str(ROOT), str(run), str(data), json.dumps(settings)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, stderr=subprocess.PIPE)


def test_a_run_learns_and_leaves_its_files(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data, steps=40), trainable=Tiny)
    lines = read_lines(tmp_path / "run", "train")
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"] and 0 <= lines[-1]["waiting"] < 1
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"config.yaml", LINES, "checkpoints", "weights.safetensors", "best.safetensors"}
    state, facts = read_weights(tmp_path / "run" / "weights.safetensors")
    assert facts["codec"] == "tiny" and facts["step"] == 40 and facts["model"]["width"] == 4 and set(state) == set(Tiny(TinyOptions()).state_dict())


def test_a_run_killed_at_a_random_step_goes_on_as_if_it_had_not_been(tmp_path: Path, data: Path) -> None:
    settings = {"steps": 24, "optimiser": "soap", "model": {"noise": 0.2}, "log_every": 2, "shrink": 1.5}
    train(config(tmp_path / "whole", data, **settings), trainable=Tiny)
    fatal = random.SystemRandom().randrange(6, 20)
    process = worker(tmp_path / "broken", data, settings, TINY_SLEEP="0.05")
    log, deadline = tmp_path / "broken" / LINES, time.monotonic() + 120
    while time.monotonic() < deadline and (not log.exists() or log.read_text().count("\n") < fatal // 2):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < max(line["step"] for line in read_lines(tmp_path / "broken", "train")) < 24, f"killed near step {fatal}"
    train(config(tmp_path / "broken", data, **settings), trainable=Tiny, resume=True)
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole"), f"killed near step {fatal}"
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "whole"), 0)


def test_two_processes_reach_the_weights_of_one_with_twice_the_batch(tmp_path: Path, data: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
                "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
    settings = {"batch": 2, "accumulate": 2}
    both = [worker(tmp_path / "two", data, settings, RANK=str(r), LOCAL_RANK=str(r), **torchrun) for r in range(2)]
    errors = [process.communicate(timeout=180)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    train(config(tmp_path / "one", data, batch=8), trainable=Tiny)
    assert same(weights(tmp_path / "two"), weights(tmp_path / "one"), 1e-5)
    for a, b in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    train(config(tmp_path / "half", data, batch=4), trainable=Tiny)
    assert not same(weights(tmp_path / "half"), weights(tmp_path / "one"), 1e-4)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "large", data, batch=6), trainable=Tiny)
    train(config(tmp_path / "parts", data, batch=2, accumulate=3), trainable=Tiny)
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "large"), 1e-5)


class Apart(Tiny):
    """The main loss alone, the auxiliary parameter fixed."""

    def auxiliary_parameters(self) -> list[torch.nn.Parameter]:
        self.quantile.requires_grad_(False)
        return []


def test_neither_loss_moves_the_parameters_of_the_other(tmp_path: Path, data: Path) -> None:
    still = {"auxiliary_rate": 1e-30, "clip": 0.0}
    train(config(tmp_path / "both", data, **still), trainable=Tiny)
    train(config(tmp_path / "main", data, **still), trainable=Apart)
    assert same(weights(tmp_path / "both"), weights(tmp_path / "main"), 0)  # layers: no trace of the auxiliary loss
    train(config(tmp_path / "auxiliary", data, rate=1e-30), trainable=Tiny)
    model = Tiny(TinyOptions())
    model.load_state_dict(weights(tmp_path / "auxiliary"))
    assert (model.quantile > 0.5).all()  # towards 1 + the mean of y; the main loss alone would have other signs
    gradient = torch.autograd.grad(model(torch.rand(2, 3, 16, 16)).main, model.quantile)[0]
    assert (gradient > 0).any()


def test_steps_that_are_no_numbers_are_skipped_and_reported(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data, model={"bad_from": 4, "bad": 3}), trainable=Tiny)
    assert [line["step"] for line in read_lines(tmp_path / "run", "event")] == [5, 6, 7]
    assert read_lines(tmp_path / "run", "train")[-1]["skipped"] == 3
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())
    assert all(math.isfinite(line["loss"]) for line in read_lines(tmp_path / "run", "train") if "loss" in line)


def test_a_run_of_nothing_but_bad_steps_stops(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match=r"4 steps in a row without finite gradients; try --resume --set rate=0\.005"):
        train(config(tmp_path / "run", data, model={"bad_from": 5, "bad": 99}, max_skips=4), trainable=Tiny)
    assert newest(tmp_path / "run")["step"] == 5


def test_another_run_is_not_written_over(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data), trainable=Tiny)
    with pytest.raises(InputError, match="holds a run already; give --resume"):
        train(config(tmp_path / "run", data), trainable=Tiny)
    with pytest.raises(InputError, match="made by tiny width=4, this run trains tiny width=6"):
        train(config(tmp_path / "run", data, model={"width": 6}), trainable=Tiny, resume=True)


def test_a_finished_run_goes_on_when_it_gets_more_steps(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data, steps=6), trainable=Tiny)
    train(config(tmp_path / "run", data, steps=12), trainable=Tiny, resume=True)
    assert [line["step"] for line in read_lines(tmp_path / "run", "train")] == [3, 6, 9, 12]


def test_a_finished_run_is_validated_once(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data, steps=5), trainable=Tiny)  # the last step is one that saves anyway
    train(config(tmp_path / "run", data, steps=5), trainable=Tiny, resume=True)
    assert [line["step"] for line in read_lines(tmp_path / "run", "validation")] == [5] and newest(tmp_path / "run")["validated"] == 5


def test_the_best_weights_are_those_of_the_least_cost_so_far(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data, steps=40, rate=0.3, constant=1.0, ema=0.0, validate_every=4), trainable=Tiny)
    costs = {line["step"]: line["cost"] for line in read_lines(tmp_path / "run", "validation")}
    best = min(costs, key=lambda step: costs[step])
    assert best < 40 and read_weights(tmp_path / "run" / "best.safetensors")[1]["step"] == best


def test_mixed_precision_keeps_weights_in_float32(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data, steps=40, precision="bf16"), trainable=Tiny)
    train(config(tmp_path / "full", data, steps=40), trainable=Tiny)
    lines, full = (read_lines(tmp_path / run, "train") for run in ("run", "full"))
    assert all(v.dtype == torch.float32 for v in weights(tmp_path / "run").values())
    assert lines[-1]["loss"] == pytest.approx(full[-1]["loss"], rel=0.1) and lines[-1]["loss"] != full[-1]["loss"]


def test_weights_of_another_run_are_a_start(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "first", data), trainable=Tiny)
    start = str(tmp_path / "first" / "weights.safetensors")
    train(config(tmp_path / "second", data, steps=1, rate=1e-30, auxiliary_rate=1e-30, weights=start, ema=0.0), trainable=Tiny)
    assert same(read_weights(Path(start))[0], weights(tmp_path / "second"), 1e-6)
    with pytest.raises(InputError, match=r"weights.safetensors: does not fit tiny with these settings; 4 of 6 tensors differ"):
        train(config(tmp_path / "third", data, weights=start, model={"width": 5}), trainable=Tiny)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_an_interrupted_run_saves_its_last_step_and_goes_on(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str) -> None:
    settings = {"optimiser": optimiser, "model": {"noise": 0.2}}
    train(config(tmp_path / "whole", data, **settings), trainable=Tiny)
    plain = Tiny.forward

    def forward(self: Tiny, batch: Tensor) -> Any:
        if self.training and self.forwards == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Tiny, "forward", forward)
        train(config(tmp_path / "run", data, **settings), trainable=Tiny)
    assert newest(tmp_path / "run")["step"] == 7
    train(config(tmp_path / "run", data, **settings), trainable=Tiny, resume=True)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_a_run_ends_after_its_minutes(tmp_path: Path, data: Path) -> None:
    train(config(tmp_path / "run", data, steps=None, minutes=0.02), trainable=Tiny)
    assert newest(tmp_path / "run")["spent"] >= 1.2
    with pytest.raises(InputError, match="give --steps or --minutes"):
        train(config(tmp_path / "endless", data, steps=None), trainable=Tiny)
