"""Inception-v3 without its auxiliary head: images [n, 3, 299, 299] in [-1, 1] -> pooled features [n, 2048].

Szegedy et al., Rethinking the Inception Architecture (CVPR 2016), table 1, figures 5 to 7. Its parameters are
named as in the state dicts that are passed around, so that a file which a user has can be loaded. Files of
1,008 classes are of the network by which FID is defined (Heusel et al. 2017): its mean pools leave the
padding out, and its last block pools by the maximum.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, SIDE = 2048, 299
FID_CLASSES = 1008  # of the graph of December 2015 by which FID is computed
Kernel = int | tuple[int, int]
Step = tuple[str, int, Kernel] | tuple[str, int, Kernel, int]  # name, channels, kernel, stride


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU. padding: None = the size is kept."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, *, padding: int | None
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        kept = (height // 2, width // 2) if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kept, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches of convolutions beside a pool, concatenated.

    branches: the convolutions of each, one after the other; a last two whose names end in `a` and `b` stand
    side by side. A convolution with a stride has no padding. pooled: channels of the convolution behind the
    pool (0 = there is none, and the pool halves the sides). pool: mean | inner mean (without padding) | max.
    """

    def __init__(
        self,
        inputs: int,
        branches: tuple[tuple[Step, ...], ...],
        *,
        pooled: int = 0,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        self.paths: list[list[str]] = []
        self.pooled, self.pool = pooled, pool
        for branch in branches:
            before = channels = inputs
            names: list[str] = []
            for name, outputs, kernel, *stride in branch:
                if not (names and _side_by_side(names[-1], name)):
                    before = channels
                padding = 0 if stride else None
                self.add_module(name, ConvNorm(before, outputs, kernel, *stride, padding=padding))
                names.append(name)
                channels = outputs
            self.paths.append(names)
        if pooled:
            self.branch_pool = ConvNorm(inputs, pooled, 1, padding=None)

    def forward(self, x: Tensor) -> Tensor:
        found = [part for names in self.paths for part in self._branch(x, names)]
        if not self.pooled:
            found.append(F.max_pool2d(x, 3, 2))
        elif self.pool == "max":
            found.append(self.branch_pool(F.max_pool2d(x, 3, 1, 1)))
        else:
            padded = self.pool == "mean"
            found.append(self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=padded)))
        return torch.cat(found, 1)

    def _branch(self, x: Tensor, names: list[str]) -> list[Tensor]:
        split = len(names) > 1 and _side_by_side(*names[-2:])
        for name in names[:-2] if split else names:
            x = self.get_submodule(name)(x)
        return [self.get_submodule(name)(x) for name in names[-2:]] if split else [x]


def _side_by_side(one: str, other: str) -> bool:
    """Whether two convolutions stand side by side, such as the 1x3 `branch3x3_2a` and 3x1 `branch3x3_2b`."""
    return one.endswith("a") and other == f"{one[:-1]}b"


def _figure_5(inputs: int, pooled: int, pool: str) -> Mixed:
    return Mixed(
        inputs,
        (
            (("branch1x1", 64, 1),),
            (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
            (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        ),
        pooled=pooled,
        pool=pool,
    )


def _figure_6(width: int, pool: str) -> Mixed:
    flat, tall = (1, 7), (7, 1)
    return Mixed(
        768,
        (
            (("branch1x1", 192, 1),),
            (("branch7x7_1", width, 1), ("branch7x7_2", width, flat), ("branch7x7_3", 192, tall)),
            (
                ("branch7x7dbl_1", width, 1),
                ("branch7x7dbl_2", width, tall),
                ("branch7x7dbl_3", width, flat),
                ("branch7x7dbl_4", width, tall),
                ("branch7x7dbl_5", 192, flat),
            ),
        ),
        pooled=192,
        pool=pool,
    )


def _figure_7(inputs: int, pool: str) -> Mixed:
    flat, tall = (1, 3), (3, 1)
    return Mixed(
        inputs,
        (
            (("branch1x1", 320, 1),),
            (("branch3x3_1", 384, 1), ("branch3x3_2a", 384, flat), ("branch3x3_2b", 384, tall)),
            (
                ("branch3x3dbl_1", 448, 1),
                ("branch3x3dbl_2", 384, 3),
                ("branch3x3dbl_3a", 384, flat),
                ("branch3x3dbl_3b", 384, tall),
            ),
        ),
        pooled=192,
        pool=pool,
    )


class InceptionV3(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], 299 x 299 as trained -> `features` [n, 2048], logits [n, classes]."""

    def __init__(self, classes: int = FID_CLASSES) -> None:
        super().__init__()
        self.fid = classes == FID_CLASSES
        pool, last = ("inner mean", "max") if self.fid else ("mean", "mean")
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, 2, padding=0)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1, padding=0)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, padding=0)
        self.Mixed_5b = _figure_5(192, 32, pool)
        self.Mixed_5c = _figure_5(256, 64, pool)
        self.Mixed_5d = _figure_5(288, 64, pool)
        double = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2))
        self.Mixed_6a = Mixed(288, ((("branch3x3", 384, 3, 2),), double))
        self.Mixed_6b = _figure_6(128, pool)
        self.Mixed_6c = _figure_6(160, pool)
        self.Mixed_6d = _figure_6(160, pool)
        self.Mixed_6e = _figure_6(192, pool)
        long = (
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3, 2),
        )
        self.Mixed_7a = Mixed(768, ((("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)), long))
        self.Mixed_7b = _figure_7(1280, pool)
        self.Mixed_7c = _figure_7(2048, last)
        self.fc = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))
