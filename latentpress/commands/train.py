"""`latentpress train` and `latentpress export`. Names no codec; loads torch only when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Settings = Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="any other setting, as in --set batch=4 --set model.width=96")]

CHECKPOINTS = (".pth", ".pth.tar", ".tar", ".pt")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
    app.command()(export)


def train(
    what: Annotated[str, typer.Argument(metavar="CODEC|CONFIG.YAML", help="what to train, or a file of settings")],
    data: Annotated[str | None, typer.Option("--data", metavar="FOLDER", help="photographs, or packed shards")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="FOLDER", help="where the run goes; default runs/CODEC")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="how many steps")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="how many minutes of training")] = None,
    lmbda: Annotated[float | None, typer.Option("--lmbda", help="weight of distortion, for models of one rate")] = None,
    weights: Annotated[str | None, typer.Option("--weights", metavar="FILE", help="safetensors file to start from")] = None,
    devices: Annotated[int | None, typer.Option("--devices", min=1, help="processes on each machine, each with a GPU or a part of the CPU")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the newest checkpoint, if there is one")] = False,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Train a codec."""
    from latentpress.codecs.registry import load_trainable
    from latentpress.train.config import SUFFIXES, parse_settings, read_yaml, resolve, with_lmbda
    from latentpress.train.loop import train as run_training

    given = {"data": data, "run": run, "steps": steps, "minutes": minutes, "weights": weights, "devices": devices}
    file: dict[str, Any] = read_yaml(Path(what)) if what.endswith(SUFFIXES) else {"codec": what}
    flags = {k: v for k, v in given.items() if v is not None}
    extra = parse_settings(settings)
    codec = str(extra.get("codec", file.get("codec", "")))
    cls, _ = load_trainable(codec)
    config, _ = resolve(cls, {"run": f"runs/{codec.replace('/', '-')}"}, file, with_lmbda(cls, lmbda), flags, extra)
    run_training(config, resume=resume)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="folder of a run, a safetensors file of weights, or a checkpoint (.pth, .pth.tar)")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="PRESET", help="folder of the preset")],
    model: Annotated[str | None, typer.Option("--model", metavar="CODEC", help="what the weights were trained as, if they do not say it")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FOLDER", help="training photographs, if not those of the run")] = None,
    best: Annotated[bool, typer.Option("--best", help="weights of the best validation, not the newest")] = False,
    images: Annotated[int, typer.Option("--images", min=1, help="training photographs that tables are fitted to")] = 300,
    licence: Annotated[str, typer.Option("--licence", help="of the weights, for the model card")] = "not stated",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a preset")] = False,
) -> None:
    """Freeze a run, or a checkpoint of CompressAI, into a preset folder, for `encode --codec` and `decode --codec`."""
    from latentpress.train.export import export as write_preset
    from latentpress.train.export import import_checkpoint

    if run.endswith(CHECKPOINTS):
        import_checkpoint(Path(run), Path(output), model=model, overwrite=overwrite)
        print(f"{output}: use it with --codec {output}")
        return

    description = write_preset(
        Path(run), Path(output), model=model, data=data, best=best, images=images, licence=licence, overwrite=overwrite
    )  # fmt: skip
    for point in description["provenance"]["validation"]["points"]:
        print(f"quality {point['quality']:g}: {point['bpp']:.4f} bpp {point['psnr']:.2f} dB")
    print(f"{output}: use it with --codec {output}")
