"""ResNet 18, 34 and 50 for faces of 112 pixels, without classifier.

He et al., Deep Residual Learning for Image Recognition (2016, table 1). What differs from the paper:
- The stem is a 3x3 convolution of stride 1 in place of 7x7 of stride 2, so that a face of 112 pixels has the
  maps that an image of 224 has in the paper, 7x7 at the end (Deng et al., ArcFace, arXiv 1801.07698v1).
- A bottleneck strides in its 3x3 convolution, and the last batch norm of a block begins at 0, so that the
  block begins as its shortcut (Goyal et al. 2017, section 5.1).
"""

from typing import cast

from torch import Tensor, nn

from models.googlenet import initialise

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # depth -> blocks
WIDTH = 64


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return a convolution that keeps the size at stride 1, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class Block(nn.Module):
    """ReLU(x' + body(x)): [n, inputs, h, w] -> [n, outputs, h / stride, w / stride].

    x' is x itself, or its projection by a 1x1 convolution where the shapes differ (option B of the paper).
    """

    def __init__(self, inputs: int, channels: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            outputs = 4 * channels
            layers = [
                *conv_norm(inputs, channels, 1),
                nn.ReLU(inplace=True),
                *conv_norm(channels, channels, 3, stride),
                nn.ReLU(inplace=True),
                *conv_norm(channels, outputs, 1),
            ]
        else:
            outputs = channels
            layers = [
                *conv_norm(inputs, channels, 3, stride),
                nn.ReLU(inplace=True),
                *conv_norm(channels, outputs, 3),
            ]
        self.outputs = outputs
        self.body = nn.Sequential(*layers)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.body(x))


class ResNet(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], at least 16 pixels -> features [n, 8 * width] (of 50: [n, 32 * width]).

    depth: 18 | 34 | 50; width: channels of the first stage, which each stage doubles.
    """

    def __init__(self, depth: int, width: int = WIDTH) -> None:
        super().__init__()
        conv, norm = conv_norm(3, width, 3)
        self.stem = nn.Sequential(conv, norm, nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1))
        stages, inputs = [], width
        for stage, count in enumerate(STAGES[depth]):
            blocks = []
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(inputs, width * 2**stage, stride=stride, bottleneck=depth >= 50))
                inputs = blocks[-1].outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.features = inputs
        initialise(self)
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(cast(nn.BatchNorm2d, module.body[-1]).weight)

    @property
    def last_map(self) -> nn.Module:
        """The module with the last feature map [n, c, h, w] as its output: where the network looks."""
        return self.stages

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x)).mean((2, 3))
