"""A small grey network for the 40 attributes of CelebA: four times convolution, ReLU, max-pool; then dense.

The plain recipe of LeCun et al. (1998) with ReLU and without batch norm. Its sigmoids, loss and optimizer are
the task's.
"""

from torch import Tensor, nn

from models.googlenet import initialise
from models.grid import grey, to_grid

WIDTH = 32
STAGES = (1, 2, 4, 4)  # channels of each convolution, in widths
FEATURES = 256
SIDE = 4  # of the last map for images of 64 pixels


class CNN(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], at least 16 pixels, made grey -> features [n, 256].

    width: channels of the first convolution. The last map of images that are not of 64 pixels is averaged, or
    repeated, to 4 x 4 (`models/grid.py`).
    """

    features = FEATURES

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in (width * factor for factor in STAGES):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            layers += [convolution, nn.ReLU(inplace=True), nn.MaxPool2d(2, ceil_mode=True)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Linear(inputs * SIDE * SIDE, FEATURES), nn.ReLU(inplace=True))
        initialise(self)

    @property
    def last_map(self) -> nn.Module:
        """The module with the last feature map [n, c, h, w] as its output: where the network looks."""
        return self.layers[-2]  # before the last pool

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(to_grid(self.layers(grey(images)), SIDE).flatten(1))
