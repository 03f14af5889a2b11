"""CompressAI's own pretrained weights, by names like "bmshj2018-hyperprior@q=3" and "mbt2018-mean-ms-ssim@q=8".

    torch hub's checkpoint (downloaded once) --freeze--> <torch hub>/latentpress-compressai/NAME/ --> codec

The checkpoint brings its tables, so the frozen weights, and with them the digest in files, are the same wherever they are made.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentpress.codecs.compressai_zoo import ARCHITECTURES, known_architecture
from latentpress.codecs.presets import DESCRIPTION
from latentpress.errors import InputError, MissingPresetError

_NAME = re.compile(r"(?P<architecture>[a-z0-9-]+?)(?P<metric>-ms-ssim)?@q=(?P<quality>[1-8])")


@dataclass(frozen=True)
class Pretrained:
    """One model of CompressAI's zoo. quality: 1 to 8 (cheng2020: 1 to 6); metric "mse" or "ms-ssim"."""

    architecture: str
    quality: int
    metric: str = "mse"

    @property
    def name(self) -> str:
        return f"{self.architecture}{'' if self.metric == 'mse' else '-' + self.metric}@q={self.quality}"


def parse_name(name: str) -> Pretrained:
    """Raises InputError for names of another form."""
    match = _NAME.fullmatch(name)
    if match is None:
        if name in ARCHITECTURES:
            raise InputError(f"compressai/{name}: which quality? compressai/{name}@q=3 has CompressAI's own weights; for others give a preset folder")
        raise InputError(f"compressai/{name}: expected a name like compressai/bmshj2018-hyperprior@q=3")
    return Pretrained(known_architecture(match["architecture"]), int(match["quality"]), "ms-ssim" if match["metric"] else "mse")


def cached_preset(which: Pretrained) -> Path:
    """The preset folder made before. Raises MissingPresetError when there is none."""
    directory = _home() / which.name
    if not (directory / DESCRIPTION).is_file():
        raise MissingPresetError(
            f"the weights compressai/{which.name} are not on this machine: fetch them once with latentpress.load_codec('compressai/{which.name}')"
        )
    return directory


def fetched_preset(which: Pretrained) -> Path:
    """The preset folder, made from CompressAI's download where it is missing. Raises MissingPresetError without network, MissingExtraError."""
    directory = _home() / which.name
    if not (directory / DESCRIPTION).is_file():
        model = _download(which)
        directory.parent.mkdir(parents=True, exist_ok=True)
        _freeze_atomically(model, which, directory)
    return directory


def _home() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "latentpress-compressai"


def _download(which: Pretrained) -> Any:
    """The model. torch hub's own loader would run pickles; here its download is read as any checkpoint is."""
    import torch

    from latentpress.codecs.compressai_checkpoint import read_checkpoint
    from latentpress.codecs.compressai_env import import_compressai
    from latentpress.codecs.compressai_zoo import model_class

    url = import_compressai().zoo.image.model_urls.get(which.architecture, {}).get(which.metric, {}).get(which.quality)
    if url is None:
        raise MissingPresetError(f"compressai/{which.name}: CompressAI has no such weights; give a checkpoint file or a preset folder")
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
        try:
            torch.hub.download_url_to_file(url, str(path), digest[1] if digest else None, progress=False)
        except (OSError, RuntimeError) as error:  # no network; another digest
            raise MissingPresetError(
                f"compressai/{which.name}: the weights cannot be downloaded ({error}); give a checkpoint file instead: "
                f"latentpress export CHECKPOINT.pth.tar --model compressai/{which.architecture} -o DIR"
            ) from error
    return model_class(which.architecture).from_state_dict(read_checkpoint(path))


def _freeze_atomically(model: Any, which: Pretrained, directory: Path) -> None:
    """A folder that exists is whole: others may load it at the same time."""
    from latentpress.codecs.compressai_preset import freeze_model

    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory.parent))
    try:
        freeze_model(model, partial, quality=which.quality, provenance={"weights": "CompressAI's zoo", "metric": which.metric})
        os.replace(partial, directory)
    except OSError as error:
        if not (directory / DESCRIPTION).is_file():  # else somebody was faster
            raise InputError(f"{directory}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
