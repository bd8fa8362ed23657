"""A trunk of four convolutions for smoke runs and tests: the interface of GoogLeNet, little work.

Not for results: `models/googlenet.py` is the network of the siamese job.
"""

from torch import Tensor, nn

from models.googlenet import conv, initialise

WIDTHS = (16, 32, 64, 128)


class Small(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], h and w at least 16 -> features [n, 128]."""

    features = WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.layers = nn.Sequential(*(conv(a, b, 3, stride=2) for a, b in zip(inputs, WIDTHS, strict=True)))
        initialise(self)

    @property
    def last_map(self) -> nn.Module:
        """The module with the last feature map [n, c, h, w] as its output: where the network looks."""
        return self.layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))
