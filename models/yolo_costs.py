"""What a YOLOv5 costs, without torch: its parameters, and the memory that an image needs for backward.

The layers are those of `models/yolov5.py`, walked by their shapes alone; a test compares the two.
"""

from dataclasses import dataclass, field
from itertools import pairwise

CHANNELS = {False: (64, 128, 256, 512, 1024), True: (64, 128, 256, 512, 768, 1024)}  # by p6
BLOCKS = {False: (3, 6, 9, 3), True: (3, 6, 9, 3, 3)}
NECK = 3
FACTORS = {"n": (1 / 3, 0.25), "s": (1 / 3, 0.5), "m": (2 / 3, 0.75), "l": (1.0, 1.0), "x": (4 / 3, 1.25)}
ANCHORS = 3
KEPT = 3  # maps that a layer keeps: the convolution's, the norm's, and the sigmoid's input of SiLU


@dataclass
class _Walk:
    """Sums over the layers; `pixels` of a map are those of its stride, of an image of one pixel."""

    parameters: int = 0
    values: float = 0.0  # kept for backward, by pixel of the image
    strides: list[int] = field(default_factory=list)

    def conv(self, inputs: int, outputs: int, stride: int, kernel: int = 1) -> int:
        self.parameters += kernel**2 * inputs * outputs + 2 * outputs
        self.values += KEPT * outputs / stride**2
        return outputs

    def block(self, inputs: int, outputs: int, count: int, stride: int) -> int:
        half = outputs // 2
        self.conv(inputs, half, stride)
        self.conv(inputs, half, stride)
        for _ in range(count):
            self.conv(half, half, stride)
            self.conv(half, half, stride, 3)
        self.values += outputs / stride**2  # what is joined
        return self.conv(2 * half, outputs, stride)


def cost(model: str, *, classes: int, p6: bool = False, points: int = 0) -> tuple[int, float]:
    """Return (parameters, fp32 values kept for backward by pixel of an image)."""
    depth, width = FACTORS[model]
    channels = [-(-int(each * width) // 8) * 8 for each in CHANNELS[p6]]
    counts = [max(round(each * depth), 1) for each in BLOCKS[p6]]
    walk, stride = _Walk(), 2
    walk.conv(3, channels[0], stride, 6)
    for inputs, outputs, count in zip(channels, channels[1:], counts, strict=False):
        stride *= 2
        walk.conv(inputs, outputs, stride, 3)
        walk.block(outputs, outputs, count, stride)
    top = channels[-1]
    walk.conv(top, top // 2, stride)
    walk.values += 2 * top / stride**2
    walk.conv(2 * top, top, stride)
    scales, neck = channels[2:], max(round(NECK * depth), 1)
    pairs = list(enumerate(pairwise(scales)))
    for place, (fine, coarse) in reversed(pairs):
        walk.conv(coarse, fine, 16 << place)
        walk.values += 2 * fine / (8 << place) ** 2
        walk.block(2 * fine, fine, neck, 8 << place)
    for place, (fine, coarse) in pairs:
        walk.conv(fine, fine, 16 << place, 3)
        walk.values += 2 * fine / (16 << place) ** 2
        walk.block(2 * fine, coarse, neck, 16 << place)
    for place, each in enumerate(scales):
        outputs = ANCHORS * (5 + classes + 2 * points)
        walk.parameters += (each + 1) * outputs
        walk.values += 4 * outputs / (8 << place) ** 2
    return walk.parameters, walk.values
