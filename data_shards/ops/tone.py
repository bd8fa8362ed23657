"""One matrix and one table an image: what the ops that change colours share."""

import numpy as np
import torch
from torch import Tensor

from data_shards.ops.base import upload

LEVELS = np.arange(256, dtype=np.float64)  # what a table maps


def apply_matrix(images: Tensor, maps: np.ndarray) -> Tensor:
    """RGB images [n, 3, h, w] in [-1, 1] by maps [n, 3, 4] of that range, clamped to it."""
    m = upload(maps, images.device)[..., None, None]  # [n, 3, 4, 1, 1]
    red, green, blue = (images[:, at : at + 1] for at in range(3))
    return (m[:, :, 0] * red + m[:, :, 1] * green + m[:, :, 2] * blue + m[:, :, 3]).clamp_(-1, 1)


def apply_table(images: Tensor, tables: np.ndarray) -> Tensor:
    """Images [n, c, h, w] in [-1, 1] through tables [n, 256] of levels 0..255, linear between two."""
    table = upload(tables / 127.5 - 1, images.device)[:, None].expand(-1, images.shape[1], -1)
    level = (images.flatten(2) + 1) * 127.5
    low = level.floor().clamp_(0, 254)
    index = low.to(torch.int64)
    lower, upper = table.gather(2, index), table.gather(2, index + 1)
    return torch.lerp(lower, upper, level - low).clamp_(-1, 1).reshape(images.shape)
