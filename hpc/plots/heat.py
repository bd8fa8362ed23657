"""Draws heat maps over images, and a sheet of images with a caption each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_shards.files import write_bytes

OPAQUE = 0.55  # how much of the hottest place is colour
GAP, LINE, FONT = 8, 16, 12  # pixels
PAPER, INK = "white", "#1a1a1a"


@dataclass(frozen=True)
class Cell:
    """An image of a sheet, uint8 [h, w, 3], and the lines below it."""

    image: np.ndarray
    lines: Sequence[str]


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return `image` uint8 [h, w, 3] (RGB) below the colours of `heat` [h, w] in [0, 1]; 0 leaves it bare."""
    levels = np.round(heat * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    share = OPAQUE * heat[..., None]
    return np.round(image * (1 - share) + colours * share).astype(np.uint8)


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image or a map, enlarged by a whole factor until its width is `side` pixels or more."""
    factor = max(1, -(-side // image.shape[1]))
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def draw_sheet(path: Path, cells: Sequence[Cell], *, title: str, columns: int = 6) -> None:
    """Draw cells of equal size as a PNG, row by row. A caption is cut to the width of its cell."""
    font = ImageFont.load_default(FONT)
    high = max((cell.image.shape[0] for cell in cells), default=0)
    wide = max((cell.image.shape[1] for cell in cells), default=200)
    below = LINE * max((len(cell.lines) for cell in cells), default=0)
    rows, columns = -(-len(cells) // columns), max(1, min(columns, len(cells)))
    width = GAP + columns * (wide + GAP)
    sheet = Image.new("RGB", (width, 2 * GAP + LINE + rows * (high + below + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _cut(title, font, width - 2 * GAP), fill=INK, font=font)
    for number, cell in enumerate(cells):
        left = GAP + number % columns * (wide + GAP)
        top = 2 * GAP + LINE + number // columns * (high + below + GAP)
        sheet.paste(Image.fromarray(cell.image), (left, top))
        for line, text in enumerate(cell.lines):
            draw.text((left, top + high + line * LINE), _cut(text, font, wide), fill=INK, font=font)
    _, data = cv2.imencode(".png", cv2.cvtColor(np.asarray(sheet), cv2.COLOR_RGB2BGR))
    write_bytes(path, data.tobytes())


def _cut(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """Return as much of a line as fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
