"""`latentpress demo`: packaged photographs to .lpz files and back, beside JPEG, WebP and AVIF of at most the same size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress import api
from latentpress.container import write_file
from latentpress.eval.metrics import psnr
from latentpress.eval.peers import at_most_bytes, family
from latentpress.formats.image import image_bytes, read_image

PEERS = ("jpeg", "webp", "avif")
BPP = 0.25
CROP = 256  # side of the details in the picture, in samples


@dataclass(frozen=True)
class Result:
    """One codec on one photograph. bytes of the file, PSNR in dB, decoded uint8 [y, x, 3]."""

    codec: str
    bytes: int
    psnr: float
    decoded: NDArray[np.uint8]


def samples() -> list[Path]:
    return sorted((Path(api.__file__).parent / "samples").glob("*.webp"))


def run_demo(folder: Path) -> None:
    """Writes NAME.lpz, NAME.png for each sample and comparison.png; prints the table."""
    from rich.console import Console
    from rich.table import Table

    folder.mkdir(parents=True, exist_ok=True)
    table = Table("photograph", "codec", "bytes", "bpp", "PSNR dB", title="Every codec at no more bytes than latentpress")
    rows: list[tuple[Path, NDArray[np.uint8], list[Result]]] = []
    begin = perf_counter()
    for path in samples():
        image = np.ascontiguousarray(read_image(path).data)
        results = compare(image, folder / path.stem)
        rows.append((path, image, results))
        for i, r in enumerate(results):
            style = "bold" if i == 0 else None
            bpp = f"{8 * r.bytes / (image.shape[0] * image.shape[1]):.3f}"
            table.add_row(path.stem if i == 0 else "", r.codec, f"{r.bytes:,}", bpp, f"{r.psnr:.2f}", style=style)
    picture = folder / "comparison.png"
    write_file(picture, comparison(rows), overwrite=True)
    console = Console()
    console.print(table)
    console.print(f"files and decoded pictures in {folder}, details side by side in {picture}  ({perf_counter() - begin:.0f} s)")


def compare(image: NDArray[np.uint8], stem: Path) -> list[Result]:
    """latentpress through a real file at BPP, then each peer at no more bytes."""
    blob = api.encode(image, bpp=BPP)
    file = stem.with_suffix(".lpz")
    write_file(file, blob, overwrite=True)
    signal = api.decode(file)
    write_file(stem.with_suffix(".png"), image_bytes(signal, ".png"), overwrite=True)
    results = [Result("latentpress walloc-rgb", file.stat().st_size, psnr(image, signal.data), signal.data)]
    for name in PEERS:
        fit = at_most_bytes(family(name), image, len(blob))
        decoded = fit.peer.decode(fit.blob)
        results.append(Result(name, len(fit.blob), psnr(image, decoded), decoded))
    return results


def comparison(rows: list[tuple[Path, NDArray[np.uint8], list[Result]]]) -> bytes:
    """PNG: a detail of each photograph, the original and then every codec, with captions."""
    from PIL import Image, ImageDraw, ImageFont

    caption, gap = 34, 6
    columns = 1 + len(rows[0][2])
    sheet = Image.new("RGB", (columns * (CROP + gap) - gap, len(rows) * (CROP + caption + gap) - gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for r, (path, image, results) in enumerate(rows):
        y, x = busiest(image)
        cells: list[tuple[str, Any]] = [(f"{path.stem}, original\n{image.nbytes:,} bytes", image)]
        cells += [(f"{c.codec}\n{c.bytes:,} bytes, {c.psnr:.2f} dB", c.decoded) for c in results]
        for column, (text, pixels) in enumerate(cells):
            left, top = column * (CROP + gap), r * (CROP + caption + gap)
            sheet.paste(Image.fromarray(np.ascontiguousarray(pixels[y : y + CROP, x : x + CROP])), (left, top + caption))
            draw.text((left + 2, top + 1), text, fill="black", font=font)
    import io

    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def busiest(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Corner (y, x) of the square of CROP samples with the most contrast, on a grid of 32."""
    gray = image.mean(2)
    spots = [(y, x) for y in range(0, gray.shape[0] - CROP + 1, 32) for x in range(0, gray.shape[1] - CROP + 1, 32)]
    return max(spots, key=lambda s: float(np.abs(np.diff(gray[s[0] : s[0] + CROP, s[1] : s[1] + CROP])).mean()))
