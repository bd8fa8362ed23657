"""EfficientNet-Lite0: images [n, 3, 224, 224] in [-1, 1] -> logits of ImageNet's 1,000 classes, and features.

Tan and Le, EfficientNet (ICML 2019), table 1 (B0), as its authors' edge variant has it: no squeeze and
excitation, ReLU6 in place of swish. 4,652,008 parameters. A convolution of stride 2 pads right and below more
than left and above, as TensorFlow's SAME does, with which the published weights were trained.
"""

import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, CLASSES = 1280, 1000
SIDE = 224
# expansion, kernel, stride, channels, repeats
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class ConvNorm(nn.Module):
    """Convolution with SAME padding and batch norm; ReLU6 where `active`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(F.pad(x, self._padding(*x.shape[-2:]))))
        return F.relu6(x) if self.active else x

    def _padding(self, height: int, width: int) -> tuple[int, ...]:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        sides: list[int] = []
        for length in (width, height):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            sides += [total // 2, total - total // 2]
        return tuple(sides)


class Inverted(nn.Module):
    """Inverted bottleneck (Sandler et al., CVPR 2018): 1x1 up, depthwise, 1x1 down, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride=stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1, active=False)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found = self.project(self.depthwise(self.expand(x)))
        return x + found if self.shortcut else found


class EfficientNetLite0(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], 224 x 224 as trained -> `features` [n, 1280], or logits [n, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        inputs = 32
        for expansion, kernel, stride, outputs, repeats in STAGES:
            for number in range(repeats):
                self.blocks.append(
                    Inverted(
                        inputs,
                        outputs,
                        expansion=expansion,
                        kernel=kernel,
                        stride=stride if number == 0 else 1,
                    )
                )
                inputs = outputs
        self.head = ConvNorm(inputs, FEATURES, 1)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the published weights (`_blocks.3._depthwise_conv.weight`) by the names of this module."""
    parts = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    whole = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "fc",
    }
    found = {}
    for name, tensor in state.items():
        first, *rest = name.split(".")
        if first == "_blocks" and len(rest) > 2:
            words = ["blocks", rest[0], parts.get(rest[1], rest[1]), *rest[2:]]
        else:
            words = [whole.get(first, first), *rest]
        found[".".join(words)] = tensor
    return found
