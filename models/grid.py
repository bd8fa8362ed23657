"""What networks for small faces share: the grey image, and a feature map cut to a grid of fixed side."""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, the Y of JPEG


def grey(images: Tensor) -> Tensor:
    """Return the luma [n, 1, h, w] of RGB images [n, 3, h, w], in the same range."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def to_grid(x: Tensor, side: int) -> Tensor:
    """Average feature maps [n, c, h, w] to [n, c, side, side]; maps of that side stay as they are.

    A cell is the mean of floor(i h / side) ... ceil((i + 1) h / side), which repeats what a smaller map has:
    adaptive average pooling, written as two products since its backward on a GPU is not deterministic.
    """
    for dim in (2, 3):
        if x.shape[dim] != side:
            x = (x.transpose(dim, 3) @ _means(x.shape[dim], side).to(x)).transpose(dim, 3)
    return x


def _means(size: int, side: int) -> Tensor:
    """Return [size, side]: column i has the weights of cell i."""
    weights = torch.zeros(size, side)
    for cell in range(side):
        start, end = cell * size // side, -(-(cell + 1) * size // side)
        weights[start:end, cell] = 1 / (end - start)
    return weights
