"""pix2pix: from image to image by pairs, a U-Net and a judge of patches. Also segmentation, by a palette.

Isola et al., Image-to-image translation with conditional adversarial networks (CVPR 2017): vanilla GAN and
100 times L1 (section 3.1, appendix 6.2). The judge steps first, on the image that the generator then learns
from: the dropout of both phases is that of the slot. Networks are in `models/pix2pix.py`, the halves of sets
and their direction in `data_shards/sources/paired.py`, the figures in `hpc/evaluation/paired.py`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, pixels_of
from data_shards.errors import UserError
from hpc.evaluation.paired import Paired
from hpc.generator import Translator
from hpc.losses import adversarial as losses
from hpc.metrics.paired import l1, nearest_colours
from hpc.task import Batch, Phase, Rendered, Task
from hpc.tasks.pix2pix_plan import direction_of, palette_of
from models.pix2pix import PatchDiscriminator, UNet

SHOWN = 8  # rows of the monitor's picture
LOSS = losses.LOSSES["vanilla"]
Noise = Callable[[nn.Module, Tensor], Tensor | None]


class Pix2Pix(Task):
    """A generator G and a judge D of pairs. Held-out L1, or with a palette the overlap, names the best."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.palette = palette = palette_of(config.task["palette"])
        self.metric = ("paired/iou", "max") if palette.names else ("paired/l1", "min")
        self.evaluators = {"paired": lambda: Paired(palette=palette.colours, names=palette.names)}
        self.given = self.target = ""  # names of the batch's images
        self.noise_size = 0  # of the dropout of an image in training, once the networks are built
        self._dropped: dict[tuple[int, int], Tensor] = {}  # noise of the dropout at test time, by size

    def players(self) -> dict[str, nn.Module]:
        width = self.config.task["width"]
        generator = UNet(self.config.data.size, width=width)
        self.noise_size = generator.noise_size  # an engine may hide it
        return {"G": generator, "D": PatchDiscriminator(6, width=width)}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("judge", "D"), Phase("make", "G")]

    def begin(self, sets: Mapping[str, Any]) -> None:
        if direction := direction_of(sets):
            self.given, self.target = direction

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        given, target = batch.images[self.given], batch.images[self.target]
        if phase.name == "make":
            fake = self.make(nets["G"], given, batch)
            wrong = losses.l1(fake, target)
            self.report("l1", wrong.detach())
            return LOSS.generator(nets["D"](given, fake)) + self.config.task["l1"] * wrong
        with torch.no_grad():
            fake = self.make(nets["G"], given, batch)
        of_real, of_fake = nets["D"](given, target), nets["D"](given, fake)
        self.report("score_real", of_real.detach().float().mean())
        self.report("score_fake", of_fake.detach().float().mean())
        return LOSS.judge(of_real, of_fake)

    def make(self, generator: nn.Module, given: Tensor, batch: Batch) -> Tensor:
        """Translate images [n, 3, h, w] as in training, with the dropout of their slots."""
        if not self.config.task["dropout"]:
            return generator(given)
        return generator(given, batch.noise("dropout", self.noise_size))

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Translate `batch.images["image"]`: {"image": [n, 3, h, w]} in [-1, 1]."""
        return {IMAGE: self.translator(nets)(batch.images[IMAGE])}

    def translator(self, nets: Mapping[str, nn.Module], *, direction: str = "") -> "Translating":
        if direction:
            raise UserError(
                f"direction={direction}: a run of {self.config.task['name']} translates one way, as its set "
                "states it: leave direction out"
            )
        return Translating(nets["G"], self.test_noise, own=self.config.task["test_stats"] == "batch")

    def test_noise(self, generator: nn.Module, images: Tensor) -> Tensor | None:
        """Return the noise of the dropout at test time, [n, d]; None without dropout.

        It is the same for all images, so that none depends on its place among others.
        """
        if not (self.config.task["dropout"] and self.config.task["test_dropout"]):
            return None
        height, width = images.shape[-2:]
        if (height, width) not in self._dropped:
            shapes: list[tuple[int, ...]] = generator.masks(height, width)  # type: ignore[operator]
            size = sum(math.prod(shape) for shape in shapes)
            with torch.inference_mode(False), torch.no_grad():
                one = Batch.of_positions(torch.zeros(1, dtype=torch.int64), self.config.seed)
                noise = one.prepare(images.device).noise("test dropout", size)
            self._dropped[height, width] = noise
        return self._dropped[height, width].expand(images.shape[0], -1)  # an export traces it

    def render(self, image: np.ndarray, prediction: dict[str, np.ndarray]) -> Rendered:
        """Return the translated image; the record holds the share of each label, or the L1 to the input."""
        translated = pixels_of(torch.from_numpy(prediction[IMAGE])[None])[0]
        names, colours = self.palette.names, np.asarray(self.palette.colours)
        if not names:
            return Rendered({"change": float(l1(translated[None], image[None])[0])}, image=translated)
        found = np.bincount(nearest_colours(translated[None], colours).ravel(), minlength=len(names))
        shares = dict(zip(names, (found / found.sum()).tolist(), strict=True))
        return Rendered(shares, image=translated)

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        given, target = batch.images[self.given][:SHOWN], batch.images[self.target][:SHOWN]
        return {"input_output_target": torch.cat([given, self.translator(nets)(given), target], 3)}


class Translating(Translator):
    """A U-Net as it is used.

    noise: generator, images -> the noise of the dropout. own: whether an image has its own statistics
    """

    def __init__(self, net: nn.Module, noise: Noise, *, own: bool) -> None:
        super().__init__()
        self.net, self.noise, self.own = net, noise, own
        self.multiple = int(net.multiple)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images, self.noise(self.net, images), own_statistics=self.own).float()


def build(config: Any) -> Pix2Pix:
    """Build the task; `hpc.task.build_task` calls it."""
    return Pix2Pix(config)
