"""The siamese job: one trunk for both pictures, all pairs of the global P x K batch, four losses.

Embeddings are gathered from all ranks with their gradient and every rank computes its own rows of the pair
matrix, so the number of ranks does not change the loss. Two slots that hold the same picture (a topped-up
group) are no pair. The network is in `models/siamese.py`, the figures in `hpc/metrics/verification.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc.distributed.comm import Dist, gather, gather_grad, sum_
from hpc.metrics.verification import Score, Verification, cosine, probability
from hpc.task import Batch, Meter, Phase, Task
from models.siamese import PairScore, SiameseNet, build_trunk


@dataclass
class Pairs:
    """This rank's rows of the pair matrix: n own embeddings against all N of the global batch."""

    own: Tensor  # [n, d], L2-normalised
    all: Tensor  # [N, d]
    genuine: Tensor  # [n, N] bool: same identity, another picture
    impostor: Tensor  # [n, N] bool
    here: Dist

    @property
    def cosine(self) -> Tensor:
        return self.own @ self.all.T

    def mean(self, values: Tensor, mask: Tensor) -> Tensor:
        """Mean of `values` over `mask` of the whole batch, as this rank's part: the mean over ranks is the
        mean.

        `values` and `mask` have one row for each own picture.
        """
        count = gather(mask.sum(dtype=torch.float32).reshape(1), self.here).sum().clamp(min=1.0)
        return torch.where(mask, values, 0.0).sum() * (self.here.world / count)


def form_pairs(own: Tensor, identity: Tensor, ids: Tensor, here: Dist) -> Pairs:
    """Pairs of own [n, d] with everybody's embeddings; `identity` and `ids` [n] belong to the own ones."""
    identities, pictures = gather(identity, here), gather(ids, here)
    same = identity[:, None] == identities[None, :]
    other_picture = ids[:, None] != pictures[None, :]
    return Pairs(own, gather_grad(own, here), same & other_picture, ~same, here)


def contrastive(pairs: Pairs, *, margin: float, **_: float) -> Tensor:
    """Squared distance of genuine pairs, squared hinge at `margin` of impostors, each with half the weight.

    Hadsell, Chopra & LeCun 2006, eq. 4.
    """
    squared = (2.0 - 2.0 * pairs.cosine).clamp(min=1e-8)
    near = pairs.mean(squared, pairs.genuine)
    far = pairs.mean((margin - squared.sqrt()).clamp(min=0.0).square(), pairs.impostor)
    return 0.5 * (near + far)


def triplet(pairs: Pairs, *, margin: float, **_: float) -> Tensor:
    """Batch-hard triplets: each picture with its farthest genuine and nearest impostor (Hermans et al. 2017,
    eq. 5).
    """
    distance = (2.0 - 2.0 * pairs.cosine).clamp(min=1e-8).sqrt()
    farthest = torch.where(pairs.genuine, distance, -torch.inf).amax(1)
    nearest = torch.where(pairs.impostor, distance, torch.inf).amin(1)
    valid = pairs.genuine.any(1) & pairs.impostor.any(1)
    gap = torch.where(valid, farthest - nearest, 0.0)
    return pairs.mean((margin + gap).clamp(min=0.0), valid)


def supcon(pairs: Pairs, *, temperature: float, **_: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2): softmax over all other pictures."""
    logits = pairs.cosine / temperature
    others = pairs.genuine | pairs.impostor
    log_prob = logits - torch.where(others, logits, -torch.inf).logsumexp(1, keepdim=True)
    positives = pairs.genuine.sum(1)
    each = -torch.where(pairs.genuine, log_prob, 0.0).sum(1) / positives.clamp(min=1)
    return pairs.mean(each, positives > 0)


def bce(pairs: Pairs, *, same: Callable[[Tensor, Tensor], Tensor], **_: Any) -> Tensor:
    """Cross-entropy of "the same person or not" from |a - b|, genuine and impostor pairs with half the weight
    each.

    Koch, Zemel & Salakhutdinov 2015, section 3.
    """
    logits = same(pairs.own[:, None, :], pairs.all[None, :, :])
    near = pairs.mean(F.softplus(-logits), pairs.genuine)
    far = pairs.mean(F.softplus(logits), pairs.impostor)
    return 0.5 * (near + far)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "contrastive": contrastive,
    "triplet": triplet,
    "supcon": supcon,
    "bce": bce,
}


class Siamese(Task):
    fields = ("identity",)
    metric = ("eer", "min")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.threshold = torch.zeros(
            ()
        )  # cosine midway between the means of genuine and impostor pairs, smoothed

    def players(self) -> dict[str, nn.Module]:
        keys = self.config.task
        trunk, features = build_trunk(keys["trunk"])
        return {"net": SiameseNet(trunk, features, keys["embedding"], head=keys["loss"] == "bce")}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("embed", "net", coupled=True)]

    def forward(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return nets["net"](batch.images)

    def couple(
        self, phase: Phase, nets: dict[str, nn.Module], outputs: Tensor, batch: Batch, clock: int
    ) -> Tensor:
        keys = self.config.task
        pairs = form_pairs(outputs, batch.labels["identity"], batch.ids.to(outputs.device), self.here)
        net = getattr(nets["net"], "module", nets["net"])  # the head is called outside DDP's forward
        loss = LOSSES[keys["loss"]](
            pairs, margin=keys["margin"], temperature=keys["temperature"], same=net.same
        )
        self._watch(pairs)
        return loss

    @torch.no_grad()
    def _watch(self, pairs: Pairs) -> None:
        """Report how far apart the two kinds of pairs are, and how many a running threshold tells apart."""
        similarity = pairs.cosine
        means = torch.stack([pairs.mean(similarity, pairs.genuine), pairs.mean(similarity, pairs.impostor)])
        means = sum_(means, self.here) / self.here.world
        threshold = self.threshold.to(similarity.device)
        accepted = (similarity > threshold).float()
        right = 0.5 * (pairs.mean(accepted, pairs.genuine) + pairs.mean(1.0 - accepted, pairs.impostor))
        self.threshold = torch.lerp(threshold, means.mean(), 0.02).cpu()
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
        """How two embeddings are compared; higher = the same person."""
        head = cast(SiameseNet, nets["net"]).head
        if head is None:
            return cosine
        return probability(head.weight[0].detach().float().cpu().numpy(), float(head.bias[0]))

    def scorer(self, nets: dict[str, nn.Module]) -> nn.Module:
        """As `score`, as a module of two inputs, for an export."""
        return PairScore(cast(SiameseNet, nets["net"]).head)

    def meters(self) -> dict[str, Meter]:
        return {"verification": Verification()}

    def evaluate(self, nets: dict[str, nn.Module], batch: Batch, meters: dict[str, Any]) -> None:
        embeddings = self.predict(nets, batch.images)["embedding"].cpu().numpy()
        identity = batch.labels["identity"].cpu().numpy()
        meters["verification"].score = self.score(nets)
        meters["verification"].add(batch.ids.numpy(), embeddings=embeddings, identity=identity)

    def predict(self, nets: dict[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
        """Unit embeddings [n, d]; with `task.mirror` of the sum over a picture and its mirror image."""
        found = nets["net"](images).float()
        if self.config.task["mirror"]:
            found = F.normalize(found + nets["net"](images.flip(3)).float(), dim=1)
        return {"embedding": found}


def build(config: Any) -> Siamese:
    return Siamese(config)
