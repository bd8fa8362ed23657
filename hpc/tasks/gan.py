"""The generative adversarial jobs: images from latents by a generator and its judge, DCGAN to StyleGAN.

Networks are in `models/`, losses in `hpc/losses/adversarial.py`, growth in `gan_plan.py`. All that is random
is counted by the position of a slot: latents, noise, mixed styles, the points of a penalty.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.evaluation.feature_words import distance_name
from hpc.evaluation.generated import Generated
from hpc.generator import Generator
from hpc.losses import adversarial as losses
from hpc.task import Batch, Phase, Task
from hpc.tasks.gan_plan import BASE, GROWS, WGAN, level_of
from models import dcgan, progan, stylegan
from models.equalised import double, faded, halve

SHOWN, FEWEST = 32, 8  # images of the monitor's grid, and of one of the largest images
PIXELS = 1 << 23  # of the whole grid, where the last level is reached


class Gan(Task):
    """A generator G and a judge D, alternately: `make` and `judge`, and lazily the slopes of the judge."""

    takes = ("latents",)
    kept_images = ("generated",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        keys = config.task
        self.metric = (f"generated/{distance_name(keys['features'])}", "min")
        self.losses = losses.LOSSES[keys["loss"]]
        judged = {
            "generated": lambda: Generated(
                features=keys["features"],
                samples=keys["samples"],
                side=min(64, config.data.size),
                block=config.eval.batch,
            )
        }
        # Without features a training judges nothing: `rostro evaluate features=` does it later.
        self.evaluators, self.later = (judged, {}) if keys["features"] else ({}, judged)

    def players(self) -> dict[str, nn.Module]:
        keys, size = self.config.task, self.config.data.size
        sizes = {"width": keys["width"], "latents": keys["latents"]}
        if keys["network"] == "dcgan":
            plain = dcgan.Discriminator(size, width=keys["width"])
            return {"G": dcgan.Generator(size, **sizes), "D": plain}
        styled = keys["network"] == "stylegan"
        judge = progan.Discriminator(size, width=keys["width"], blur=styled, group=keys["group"])
        return {"G": (stylegan if styled else progan).Generator(size, **sizes), "D": judge}

    def phases(self, clock: int) -> list[Phase]:
        penalty = self.config.task["penalty"]
        phases = [Phase("make", "G"), Phase("judge", "D", second_order=penalty == WGAN, collect=True)]
        if penalty == "r1":
            phases.append(Phase("slopes", "D", every=self.config.task["lazy"], second_order=True))
        return phases

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        level = self.level(clock)
        if phase.name == "make":
            return self.losses.generator(nets["D"](self.make(nets, batch, phase.name, clock), *level))
        real = self.real(batch, clock)
        if phase.name == "slopes":
            real = real.detach().requires_grad_()
            lazy = self.config.task["lazy"]
            slopes = losses.r1(nets["D"](real, *level), real, self.config.task["gamma"])
            self.report("slopes_real", slopes.detach())
            return lazy * slopes
        with torch.no_grad():
            fake = self.make(nets, batch, phase.name, clock)
        return self._judge(nets["D"], real, fake, level, batch)

    def _judge(
        self, judge: nn.Module, real: Tensor, fake: Tensor, level: tuple[Any, ...], batch: Batch
    ) -> Tensor:
        keys = self.config.task
        of_real, of_fake = judge(real, *level), judge(fake, *level)
        if level:
            for name, value in (("resolution", real.shape[-1]), ("fade", level[1])):
                self.report(name, torch.full((), float(value), device=real.device))
        self.report("score_real", of_real.detach().float().mean())
        self.report("score_fake", of_fake.detach().float().mean())
        self.report("sign_real", of_real.detach().float().sign().mean())  # 1: D knows them by heart
        loss = self.losses.judge(of_real, of_fake)
        if keys["drift"]:
            loss = loss + losses.drift(of_real, keys["drift"])
        if keys["penalty"] == WGAN:
            points = losses.between(real, fake, batch.latents("points", 1))
            slopes = losses.slope_penalty(judge(points, *level), points, weight=keys["gamma"])
            self.report("slopes_between", slopes.detach())
            loss = loss + slopes
        return loss

    def level(self, clock: int) -> tuple[Any, ...]:
        """Return what a network that grows takes behind its input at `clock`: level and fade."""
        if self.config.task["network"] == "dcgan":
            return ()
        return self.stage(clock).level, self.fade(clock)

    def real(self, batch: Batch, clock: int) -> Tensor:
        """Return the images of the batch; while a level comes in, their fine half does so too.

        Karras et al. 2018, section 2, and figure 2: the judge is shown what the generator can make.
        """
        real, fade = batch.images["image"], self.fade(clock)
        return real if fade >= 1 else faded(double(halve(real)), real, fade)

    def make(self, nets: Mapping[str, nn.Module], batch: Batch, name: str, clock: int) -> Tensor:
        """Return an image [n, 3, h, w] of the latents `name` for each slot of the batch, as in training."""
        keys = self.config.task
        z, level = batch.latents(name, keys["latents"]), self.level(clock)
        if keys["network"] != "stylegan":
            return nets["G"](z, *level)
        layers = stylegan.Generator.num_layers(level[0])
        styled: dict[str, Any] = {}
        if keys["mixing"]:
            styled["other"] = batch.latents(f"{name} other", keys["latents"])
            chosen = batch.latents(f"{name} mixing", 2)
            styled["crossover"] = stylegan.crossovers(chosen, layers, keys["mixing"])
        if keys.get("noise", True):  # runs of older versions do not state it
            styled["noise"] = batch.noise(f"{name} noise", stylegan.Generator.noise_size(level[0]))
        return nets["G"](z, *level, **styled)

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return images of the latents of the batch's positions, which needs no images.

        Styles are not truncated: figures of generated images are of what was trained (Karras et al. 2019,
        figure 2).
        """
        return {"image": self.generator(nets, truncation=1.0).at(batch).float().clamp(-1, 1)}

    def generator(
        self, nets: Mapping[str, nn.Module], *, level: int | None = None, truncation: float | None = None
    ) -> Generator:
        keys = self.config.task
        if keys["network"] != "stylegan" and truncation not in (None, 1.0):
            raise UserError(
                f"truncation={truncation:g}: {keys['network']} has no styles to truncate: leave it out"
            )
        truncation = keys["truncation"] if truncation is None else truncation
        working, side = self._working(level)
        if keys["network"] != "stylegan":
            return Images(nets["G"], working, side)
        if truncation != 1.0:
            self.find_mean(nets["G"])
        return StyledImages(nets["G"], working, side, truncation, noise=keys.get("noise", True))

    def _working(self, level: int | None) -> tuple[tuple[Any, ...], int]:
        """Return what the network takes behind its latents at a level, and the pixels of its images."""
        keys, now = self.config.task, self.stage(self.clock)
        if keys["network"] not in GROWS:
            if level is not None:
                raise UserError(f"level={level}: {keys['network']} does not grow: leave it out")
            return (), now.size
        least = level_of(keys["start"])
        if level is None or level == now.level:
            return self.level(self.clock), now.size
        if not least <= level < now.level:
            raise UserError(
                f"level={level}: {self.clock:,} images have trained the levels {least} to {now.level} ("
                f"{keys['start']} to {now.size} pixels): type one of them"
            )
        return (level, 1.0), BASE << level

    def find_mean(self, generator: nn.Module, count: int = 1000) -> None:
        """Set the mean style of `generator`, towards which truncation moves, from `count` latents."""
        device = next(generator.parameters()).device
        batch = Batch.of_positions(torch.arange(count), self.config.seed).prepare(device)
        generator.track(batch.latents("mean", self.config.task["latents"]), keep=0.0)  # type: ignore[operator]

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        """Return images of the first positions, as many at each level, and real ones as they are judged."""
        count = min(SHOWN, max(FEWEST, PIXELS // self.config.data.size**2))
        latents = Batch.of_positions(torch.arange(count), self.config.seed).prepare(batch.device)
        return {
            "generated": self.predict(nets, latents)["image"],
            "batch": self.real(batch, clock)[:count],
        }


class Images(Generator):
    """A network that takes latents, and `level` behind them."""

    def __init__(self, net: nn.Module, level: tuple[Any, ...], side: int) -> None:
        super().__init__()
        self.net, self.level, self.side = net, level, side
        self.latents = int(net.latents)  # type: ignore[arg-type]

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.net(latents, *self.level)


class StyledImages(Images):
    """A StyleGAN at a level, its styles truncated."""

    def __init__(
        self, net: nn.Module, level: tuple[Any, ...], side: int, truncation: float, *, noise: bool = True
    ) -> None:
        super().__init__(net, level, side)
        self.truncation = truncation
        self.noise_size = stylegan.Generator.noise_size(level[0]) if noise else 0
        self.layers = stylegan.Generator.num_layers(level[0])

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.net(latents, *self.level, noise=noise, truncation=self.truncation)

    def mixed(self, coarse: Tensor, fine: Tensor, crossover: int, noise: Tensor | None = None) -> Tensor:
        begins = torch.full((len(coarse),), crossover, device=coarse.device)
        mixed = {"other": fine, "crossover": begins, "truncation": self.truncation, "noise": noise}
        return self.net(coarse, *self.level, **mixed)


def build(config: Any) -> Gan:
    """Build the task; `hpc.task.build_task` calls it."""
    return Gan(config)
