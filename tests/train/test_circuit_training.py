"""Training a circuit: one call from a file to a preset that codes better than it began; a run that stops goes on where it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latentpress import api
from latentpress.errors import InputError
from latentpress.train.circuit import CircuitConfig, _load, _Run, _shifted, main, train_circuit
from tests.circuits import register_circuit


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register_circuit(monkeypatch)


def walks(count: int, seed: int = 0) -> NDArray[np.int16]:
    """int16 [count, 10]: neighbours are alike."""
    steps = np.random.default_rng(seed).integers(-2, 3, (count, 10))
    return np.cumsum(steps, 1).astype(np.int16)


@pytest.fixture
def config(tmp_path: Path) -> CircuitConfig:
    np.save(tmp_path / "walks.npy", walks(1500))
    return CircuitConfig(data=str(tmp_path / "walks.npy"), output=str(tmp_path / "preset"), states=12, epochs=10, batch=128, validation=100,
                         cluster_samples=600, structure_samples=600, first_rate=0.5)  # fmt: skip


def test_from_a_file_to_a_codec_that_compresses_its_like(config: CircuitConfig) -> None:
    preset = train_circuit(config)
    new = walks(800, seed=9)
    new[3, 4] = 12_345  # never seen
    blob = api.encode(new, codec=preset, embed_model=True)
    np.testing.assert_array_equal(api.decode(blob).data, new)
    bits = 8 * len(api.encode(new, codec=preset)) / new.size
    assert 2.3 < bits < 2.8  # without its neighbour a value has 3.6 bits; a step of five equal chances has log2(5) = 2.32 bits
    log = [json.loads(line) for line in Path(f"{config.output}.log").read_text().splitlines()]
    assert log[-1]["held_out"] < log[0]["held_out"] and log[-1]["epoch"] == 10
    about = json.loads((preset / "preset.json").read_text())["provenance"]
    assert about["trained_on"]["samples"] == 1500 and about["held_out_bits_a_dimension"] == pytest.approx(bits, abs=0.15)


def test_the_same_run_gives_the_same_weights_whether_it_stopped_or_not(config: CircuitConfig) -> None:
    whole = _Run(config, _load(config))
    whole.go()
    parted = dataclasses.replace(config, run=config.output + "-parted")
    first = _Run(parted, _load(parted))
    first.go(until=0.5)
    first.save()
    second = _Run(parted, _load(parted))
    assert second.done == first.done > 0
    second.go()
    one, other = whole.learner.circuit, second.learner.circuit
    assert torch.equal(one.transitions, other.transitions) and torch.equal(one.leaves, other.leaves)
    with pytest.raises(InputError, match="other settings"):
        _Run(dataclasses.replace(parted, states=5), _load(parted))


def test_tables_bring_their_categories_along(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    colours, sizes = ["red", "green", "blue"], [1, 20, 300]
    picks = draw.integers(0, 3, 400)
    lines = [f"{colours[p]},{sizes[p] if draw.random() < 0.9 else 7}" for p in picks]
    path, other = tmp_path / "t.csv", tmp_path / "other.csv"
    path.write_text("\n".join(["colour,size", *lines, ""]))
    other.write_text("colour,size\nblue,300\nmauve,20\nred,1\n")
    preset = train_circuit(CircuitConfig(data=str(path), output=str(tmp_path / "p"), states=3, minutes=0.01, batch=100, cluster_samples=300))
    api.encode_file(other, tmp_path / "o.lpz", codec=preset, embed_model=True)
    api.decode_file(tmp_path / "o.lpz", tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_bytes() == other.read_bytes()
    assert len(api.encode(path, codec=preset)) < len(path.read_bytes()) / 4


def test_the_command(config: CircuitConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["--data", config.data, "-o", str(tmp_path / "p2"), "--states", "3", "--epochs", "1", "--cluster-samples", "200"])
    assert (tmp_path / "p2" / "preset.json").is_file() and capsys.readouterr().out.strip() == str(tmp_path / "p2")


@pytest.mark.parametrize("change", [{"epochs": 0.0}, {"minutes": 1.0}])
def test_an_end_is_needed_and_only_one(config: CircuitConfig, change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="one of epochs and minutes"):
        train_circuit(dataclasses.replace(config, **change))


def test_too_little_data_is_refused(config: CircuitConfig) -> None:
    np.save(config.data, walks(10))
    with pytest.raises(InputError, match="too few"):
        train_circuit(config)


def test_shifts_move_images_and_repeat_the_border() -> None:
    images = np.arange(2 * 9).reshape(2, 9)
    moved = _shifted(np.repeat(images, 50, 0), (3, 3), 1, np.random.default_rng(0)).reshape(100, 3, 3)
    first = images[0].reshape(3, 3)
    allowed = [np.pad(first, 1, mode="edge")[a : a + 3, b : b + 3] for a in range(3) for b in range(3)]
    found = {next(i for i, a in enumerate(allowed) if (a == m).all()) for m in moved[:50]}
    assert len(found) > 5


def test_stages_double_the_states_and_prune(config: CircuitConfig) -> None:
    staged = dataclasses.replace(config, states=12, stages=3, keep=0.6, epochs=3)
    run = _Run(staged, _load(staged))
    assert run.learner.circuit.states == 3
    run.go()
    assert run.learner.circuit.states == 12 and run.learner.kept is not None
    again = _Run(staged, _load(staged))  # from the checkpoint
    assert again.learner.kept is not None and torch.equal(again.learner.kept, run.learner.kept)
    with pytest.raises(InputError, match="doubling"):
        odd = dataclasses.replace(staged, states=10, run=config.output + "-odd")
        _Run(odd, _load(odd))
