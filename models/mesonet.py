"""Meso4 and MesoInception4, small networks that tell a face from a forged one, without their last layer.

Afchar et al., MesoNet: a Compact Facial Video Forgery Detection Network (2018, arXiv 1809.00888, figures 3
to 5), with the details of the authors' Keras model, so that its published weights fit
(`hpc/inference/convert_mesonet.py`): ReLU before batch norm, eps 1e-3, LeakyReLU 0.1, dropout 0.5 before
both dense layers. With the last layer, 16 -> 1, they have 28,073 and 28,725 parameters, running statistics
counted.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.grid import to_grid

FEATURES = 16
SIDE = 8  # of the last map for images of 256 pixels: the first dense layer sees 16 x 8 x 8 numbers
DROPOUT = 0.5


class ConvRelu(nn.Sequential):
    """Convolution that keeps the size, ReLU: [n, inputs, h, w] -> [n, outputs, h, w]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation), nn.ReLU())


class MesoInception(nn.Module):
    """Four branches with growing dilation, concatenated: [n, inputs, h, w] -> [n, sum(widths), h, w].

    A 1x1 convolution; then 1x1 and 3x3 with dilation 1, 2 and 3 (figure 4 of the paper).
    """

    def __init__(self, inputs: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvRelu(inputs, widths[0], 1)])
        for dilation, width in enumerate(widths[1:], start=1):
            branch = nn.Sequential(ConvRelu(inputs, width, 1), ConvRelu(width, width, 3, dilation))
            self.branches.append(branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class MesoNet(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], at least 16 pixels -> features [n, 16].

    Made for 256 x 256. The last map of another size is averaged, or repeated, to 8 x 8 (`models/grid.py`):
    such a network can be trained, but published weights are for 256 alone.
    """

    features = FEATURES

    def __init__(self, layers: tuple[nn.Module, ...], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        # Keras averages with momentum 0.99
        self.norms = nn.ModuleList(nn.BatchNorm2d(count, eps=1e-3, momentum=0.01) for count in channels)
        self.drop = nn.Dropout(DROPOUT)
        self.dense = nn.Linear(channels[-1] * SIDE * SIDE, FEATURES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # as Keras's layers begin
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def last_map(self) -> nn.Module:
        """The module with the last feature map [n, c, h, w] as its output: where the network looks."""
        return self.layers[-1]  # before the last pool

    def forward(self, images: Tensor) -> Tensor:
        x = images * 0.5 + 0.5  # the authors' range: the zeros that pad the borders are black
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            pool = 4 if number == 3 else 2
            x = F.max_pool2d(norm(layer(x)), pool, ceil_mode=True)
        x = self.drop(to_grid(x, SIDE).flatten(1))
        return self.drop(F.leaky_relu(self.dense(x), 0.1))


class Meso4(MesoNet):
    """Four convolutions (figure 3 of the paper)."""

    def __init__(self) -> None:
        layers = (ConvRelu(3, 8, 3), ConvRelu(8, 8, 5), ConvRelu(8, 16, 5), ConvRelu(16, 16, 5))
        super().__init__(layers, (8, 8, 16, 16))


class MesoInception4(MesoNet):
    """Two inception modules in the place of the first two convolutions (section 3.2 of the paper)."""

    def __init__(self) -> None:
        first, second = MesoInception(3, (1, 4, 4, 2)), MesoInception(11, (2, 4, 4, 2))
        super().__init__((first, second, ConvRelu(12, 16, 5), ConvRelu(16, 16, 5)), (11, 12, 16, 16))
