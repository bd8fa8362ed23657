"""What the networks that make images cost, said before torch is loaded. Imports no torch.

Counts follow the layers of `dcgan.py`, `progan.py`, `stylegan.py` and `cyclegan.py`; a test compares them
with the networks.
"""

from dataclasses import dataclass

from models.resolution import channels_at

BASE = 4  # pixels of level 0
MAPPING = 8  # layers of StyleGAN's mapping


@dataclass
class Cost:
    """What one network costs.

    parameters: of all of it
    kept: numbers that an image keeps for the backward pass
    work: multiplications of an image in the forward pass
    """

    parameters: int = 0
    kept: float = 0.0
    work: float = 0.0

    def conv(self, inputs: int, outputs: int, kernel: int, pixels: int, *, bias: bool = True) -> None:
        """Count a convolution whose kernel meets each of `pixels` once."""
        weights = inputs * outputs * kernel**2
        self.parameters += weights + outputs * bias
        self.work += weights * pixels

    def norm(self, channels: int) -> None:
        self.parameters += 2 * channels

    def blur(self, channels: int, pixels: int) -> None:
        self.work += 9 * channels * pixels
        self.keep(channels, pixels)

    def keep(self, channels: float, pixels: int) -> None:
        """Count maps that wait for the backward pass."""
        self.kept += channels * pixels


def dcgan_generator(size: int, width: int, latents: int) -> Cost:
    cost, channels, side = Cost(), width * size // 8, BASE
    cost.conv(latents, channels, 4, 1, bias=False)
    while side < size // 2:
        cost.norm(channels)
        cost.keep(2 * channels, side**2)
        cost.conv(channels, channels // 2, 4, side**2, bias=False)
        channels, side = channels // 2, 2 * side
    cost.norm(channels)
    cost.keep(2 * channels, side**2)
    cost.conv(channels, 3, 4, side**2, bias=False)
    cost.keep(3, size**2)
    return cost


def dcgan_judge(size: int, width: int) -> Cost:
    cost, channels, side = Cost(), width, size // 2
    cost.keep(3, size**2)
    cost.conv(3, channels, 4, side**2, bias=False)
    cost.keep(channels, side**2)
    while side > BASE:
        channels, side = 2 * channels, side // 2
        cost.conv(channels // 2, channels, 4, side**2, bias=False)
        cost.norm(channels)
        cost.keep(2 * channels, side**2)
    cost.conv(channels, 1, 4, 1, bias=False)
    return cost


def cyclegan_generator(size: int, width: int, blocks: int) -> Cost:
    cost, inner = Cost(), size // 4  # pixels of a side in the blocks
    cost.conv(3, width, 7, size**2)
    cost.keep(3, (size + 6) ** 2)  # padded copies, which a convolution keeps
    cost.keep(2 * width, size**2)
    for channels, side in ((2 * width, size // 2), (4 * width, inner)):
        cost.conv(channels // 2, channels, 3, side**2)
        cost.keep(2 * channels, side**2)
    for _ in range(2 * blocks):
        cost.conv(4 * width, 4 * width, 3, inner**2)
        cost.keep(4 * width, (inner + 2) ** 2)
        cost.keep(1.5 * 4 * width, inner**2)  # the activation follows the first of two
    cost.keep(4 * width, inner**2)
    for channels, side in ((2 * width, size // 2), (width, size)):
        cost.conv(2 * channels, channels, 3, (side // 2) ** 2)
        cost.keep(2 * channels, side**2)
    cost.conv(width, 3, 7, size**2)
    cost.keep(width, (size + 6) ** 2)
    cost.keep(3, size**2)
    return cost


def cyclegan_judge(size: int, width: int) -> Cost:
    cost, channels, side = Cost(), width, size // 2
    cost.conv(3, channels, 4, side**2)
    cost.keep(3, size**2)
    cost.keep(channels, side**2)
    for last in (False, False, True):
        side = side - 1 if last else side // 2
        cost.conv(channels, 2 * channels, 4, side**2)
        channels *= 2
        cost.keep(2 * channels, side**2)
    cost.conv(channels, 1, 4, (side - 1) ** 2)
    return cost


def progan_generator(level: int, width: int, latents: int) -> Cost:
    cost, channels = Cost(), [channels_at(each, width) for each in range(level + 1)]
    cost.conv(latents, channels[0], 4, 1)
    cost.conv(channels[0], channels[0], 3, BASE**2)
    cost.keep(5 * channels[0], BASE**2)
    for each in range(1, level + 1):
        below, here, pixels = channels[each - 1], channels[each], (BASE << each) ** 2
        cost.conv(below, here, 3, pixels)
        cost.conv(here, here, 3, pixels)
        cost.keep(below + 5 * here, pixels)
    _add_colours(cost, channels, images=False)
    return cost


def stylegan_generator(level: int, width: int, latents: int) -> Cost:
    """Count the mapping too."""
    cost, channels = Cost(), [channels_at(each, width) for each in range(level + 1)]
    for _ in range(MAPPING):
        cost.conv(latents, latents, 1, 1)
    cost.parameters += channels[0] * BASE**2  # the learned constant
    cost.conv(channels[0], channels[0], 3, BASE**2, bias=False)
    _add_styles(cost, channels[0], latents, BASE**2)
    for each in range(1, level + 1):
        below, here, pixels = channels[each - 1], channels[each], (BASE << each) ** 2
        cost.conv(below, here, 3, pixels, bias=False)
        cost.conv(here, here, 3, pixels, bias=False)
        cost.keep(below + here, pixels)
        cost.blur(here, pixels)
        _add_styles(cost, here, latents, pixels)
    _add_colours(cost, channels, images=False)
    return cost


def growing_judge(level: int, width: int, *, blur: bool) -> Cost:
    """Count the judge of both networks that grow."""
    cost, channels = Cost(), [channels_at(each, width) for each in range(level + 1)]
    for each in range(1, level + 1):
        below, here, pixels = channels[each - 1], channels[each], (BASE << each) ** 2
        cost.conv(here, here, 3, pixels)
        cost.conv(here, below, 3, pixels)
        cost.keep(3 * here + 2 * below, pixels)
        if blur:
            cost.blur(below, pixels)
    _add_colours(cost, channels, images=True)
    cost.conv(channels[0] + 1, channels[0], 3, BASE**2)
    cost.conv(channels[0], channels[0], 4, 1)
    cost.conv(channels[0], 1, 1, 1)
    cost.keep(4 * channels[0], BASE**2)
    return cost


def _add_styles(cost: Cost, channels: int, latents: int, pixels: int) -> None:
    """Count noise, bias and style behind each of two convolutions."""
    for _ in range(2):
        cost.parameters += 2 * channels
        cost.conv(latents, 2 * channels, 1, 1)
        cost.keep(3 * channels, pixels)


def _add_colours(cost: Cost, channels: list[int], *, images: bool) -> None:
    """Count the layer of each level between maps and images, of which the last one works.

    images: whether it takes images, else it makes them
    """
    for here in channels:
        cost.parameters += 4 * here if images else 3 * here + 3
    pixels = (BASE << len(channels) - 1) ** 2
    cost.work += 3 * channels[-1] * pixels
    cost.keep(channels[-1] + 3 * images, pixels)
