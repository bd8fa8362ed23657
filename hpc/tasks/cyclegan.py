"""CycleGAN: two domains of images without partners, a generator each way and a judge of each domain.

Zhu et al., Unpaired image-to-image translation using cycle-consistent adversarial networks (2017). One
optimizer updates both generators (G: `ab`, `ba`), another both judges (D: `a`, `b`), as in the authors' code.
A judge sees earlier translations too (`hpc/training/image_pool.py`). Beyond the paper a face may be kept that
of its person: `task.identity_run`. Networks: `models/cyclegan.py`, domains: `data.a` and `data.b`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, PAIR, pixels_of
from data_shards.errors import UserError
from hpc.data import views
from hpc.evaluation.cycles import Cycles
from hpc.evaluation.feature_words import distance_name
from hpc.evaluation.translated import Translated
from hpc.generator import Translator
from hpc.inference.embedder import embedder_of
from hpc.losses import adversarial as losses
from hpc.metrics.paired import l1
from hpc.task import Batch, Phase, Rendered, Task
from hpc.tasks.cyclegan_plan import MULTIPLE, WAYS, held_out_domains
from hpc.training.image_pool import ImagePool
from models import cyclegan

SHOWN = 4  # images of each row of the monitor
PERSON = "identity"  # the helper that embeds faces


class CycleGan(Task):
    """Both generators (`make`), then both judges (`judge`) of what was made.

    Without `task.features` no figure names a best checkpoint, and the last one stands for it: the cycles
    alone would choose a network that changes nothing.
    """

    kept_images = tuple(WAYS)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        keys = config.task
        self.metric = (f"ab/{distance_name(keys['features'])}", "min")
        domains = held_out_domains(config.data)
        person = PERSON if keys["identity_run"] else ""
        cycles = {"cycles": lambda: Cycles(domains=domains, ways=WAYS, identity=person)}
        view = views.evaluation(config, config.data.size)

        def translated(way: str) -> Translated:
            options = {
                "features": keys["features"],
                "side": min(64, config.data.size),
                "block": config.eval.batch,
            }
            return Translated(way, pair=WAYS[way], domains=domains, view=view, **options)

        both = {"ab": lambda: translated("ab"), "ba": lambda: translated("ba")}
        self.evaluators, self.later = (cycles | both, {}) if keys["features"] else (cycles, both)
        self.pools = {name: ImagePool(keys["pool"], seed=config.seed, name=name) for name in PAIR}
        # From `make` to `judge` of an update: the translations of each micro batch, by its place in the batch
        self._made: dict[int, dict[str, Tensor]] = {}

    def players(self) -> dict[str, nn.Module]:
        width, blocks = self.config.task["width"], self.config.task["blocks"]
        return {
            "G": cyclegan.Networks({way: cyclegan.Generator(blocks, width=width) for way in WAYS}),
            "D": cyclegan.Networks({name: cyclegan.build_discriminator(width) for name in PAIR}),
        }

    def frozen(self) -> dict[str, nn.Module]:
        run = self.config.task["identity_run"]
        return {PERSON: embedder_of(run, key="task.identity_run")} if run else {}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("make", "G"), Phase("judge", "D")]

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return self._make(nets, batch) if phase.name == "make" else self._judge(nets["D"], batch, clock)

    def _make(self, nets: dict[str, nn.Module], batch: Batch) -> Tensor:
        """Return the loss of the generators: eq. 3 of the paper, with its identity loss (section 5.2)."""
        keys, images = self.config.task, {name: batch.images[name] for name in PAIR}
        weights = {"adversarial": 1.0, "cycle": keys["cycle"], "same": keys["cycle"] * keys["identity"]}
        weights["person"] = keys["identity_weight"] if PERSON in nets else 0.0
        total = torch.zeros((), device=batch.device)
        sums: dict[str, Tensor] = {}
        made: dict[str, Tensor] = {}
        for way, (source, target) in WAYS.items():
            translated, same = self._both(nets["G"], way, images[source], images[target])
            made[target] = translated.detach()
            again = nets["G"](translated, way[::-1])
            terms = {"adversarial": losses.lsgan_generator(nets["D"](translated, target))}
            terms["cycle"] = losses.l1(again, images[source])
            if same is not None:
                terms["same"] = losses.l1(same, images[target])
            if weights["person"]:
                terms["person"] = _strangeness(nets[PERSON], images[source], translated)
            for name, term in terms.items():
                total = total + weights[name] * term
                sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        for name, value in sums.items():
            self.report(name, value / len(WAYS))
        self._made[_place(batch)] = made
        return total

    def _both(self, ways: nn.Module, way: str, given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return images translated, and those of the wanted domain through the same network, in one pass."""
        if not self.config.task["cycle"] * self.config.task["identity"]:
            return ways(given, way), None
        translated, same = ways(torch.cat([given, wanted]), way).chunk(2)
        return translated, same

    def _judge(self, judges: nn.Module, batch: Batch, clock: int) -> Tensor:
        made = self._made.pop(_place(batch))
        total = torch.zeros((), device=batch.device)
        for name in PAIR:
            shown = self.pools[name].exchange(
                made[name], batch.positions, clock=clock, batch=self.stage(clock).batch, comm=self.comm
            )
            of_real, of_fake = judges(torch.cat([batch.images[name], shown]), name).chunk(2)
            total = total + losses.lsgan_judge(of_real, of_fake)
            for kind, scores in (("real", of_real), ("fake", of_fake)):
                self.report(f"score_{kind}_{name}", scores.detach().float().mean())
        return total

    def translator(self, nets: Mapping[str, nn.Module], *, direction: str = "") -> Translator:
        if direction not in ("", *WAYS):
            raise UserError(f"direction={direction} is not known: use {' or '.join(WAYS)}")
        return Way(nets["G"], direction or next(iter(WAYS)))

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return the images translated from A to B."""
        return {IMAGE: self.translator(nets)(batch.images[IMAGE])}

    def render(self, image: np.ndarray, prediction: dict[str, np.ndarray]) -> Rendered:
        """Return the translation, and how much it differs: L1 as a share of the range."""
        made = pixels_of(torch.from_numpy(prediction[IMAGE])[None])[0]
        return Rendered({"change": float(l1(made[None], image[None])[0])}, image=made)

    def images(self, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
        """Return rows for both ways: input, output, back again, and the input by the other network alone."""
        shown = {}
        for way, (source, _) in WAYS.items():
            there, back = (self.translator(nets, direction=each) for each in (way, way[::-1]))
            given = batch.images[source][:SHOWN].float()
            made = there(given)
            shown[way] = torch.cat([given, made, back(made), back(given)], 3)
        return shown

    def state(self) -> dict[str, Any]:
        return {"pools": {name: pool.state() for name, pool in self.pools.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, pool in self.pools.items():
            pool.load_state(state["pools"][name])


class Way(Translator):
    """One way between the domains."""

    multiple, least = MULTIPLE, 16  # as `cyclegan.Generator` states

    def __init__(self, ways: nn.Module, direction: str) -> None:
        super().__init__()
        self.ways, self.direction = ways, direction

    def forward(self, images: Tensor) -> Tensor:
        return self.ways(images, self.direction).float()


def _place(batch: Batch) -> int:
    """Return a number of a micro batch that no other of its update has; no tensor is read."""
    return int(batch.positions.storage_offset())


def _strangeness(person: nn.Module, images: Tensor, translated: Tensor) -> Tensor:
    """Return how unlike the persons of images are those of their translations."""
    with torch.no_grad():
        before = person(images)
    return losses.dissimilarity(person(translated), before)


def build(config: Any) -> CycleGan:
    """Build the task; `hpc.task.build_task` calls it."""
    return CycleGan(config)
