"""The siamese job: one trunk for both images, all pairs of the global P x K batch, four losses.

Embeddings are gathered from all ranks with their gradient, and every rank computes its own rows of the pair
matrix, so the number of ranks does not change the loss. Two slots that hold the same image (a topped-up
group) do not form a pair. The network is in `models/siamese.py`, the losses in `hpc/losses/pairs.py`, the
figures in `hpc/metrics/verification.py`.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc.distributed.collectives import sum_
from hpc.evaluation.verification import Verification
from hpc.losses.pairs import LOSSES, Pairs, form_pairs
from hpc.metrics.verification import probability
from hpc.task import Batch, Phase, Score, Task, cosine
from models.backbones import build_trunk
from models.siamese import PairScore, SiameseNet


class Siamese(Task):
    """Verification of faces: embeddings of one person are close together, those of two people far apart."""

    metric = ("verification/eer", "min")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.evaluators = {"verification": Verification}
        # The cosine midway between the means of genuine and impostor pairs, smoothed.
        self.threshold = torch.zeros(())

    def players(self) -> dict[str, nn.Module]:
        keys = self.config.task
        trunk, features = build_trunk(keys["trunk"])
        return {"net": SiameseNet(trunk, features, keys["embedding"], head=keys["loss"] == "bce")}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("embed", "net", coupled=True)]

    def forward(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return nets["net"](batch.images["image"])

    def couple(
        self, phase: Phase, nets: dict[str, nn.Module], outputs: Tensor, batch: Batch, clock: int
    ) -> Tensor:
        keys = self.config.task
        ids = batch.ids[:, 0].to(outputs.device, non_blocking=True)
        pairs = form_pairs(outputs, batch.labels["identity"], ids, self.comm)
        net = getattr(nets["net"], "module", nets["net"])  # the head is called outside DDP's forward
        loss = LOSSES[keys["loss"]](
            pairs, margin=keys["margin"], temperature=keys["temperature"], same=net.same
        )
        self._watch(pairs)
        return loss

    @torch.no_grad()
    def _watch(self, pairs: Pairs) -> None:
        """Report how far apart the two kinds of pairs are, and how many a running threshold separates."""
        similarity = pairs.cosine
        means = torch.stack([pairs.mean(similarity, pairs.genuine), pairs.mean(similarity, pairs.impostor)])
        means = sum_(means, self.comm) / self.comm.world
        # It stays there: only a save reads it.
        threshold = self.threshold.to(similarity.device, non_blocking=True)
        accepted = (similarity > threshold).float()
        right = 0.5 * (pairs.mean(accepted, pairs.genuine) + pairs.mean(1.0 - accepted, pairs.impostor))
        self.threshold = torch.lerp(threshold, means.mean(), 0.02)
        self.report("cosine_genuine", means[0])
        self.report("cosine_impostor", means[1])
        self.report("pair_accuracy", right)

    def state(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def load_state(self, state: dict[str, Any]) -> None:
        self.threshold = state["threshold"]

    @property
    def unit(self) -> str:
        """What a score of two embeddings is: the cosine, or the head's probability of "the same person"."""
        return "probability" if self.config.task["loss"] == "bce" else "cosine"

    def score(self, nets: dict[str, nn.Module]) -> Score:
        """Return the function that compares two embeddings."""
        head = cast(SiameseNet, nets["net"]).head
        if head is None:
            return cosine
        return probability(head.weight[0].detach().float().cpu().numpy(), float(head.bias[0]))

    def scorer(self, nets: dict[str, nn.Module]) -> nn.Module:
        """Return `score` as a module of two inputs, for an export."""
        return PairScore(cast(SiameseNet, nets["net"]).head)

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Return unit embeddings [n, d]; with `task.mirror` of the sum over an image and its mirror image."""
        images = batch.images["image"]
        embedding = nets["net"](images).float()
        if self.config.task["mirror"]:
            embedding = F.normalize(embedding + nets["net"](images.flip(3)).float(), dim=1)
        return {"embedding": embedding}


def build(config: Any) -> Siamese:
    """Build the task; `hpc.task.build_task` calls it."""
    return Siamese(config)
