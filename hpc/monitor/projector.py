"""TensorBoard's embedding projector: vectors, labels and thumbnails of the last evaluation, as files.

The projector reads files, not events, and shows one state: each evaluation takes the place of the one before,
so the folder does not grow.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_shards.files import write_bytes

MOST = 2048  # pixels of a side of what is put into an event file, which grows with the run
THUMBNAIL = 64  # pixels; the projector takes sprites of up to 8192


def grid(images: Tensor, *, gap: int = 0, square: bool = False) -> np.ndarray:
    """uint8 [n, 3 or 1, h, w] -> one image [H, W, 3], row by row. `square`: as many rows as columns."""
    n, _, height, width = images.shape
    columns = max(1, math.ceil(math.sqrt(n)))
    rows = columns if square else math.ceil(n / columns)
    sheet = np.zeros((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), np.uint8)
    for place, image in enumerate(images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()):
        top = gap + place // columns * (height + gap)
        left = gap + place % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def reduced(image: np.ndarray, most: int = MOST) -> np.ndarray:
    """Return an image [h, w, 3] whose longer side has at most so many pixels, averaged by area."""
    scale = most / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def png(image: np.ndarray) -> bytes:
    """An image [h, w, 3] uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _shrink(thumbnails: Tensor) -> Tensor:
    if thumbnails.shape[-1] <= THUMBNAIL:
        return thumbnails
    small = torch.nn.functional.interpolate(thumbnails.float(), size=(THUMBNAIL, THUMBNAIL), mode="area")
    return small.round().to(torch.uint8)


def write(
    run: Path,
    clock: int,
    vectors: np.ndarray,
    thumbnails: Tensor,
    columns: Mapping[str, Sequence[Any]],
) -> None:
    """Show `vectors` [n, d], `thumbnails` (uint8 [n, 3, h, w]) and labels (`columns`: name -> n values)."""
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder = run / "projector"
    folder.mkdir(exist_ok=True)
    lines = ["\t".join(f"{x:.6g}" for x in row) for row in vectors.tolist()]
    write_bytes(folder / "tensors.tsv", ("\n".join(lines) + "\n").encode())
    rows = [
        "\t".join(str(value).replace("\t", " ") for value in row)
        for row in zip(*columns.values(), strict=True)
    ]
    if len(columns) > 1:  # a file of one column has no header
        rows.insert(0, "\t".join(columns))
    write_bytes(folder / "metadata.tsv", ("\n".join(rows) + "\n").encode())
    small = _shrink(thumbnails)
    write_bytes(folder / "sprite.png", png(grid(small, square=True)))
    config = ProjectorConfig()
    entry = config.embeddings.add()
    entry.tensor_name = f"embedding at {clock} images"
    entry.tensor_path = "projector/tensors.tsv"
    entry.metadata_path = "projector/metadata.tsv"
    entry.sprite.image_path = "projector/sprite.png"
    entry.sprite.single_image_dim.extend([small.shape[-1], small.shape[-2]])
    write_bytes(run / "projector_config.pbtxt", str(config).encode())
