"""The rule no other learned codec keeps: the same file gives the same symbols everywhere, and those coded again give the same bytes.

Golden files are written by `make golden` for the version being released and never rewritten after; a missing one fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpress import api, container
from latentpress.codecs import registry
from latentpress.codecs.base import Signal, Target
from latentpress.inspect import symbols_sha256
from tests.helpers import cli, natural, psnr, python

GOLDEN = Path(__file__).parent / "golden"
CASES = {"rgb": (50, (96, 144)), "low": (3, (64, 64)), "high": (100, (48, 80)), "odd": (40, (37, 51))}
WRITE = os.environ.get("LATENTPRESS_WRITE_GOLDEN") == "1"
RECODE = """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
from latentpress import api, container
from latentpress.inspect import symbols_sha256
blob = open(sys.argv[1], "rb").read()
file = container.read(blob)
codec = api.codec_of(file.encoded)
again = codec.recode(file.encoded, codec.symbols(file.encoded))
print(symbols_sha256(blob), again == file.encoded, torch.backends.cpu.get_cpu_capability())
"""


def golden_names() -> list[str]:
    return [f"{name}-{case}" for name in registry.names() if registry.load_codec(name).domain == "image" for case in CASES]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", golden_names())
def test_golden_files_decode_as_on_the_day_they_were_written(name: str) -> None:
    codec, case = name.rsplit("-", 1)
    path, facts_path = GOLDEN / f"{name}.lpz", GOLDEN / f"{name}.json"
    image = natural(*CASES[case][1])
    if WRITE:
        path.write_bytes(api.encode(image, codec=codec, quality=CASES[case][0]))
        blob = path.read_bytes()
        facts = {"symbols_sha256": symbols_sha256(blob), "psnr": round(psnr(image, api.decode(blob).data), 4),
                 "shape": list(image.shape), "dtype": "uint8", "origin": "packaged sample kodim23, Kodak"}  # fmt: skip
        facts_path.write_text(json.dumps(facts, indent=1) + "\n")
    facts, blob = json.loads(facts_path.read_text()), path.read_bytes()
    assert symbols_sha256(blob) == facts["symbols_sha256"]
    decoded = api.decode(blob).data
    assert list(decoded.shape) == facts["shape"]
    assert psnr(image, decoded) == pytest.approx(facts["psnr"], abs=0.005)  # the synthesis is float: a rounding here and there
    encoded = container.read(blob).encoded
    coder = api.codec_of(encoded)
    assert container.write(coder.recode(encoded, coder.symbols(encoded))) == blob


FIELDS: dict[str, tuple[tuple[int, ...], Target]] = {
    "bounded": ((2, 40, 56), Target(max_error=1.5)), "lossless": ((33, 47), Target(max_error=0)), "relative": ((24, 24), Target(max_rel_error=0.01)),
}  # fmt: skip


def field(shape: tuple[int, ...]) -> np.ndarray:
    """Made of integers alone, so that it is the same everywhere: bumps of triangles and some hashing for noise; land where they are low."""
    place = np.indices(shape).astype(np.int64)
    y, x = place[-2], place[-1]
    smooth = 20 * np.abs(y % 26 - 13) + 13 * np.abs((x + y // 3) % 34 - 17) + 5 * place[0]
    noise = (x * 7919 + y * 104729 + place[0] * 1299709) * 2654435761 % 4294967296 >> 28
    data = (smooth + noise).astype(np.float32) / 8 + 250
    data[smooth < 40] = np.nan
    return data


@pytest.mark.parametrize("case", FIELDS)
def test_golden_fields_decode_to_the_same_bytes(case: str) -> None:
    codec, path = registry.load_codec("lattice"), GOLDEN / f"lattice-{case}.lpz"
    shape, target = FIELDS[case]
    if WRITE:
        signal = Signal(data=field(shape), dims=("time", "y", "x")[-len(shape) :])
        path.write_bytes(container.write(codec.encode(signal, target)))
        decoded = codec.decode(container.read(path.read_bytes()).encoded).data
        path.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(decoded.tobytes()).hexdigest()}, indent=1) + "\n")
    blob = path.read_bytes()
    encoded = container.read(blob).encoded
    decoded = codec.decode(encoded).data
    assert hashlib.sha256(decoded.tobytes()).hexdigest() == json.loads(path.with_suffix(".json").read_text())["sha256"]
    assert container.write(codec.recode(encoded, codec.symbols(encoded))) == blob
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(field(shape)))


@pytest.fixture(scope="module", params=["walloc-rgb", "walloc-rgb-16x"])
def blob(request: pytest.FixtureRequest) -> bytes:
    return api.encode(natural(180, 260, top=0), codec=request.param, quality=70)


def state(blob: bytes) -> tuple[str, bool]:
    """(digest of the symbols, whether they code to the same payload)."""
    encoded = container.read(blob).encoded
    codec = api.codec_of(encoded)
    return symbols_sha256(blob), codec.recode(encoded, codec.symbols(encoded)) == encoded


def test_threads_and_kernels_do_not_matter(blob: bytes) -> None:
    expected = state(blob)
    assert expected[1]
    with threads(2):
        assert state(blob) == expected
    with torch.backends.mkldnn.flags(enabled=False):
        assert state(blob) == expected


@pytest.mark.parametrize(
    "environment",
    [{}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}, {"ATEN_CPU_CAPABILITY": "default"}, {"MKL_CBWR": "COMPATIBLE"}, {"DNNL_DEFAULT_FPMATH_MODE": "STRICT"}],
    ids=lambda e: "-".join(e) or "plain",
)
def test_other_instruction_sets_in_a_fresh_process_do_not_matter(blob: bytes, environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "file.lpz"
    path.write_bytes(blob)
    for count in ("1", "2"):
        words = python(RECODE, str(path), count, env=environment, check=True).stdout.decode().split()
        assert words[:2] == [state(blob)[0], "True"]
        assert ("ATEN_CPU_CAPABILITY" in environment) == (words[2] in ("DEFAULT", "NO AVX")) or "ATEN_CPU_CAPABILITY" not in environment


def test_the_command_line_prints_the_same_digest(blob: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.lpz"
    path.write_bytes(blob)
    assert cli("verify", path, "--symbols", check=True).stdout.decode().strip() == symbols_sha256(blob)


def test_layout_and_a_wider_carrier_do_not_matter() -> None:
    """The integer network in float64, and with every memory layout, codes the same bytes."""
    core = registry.load_codec("walloc-rgb").core  # type: ignore[attr-defined]
    with torch.no_grad():
        y = core.scaled(core.analyse(core.to_samples(natural(128, 192))), 448)
        symbols, rows, known = core.prior.symbols(y, 448)
        expected = core.prior.pack(symbols, rows)
        network = core.prior.network
        try:
            network.double()
            _, wide = core.prior.unpack(expected, tuple(y.shape[2:]), 448)
            assert torch.equal(wide.float(), known)
            network.float().to(memory_format=torch.contiguous_format)
            _, plain = core.prior.unpack(expected, tuple(y.shape[2:]), 448)
            assert torch.equal(plain, known)
        finally:
            network.float().to(memory_format=torch.channels_last)


def test_a_changed_weight_would_be_noticed() -> None:
    """The battery above can fail: one unit in one integer weight moves the symbols or breaks the stream."""
    core = registry.load_codec("walloc-rgb").core  # type: ignore[attr-defined]
    with torch.no_grad():
        y = core.scaled(core.analyse(core.to_samples(natural(128, 192))), 448)
        payload = core.prior.pack(*core.prior.symbols(y, 448)[:2])
        expected = hashlib.sha256(core.prior.unpack(payload, tuple(y.shape[2:]), 448)[0].tobytes()).digest()
        layer = core.prior.network.block[0]
        kept = layer.weight.clone()
        try:
            layer.weight[:, 0] += 0.25
            try:
                got = hashlib.sha256(core.prior.unpack(payload, tuple(y.shape[2:]), 448)[0].tobytes()).digest()
            except api.FormatError:
                got = b""
            assert got != expected
        finally:
            layer.weight.copy_(kept)
    assert np.isfinite(kept.numpy()).all()
