"""Train and freeze the presets of classic WaLLoC: mean squared error, no rate term, photographs from a folder.

    python -m latentpress.train.walloc_classic train  --preset walloc-rgb-16x --data PHOTOS --run RUN --steps 1500
    python -m latentpress.train.walloc_classic freeze --preset walloc-rgb-16x --data PHOTOS --run RUN --out latentpress/presets

Training works on wavelet packets of whole photographs, made once: the transform is linear, so the error of the samples is the synthesis of
the error of the packets. Every 20th photograph is for validation. `train` goes on where RUN/state.pt left off, or stays where it is when
the steps are done; `freeze` fits the entropy model and writes the preset.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentpress.codecs import wavelet
from latentpress.codecs.base import Signal, Target
from latentpress.codecs.image_walloc_classic import WallocClassic
from latentpress.codecs.presets import write_preset
from latentpress.codecs.walloc import WallocConfig, WallocModel
from latentpress.entropy.planes import PlanePrior
from latentpress.train.fit_planes import fit

CONFIGS = {
    "walloc-rgb-16x": WallocConfig(latents=12, width=128, blocks=4),
    "walloc-rgb-4x": WallocConfig(latents=48, width=96, blocks=4),
}
FIT_SIDE = 40  # latents of each photograph, each way, that the entropy model is fitted to
MARGIN = 2  # latents at a crop's edge that the loss leaves out: the decoder sees zeros beyond them


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How a run goes. crop: latents a side; warm: steps of linear warm-up; the rate is constant for half of the steps, then falls."""

    steps: int = 1500
    batch: int = 6
    crop: int = 28
    rate: float = 3e-4
    encoder_rate: float = 1e-4  # relative to the size of the encoder's weights
    average: float = 0.98
    warm: int = 20
    seed: int = 1


def photographs(folder: Path) -> tuple[list[Path], list[Path]]:
    """(training, validation): every 20th file in the order of names is for validation."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    if len(files) < 2:
        raise SystemExit(f"{folder}: at least two photographs expected")
    return [f for i, f in enumerate(files) if i % 20], files[::20]


def load_samples(path: Path) -> Tensor:
    """A photograph as [1, 3, h, w] in [-.5, .5]."""
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)[None].float() / 255 - 0.5


def load_bands(files: list[Path], levels: int) -> list[Tensor]:
    """Wavelet packets [bands, h, w] of each photograph; float16 keeps them within a sixth of a step of 8 bits."""
    return [wavelet.analysis(load_samples(f), levels)[0].half() for f in files]


def crops(images: list[Tensor], config: RunConfig, generator: torch.Generator) -> Tensor:
    """A batch [b, bands, crop, crop]; photographs are drawn by their area."""
    area = torch.tensor([float(i.shape[1] * i.shape[2]) for i in images])
    out = []
    for i in torch.multinomial(area, config.batch, True, generator=generator).tolist():
        _, h, w = images[i].shape
        y, x = (int(torch.randint(n - config.crop + 1, (), generator=generator)) for n in (h, w))
        out.append(images[i][:, y : y + config.crop, x : x + config.crop])
    return torch.stack(out).float()


def sample_error(model: WallocModel, bands: Tensor, margin: int) -> Tensor:
    """Mean squared error of samples, from wavelet packets."""
    error = model.forward_bands(bands) - bands
    h, w = error.shape[2:]
    inner = error[:, :, margin : h - margin, margin : w - margin]
    size = tuple(n * 2**model.config.levels for n in inner.shape[2:])
    return model.synthesis(inner, model.config.levels, size).pow(2).mean()


def make_optimizer(model: WallocModel, config: RunConfig) -> torch.optim.Optimizer:
    """SOAP. The start is a good codec, and a step moves all weights alike, so rates follow what a weight moves: the encoder's are large
    (latents fill the compander's range); the last layer drives bands of a few hundredths. With 2e-3 for all, 300 steps gained nothing."""
    from pytorch_optimizer import SOAP

    size = model.encoder.weight.detach().pow(2).mean().sqrt().item()
    groups = [
        dict(params=list(model.encoder.parameters()), lr=config.encoder_rate * size),
        dict(params=[p for n, p in model.decoder.named_parameters() if n.startswith("leave")], lr=config.rate / 10),
        dict(params=[p for n, p in model.decoder.named_parameters() if not n.startswith("leave")], lr=config.rate),
    ]
    return SOAP(groups, lr=config.rate, betas=(0.95, 0.95), weight_decay=0, precondition_frequency=20, max_precondition_dim=520)


def rate_factor(step: int, config: RunConfig) -> float:
    done = step / config.steps
    cosine = 1.0 if done < 0.5 else max(0.01, 0.5 * (1 + math.cos(math.pi * (done - 0.5) / 0.5)))
    return min(1.0, (step + 1) / config.warm) * cosine


@torch.no_grad()
def validate(model: WallocModel, images: list[Tensor]) -> float:
    """Mean PSNR over photographs, in dB, rounding but not clamping."""
    model.eval()
    scores = [-10 * math.log10(sample_error(model, i[None].float(), 0).item()) for i in images]
    model.train()
    return sum(scores) / len(scores)


class Run:
    """One run: model, averaged weights, optimizer and step, kept in RUN/state.pt."""

    def __init__(self, folder: Path, model_config: WallocConfig, config: RunConfig) -> None:
        self.folder, self.config = folder, config
        self.model = WallocModel(model_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step, self.spent = 0, 0.0

    def start(self, images: list[Tensor]) -> None:
        samples = torch.cat([i.flatten(1).T[::16].float() for i in images])
        self.model.start_from(samples)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model, self.config)
        self.base = [g["lr"] for g in self.optimizer.param_groups]

    def resume(self) -> bool:
        path = self.folder / "state.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.spent, self.base = state["average"], state["step"], state["spent"], state["base"]
        return True

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = dict(
            model=self.model.state_dict(), optimizer=self.optimizer.state_dict(), average=self.average,
            step=self.step, spent=self.spent, base=self.base,
        )  # fmt: skip
        torch.save(state, self.folder / "state.tmp")
        os.replace(self.folder / "state.tmp", self.folder / "state.pt")
        save_file({k: v.contiguous() for k, v in self.average.items()}, self.folder / "weights.safetensors")

    def averaged(self) -> WallocModel:
        model = WallocModel(self.model.config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.load_state_dict(self.average)
        return model

    def advance(self, bands: Tensor) -> float:
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * rate_factor(self.step, self.config)
        loss = sample_error(self.model, bands, MARGIN)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * 1e3).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(self.config.average, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        return loss.item()


def batches(images: list[Tensor], config: RunConfig, first: int) -> Iterator[Tensor]:
    """The batch of each step from `first` on: drawn from the seed and the step, so that a resumed run sees what an unbroken one would."""
    for step in range(first, config.steps):
        yield crops(images, config, torch.Generator().manual_seed(config.seed * 1_000_003 + step))


def train(preset: str, data: Path, folder: Path, config: RunConfig) -> None:
    torch.manual_seed(config.seed)
    model_config = CONFIGS[preset]
    training, validation = (load_bands(files, model_config.levels) for files in photographs(data))
    run = Run(folder, model_config, config)
    run.start(training)
    if not run.resume():
        say(folder, f"start: validation {validate(run.model, validation):.3f} dB")
    began, losses = time.time() - run.spent, []
    for bands in batches(training, config, run.step):
        losses.append(run.advance(bands))
        run.spent = time.time() - began
        if run.step % 100 == 0 or run.step == config.steps:
            psnr = -10 * math.log10(sum(losses) / len(losses))
            score = validate(run.averaged(), validation)
            say(folder, f"step {run.step} {run.spent:.0f} s training {psnr:.3f} dB validation {score:.3f} dB")
            losses = []
            run.save()
    provenance = dict(
        preset=preset, steps=run.step, seconds=round(run.spent), photographs=len(training), run=asdict(config),
        optimizer="SOAP", validation_psnr=round(validate(run.averaged(), validation), 3), torch=torch.__version__,
    )  # fmt: skip
    (folder / "run.json").write_text(json.dumps(provenance, indent=1) + "\n")


def frozen_weights(model: WallocModel, prior: PlanePrior) -> dict[str, np.ndarray]:
    """What a preset stores: the encoder in float32, as its sums are long; the decoder in float16; the entropy model as integers."""
    weights = {k: v.detach().numpy().astype(np.float32 if k.startswith("encoder") else np.float16) for k, v in model.state_dict().items()}
    return weights | prior.state("prior")


@torch.no_grad()
def integers(model: WallocModel, path: Path, most: int | None = None) -> np.ndarray:
    """Latents int32 [latents, h, w] of a photograph, at most the middle `most` each way."""
    q = model.encode(load_samples(path))[0].numpy().astype(np.int32)
    top, left = (0, 0) if most is None else (max(0, (n - most) // 2) for n in q.shape[1:])
    return q[:, top:, left:] if most is None else q[:, top : top + most, left : left + most]


def measure(codec: WallocClassic, files: list[Path]) -> dict[str, float]:
    """Mean bpp of the payload and mean PSNR of what `decode` returns."""
    rates, scores = [], []
    for path in files:
        data = np.asarray(Image.open(path).convert("RGB"))
        encoded = codec.encode(Signal(data=data, dims=codec.dims), Target(quality=50))
        error = np.mean((codec.decode(encoded).data.astype(np.float64) - data) ** 2)
        rates.append(8 * sum(len(c.payload) for c in encoded.chunks) / (data.shape[0] * data.shape[1]))
        scores.append(10 * math.log10(255**2 / error))
    return {"bpp": round(sum(rates) / len(rates), 4), "psnr": round(sum(scores) / len(scores), 3)}


def freeze(preset: str, data: Path, folder: Path, out: Path, images: int, command: str) -> None:
    model = WallocModel(CONFIGS[preset]).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    training, validation = photographs(data)
    prior = fit([integers(model, f, FIT_SIDE) for f in training[:: max(1, len(training) // images)]], model.compander.peak)
    run = json.loads((folder / "run.json").read_text())
    description = dict(
        codec=WallocClassic.id, config=asdict(model.config), command=command, provenance=run,
        about=dict(
            licence="Apache-2.0", paper="Jacobellis and Yadwadkar, Learned Compression for Compressed Learning, 2024",
            origin="trained from scratch; no weights of the released models",
        ),
    )  # fmt: skip
    write_preset(out / preset, description, frozen_weights(model, prior))
    figures = measure(WallocClassic.from_preset(out / preset, preset), validation)
    write_preset(out / preset, description | {"validation": figures}, frozen_weights(model, prior))
    say(folder, f"frozen: validation {figures['bpp']:.3f} bpp {figures['psnr']:.2f} dB")


def say(folder: Path, line: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print(line, flush=True)
    with open(folder / "log.txt", "a") as log:
        log.write(line + "\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "freeze"])
    parser.add_argument("--preset", choices=sorted(CONFIGS), required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("latentpress/presets"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=60, help="photographs that the entropy model is fitted to")
    for name, value in asdict(RunConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    config = RunConfig(**{k: getattr(options, k) for k in asdict(RunConfig())})
    if options.what == "train":
        train(options.preset, options.data, options.run, config)
    else:
        command = f"python -m latentpress.train.walloc_classic train --preset {options.preset} --data PHOTOS, then freeze"
        freeze(options.preset, options.data, options.run, options.out, options.images, command)


if __name__ == "__main__":
    main(sys.argv[1:])
