"""YOLOv5 6.x: one-stage detection of objects at three (or four) scales, sizes n, s, m, l, x.

The published architecture (Jocher et al., release 6.0, 2021): a CSP backbone (Wang et al. 2020) whose blocks
are C3, spatial pyramid pooling in its fast form (SPPF), a path aggregation neck (Liu et al. 2018), and one
1x1 convolution a scale as head. What the maps mean is in `models/yolo_maps.py`; losses are not here.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.yolo_maps import ANCHORS, values_of

STRIDES = (8, 16, 32)
STRIDES_P6 = (8, 16, 32, 64)
MOMENTUM, EPS = 0.03, 1e-3  # of batch norm
CHANNELS = (64, 128, 256, 512, 1024)  # of the stem and the stages at width 1
CHANNELS_P6 = (64, 128, 256, 512, 768, 1024)
BLOCKS = (3, 6, 9, 3)  # bottlenecks of the stages at depth 1
BLOCKS_P6 = (3, 6, 9, 3, 3)
NECK = 3  # bottlenecks of each block of the neck


class Size(NamedTuple):
    depth: float  # factor of the bottlenecks
    width: float  # factor of the channels


SIZES = {
    "n": Size(1 / 3, 0.25),
    "s": Size(1 / 3, 0.5),
    "m": Size(2 / 3, 0.75),
    "l": Size(1.0, 1.0),
    "x": Size(4 / 3, 1.25),
}


class Conv(nn.Module):
    """Convolution, batch norm, SiLU; `fuse` makes the first two one, for inference."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = -1
    ) -> None:
        super().__init__()
        around = kernel // 2 if padding < 0 else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, around, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=EPS, momentum=MOMENTUM)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> None:
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, added to the input where `residual`."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.reduce, self.expand, self.residual = (
            Conv(channels, channels),
            Conv(channels, channels, 3),
            residual,
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.reduce(x))
        return x + y if self.residual else y


class C3(nn.Module):
    """A cross-stage partial block: bottlenecks on one half of the channels, the other half passes by."""

    def __init__(self, inputs: int, outputs: int, count: int, *, residual: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.through, self.past = Conv(inputs, half), Conv(inputs, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, residual=residual) for _ in range(count)))
        self.join = Conv(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.blocks(self.through(x)), self.past(x)], 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling: the maxima over 5, 9 and 13 cells beside the input (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce, self.join = Conv(inputs, inputs // 2), Conv(2 * inputs, outputs)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.reduce(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.join(torch.cat(maps, 1))


class Backbone(nn.Module):
    """Images [n, 3, h, w] -> the maps of the stages from stride 8 on, finest first."""

    def __init__(self, channels: Sequence[int], counts: Sequence[int]) -> None:
        super().__init__()
        self.stem = Conv(3, channels[0], 6, 2, 2)
        stages: list[nn.Module] = []
        for inputs, outputs, count in zip(channels, channels[1:], counts, strict=False):
            stages.append(nn.Sequential(Conv(inputs, outputs, 3, 2), C3(outputs, outputs, count)))
        self.stages = nn.ModuleList(stages)
        self.pyramid = SPPF(channels[-1], channels[-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [*maps[1:-1], self.pyramid(x)]


class Neck(nn.Module):
    """Path aggregation: from coarse to fine, and back. Maps of the backbone -> as many of the same shapes."""

    def __init__(self, channels: Sequence[int], count: int) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        self.reduce = nn.ModuleList(Conv(coarse, fine) for fine, coarse in reversed(pairs))
        self.up = nn.ModuleList(C3(2 * fine, fine, count, residual=False) for fine, _ in reversed(pairs))
        self.stride = nn.ModuleList(Conv(fine, fine, 3, 2) for fine, _ in pairs)
        self.down = nn.ModuleList(C3(2 * fine, coarse, count, residual=False) for fine, coarse in pairs)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x, kept = maps[-1], []
        for reduce, up, fine in zip(self.reduce, self.up, reversed(maps[:-1]), strict=True):
            kept.append(reduce(x))
            x = up(torch.cat([nn.functional.interpolate(kept[-1], scale_factor=2.0), fine], 1))
        found = [x]
        for stride, down, side in zip(self.stride, self.down, reversed(kept), strict=True):
            found.append(down(torch.cat([stride(found[-1]), side], 1)))
        return found


class YOLOv5(nn.Module):
    """Images [n, 3, h, w], sides multiples of the largest stride -> a map for each stride, finest first.

    A map is [n, anchors, h / stride, w / stride, 5 + classes + 2 points], before any sigmoid:
    `models.yolo_maps.decode` says what it means. Sizes of the anchors are pixels of the image.

    size: n | s | m | l | x, factors of depth and width
    classes: 1 or more
    points: landmarks of each object (0 = none; 5 for faces, as YOLO5Face has them, Qi et al. 2021)
    p6: a fourth scale of stride 64, for images of about 1280 pixels
    anchors: [scales, anchors, 2], width and height (None = those published for COCO)
    """

    anchors: Tensor

    def __init__(
        self,
        size: str = "s",
        *,
        classes: int = 80,
        points: int = 0,
        p6: bool = False,
        anchors: Sequence[Sequence[Sequence[float]]] | None = None,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size={size}: use one of {', '.join(SIZES)}")
        if classes < 1 or points < 0:
            raise ValueError(f"classes={classes}, points={points}: use classes=1 or more, points=0 or more")
        self.classes, self.points = classes, points
        self.strides = STRIDES_P6 if p6 else STRIDES
        sizes = torch.tensor(ANCHORS[len(self.strides)] if anchors is None else anchors)
        if sizes.ndim != 3 or sizes.shape[0] != len(self.strides) or sizes.shape[2] != 2:
            raise ValueError(f"anchors of shape {[*sizes.shape]}: use [{len(self.strides)}, anchors, 2]")
        self.register_buffer("anchors", sizes.float())
        depth, width = SIZES[size]
        channels = [-(-int(each * width) // 8) * 8 for each in (CHANNELS_P6 if p6 else CHANNELS)]
        counts = [max(round(each * depth), 1) for each in (BLOCKS_P6 if p6 else BLOCKS)]
        self.backbone = Backbone(channels, counts)
        self.neck = Neck(channels[2:], max(round(NECK * depth), 1))
        per_cell = sizes.shape[1] * values_of(classes, points)
        self.head = nn.ModuleList(nn.Conv2d(each, per_cell, 1) for each in channels[2:])
        self.begin_rare()

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.neck(self.backbone(images))
        return [self._by_anchor(head(each)) for head, each in zip(self.head, maps, strict=True)]

    def _by_anchor(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return x.view(n, self.anchors.shape[1], -1, h, w).permute(0, 1, 3, 4, 2)

    @torch.no_grad()
    def begin_rare(self, *, objects: float = 8.0, side: float = 640.0, share: float = 0.6) -> None:
        """Set the biases of the head to what is known: objects are rare (Lin et al. 2017, section 3.3).

        objects: in an image of `side` pixels, each found in one cell of each scale
        share: of the objects that are of any one class, over all classes
        """
        for head, stride in zip(self.head, self.strides, strict=True):
            bias = head.bias.view(self.anchors.shape[1], -1)  # type: ignore[operator]
            bias[:, 4] += math.log(objects / (side / stride) ** 2)
            bias[:, 5 : 5 + self.classes] += math.log(share / (self.classes - 0.99999))

    def fuse(self) -> "YOLOv5":
        """Make each batch norm a part of its convolution, in place; the outputs stay. For inference alone."""
        self.eval()
        for module in self.modules():
            if isinstance(module, Conv):
                module.fuse()
        return self
