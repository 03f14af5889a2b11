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
from latentpress.train.circuit import freeze, load_samples, main, train_circuit
from latentpress.train.circuit_run import CircuitConfig, Run, shifted
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
    whole = Run(config, load_samples(config.data))
    whole.go()
    parted = dataclasses.replace(config, run=config.output + "-parted")
    first = Run(parted, load_samples(parted.data))
    first.go(until=0.5)
    first.save()
    second = Run(parted, load_samples(parted.data))
    assert second.done == first.done > 0
    second.go()
    one, other = whole.learner.circuit, second.learner.circuit
    assert torch.equal(one.transitions, other.transitions) and torch.equal(one.leaves, other.leaves)
    with pytest.raises(InputError, match="other settings"):
        Run(dataclasses.replace(parted, states=5), load_samples(parted.data))


def test_clusters_part_in_the_second_half_and_a_stopped_run_goes_on(config: CircuitConfig) -> None:
    kinds = np.concatenate([walks(800), walks(800, seed=1)[:, ::-1] * np.int16(3) + np.int16(30)])
    np.save(config.data, np.random.default_rng(0).permutation(kinds))
    config = dataclasses.replace(config, clusters=2, epochs=6)
    whole = Run(config, load_samples(config.data))
    whole.go(until=0.4)
    assert whole.apart is None
    together = whole.held_out_bits()
    whole.go()
    assert whole.apart is not None and whole.held_out_bits() < together + 0.05  # leaves that part by kind already: little to gain
    parted = dataclasses.replace(config, run=config.output + "-parted")
    Run(parted, load_samples(parted.data)).go(until=0.8)
    second = Run(parted, load_samples(parted.data))
    assert second.apart is not None
    second.go()
    assert torch.equal(whole.apart.mixture.transitions, second.apart.mixture.transitions)
    preset = freeze(whole)
    new = np.concatenate([walks(300, seed=5), walks(300, seed=6)[:, ::-1] * np.int16(3) + np.int16(30)])
    blob = api.encode(new, codec=preset, embed_model=True)
    np.testing.assert_array_equal(api.decode(blob).data, new)
    assert 8 * len(api.encode(new, codec=preset)) / new.size == pytest.approx(whole.held_out_bits(), abs=0.2)


def test_a_preset_is_a_start(config: CircuitConfig) -> None:
    first = train_circuit(config)
    held_out = json.loads((first / "preset.json").read_text())["provenance"]["held_out_bits_a_dimension"]
    onward = dataclasses.replace(config, output=config.output + "-2", start=str(first), clusters=2, split=1.0, epochs=1, split_rate=0.1)
    run = Run(onward, load_samples(onward.data))
    assert run.held_out_bits() == pytest.approx(held_out, abs=0.02)  # as well as codes keep weights
    run.go()
    assert run.apart is not None
    for bad in (dataclasses.replace(onward, states=6, output="x"), dataclasses.replace(onward, clusters=0)):
        with pytest.raises(InputError):
            Run(bad, load_samples(onward.data))


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
    moved = shifted(np.repeat(images, 50, 0), (3, 3), 1, np.random.default_rng(0)).reshape(100, 3, 3)
    first = images[0].reshape(3, 3)
    allowed = [np.pad(first, 1, mode="edge")[a : a + 3, b : b + 3] for a in range(3) for b in range(3)]
    found = {next(i for i, a in enumerate(allowed) if (a == m).all()) for m in moved[:50]}
    assert len(found) > 5


def test_stages_double_the_states_and_prune(config: CircuitConfig) -> None:
    staged = dataclasses.replace(config, states=12, stages=3, keep=0.6, epochs=3)
    run = Run(staged, load_samples(staged.data))
    assert run.learner.circuit.states == 3
    run.go()
    assert run.learner.circuit.states == 12 and run.learner.kept is not None
    again = Run(staged, load_samples(staged.data))  # from the checkpoint
    assert again.learner.kept is not None and torch.equal(again.learner.kept, run.learner.kept)
    with pytest.raises(InputError, match="doubling"):
        odd = dataclasses.replace(staged, states=10, run=config.output + "-odd")
        Run(odd, load_samples(odd.data))
