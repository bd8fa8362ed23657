"""GoogLeNet: Inception v1 with batch norm, without classifier and auxiliary heads.

Szegedy et al., Going Deeper with Convolutions (2015, table 1), with the batch norm of Ioffe & Szegedy 2015.
As in the weights that torchvision publishes, the branch that the paper calls 5x5 is a 3x3 convolution, pools
round their size up, and batch norm has eps 1e-3. `models/siamese.py` puts an embedding on top.
"""

import torch
from torch import Tensor, nn

FEATURES = 1024
PARAMETERS = 5_599_904

STEM = 192
# Output channels of each inception block: 1x1 | reduce, 3x3 | reduce, "5x5" | pool projection.
BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3),
        nn.ReLU(inplace=True),
    )


def pool(kernel: int, stride: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel, stride, ceil_mode=True)


class Inception(nn.Module):
    """Four branches over one input, concatenated by channel: [n, inputs, h, w] -> [n, outputs, h, w]."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        point, reduce3, three, reduce5, five, project = widths
        self.outputs = point + three + five + project
        self.point = conv(inputs, point, 1)
        self.three = nn.Sequential(conv(inputs, reduce3, 1), conv(reduce3, three, 3))
        self.five = nn.Sequential(conv(inputs, reduce5, 1), conv(reduce5, five, 3))
        self.project = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), conv(inputs, project, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.point(x), self.three(x), self.five(x), self.project(x)], dim=1)


class GoogLeNet(nn.Module):
    """Images [n, 3, h, w] in [-1, 1] -> features [n, 1024], the global average of the last block."""

    features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, 64, 7, stride=2), pool(3, 2), conv(64, 64, 1), conv(64, STEM, 3), pool(3, 2)
        )
        channels = STEM
        blocks = nn.ModuleDict()
        for name, widths in BLOCKS.items():
            blocks[name] = block = Inception(channels, widths)
            channels = block.outputs
        self.blocks = blocks
        self.pools = nn.ModuleDict({"3b": pool(3, 2), "4e": pool(2, 2)})  # after the block of that name
        initialise(self)

    @property
    def last_map(self) -> nn.Module:
        """The module with the last feature map [n, c, h, w] as its output: where the network looks."""
        return self.blocks["5b"]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name, block in self.blocks.items():
            x = block(x)
            if name in self.pools:
                x = self.pools[name](x)
        return x.mean((2, 3))


def initialise(net: nn.Module) -> None:
    """Normal weights that keep the variance through ReLU (He et al. 2015, eq. 10); batch norm 1 and 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
