"""Losses of pairs of embeddings: contrastive, triplet, supervised contrastive, binary cross-entropy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpc.distributed.collectives import gather, gather_grad
from hpc.distributed.comm import Comm


@dataclass
class Pairs:
    """This rank's rows of the pair matrix: n own embeddings against all N of the global batch."""

    own: Tensor  # [n, d], L2-normalised
    all: Tensor  # [N, d]
    genuine: Tensor  # [n, N] bool: same identity, another picture
    impostor: Tensor  # [n, N] bool
    comm: Comm

    @property
    def cosine(self) -> Tensor:
        return self.own @ self.all.T

    def mean(self, values: Tensor, mask: Tensor) -> Tensor:
        """Average `values` over `mask` of the whole batch, as this rank's part of it.

        The mean of the results of all ranks is the mean. `values` and `mask` have a row for each own picture.
        """
        count = gather(mask.sum(dtype=torch.float32).reshape(1), self.comm).sum().clamp(min=1.0)
        return torch.where(mask, values, 0.0).sum() * (self.comm.world / count)


def form_pairs(own: Tensor, identity: Tensor, ids: Tensor, comm: Comm) -> Pairs:
    """Pair the unit embeddings `own` [n, d] with those of all ranks.

    `identity` and `ids` [n] belong to the own ones; n is the same on all ranks.
    """
    identities, pictures = gather(identity, comm), gather(ids, comm)
    same = identity[:, None] == identities[None, :]
    other_picture = ids[:, None] != pictures[None, :]
    return Pairs(own, gather_grad(own, comm), same & other_picture, ~same, comm)


def contrastive(pairs: Pairs, *, margin: float, **_: float) -> Tensor:
    """Return the squared distance of genuine pairs and the squared hinge at `margin` of impostors, half each.

    A scalar >= 0; `margin` is a distance of unit vectors, in (0, 2). Hadsell, Chopra & LeCun 2006, eq. 4.
    """
    squared = (2.0 - 2.0 * pairs.cosine).clamp(min=1e-8)
    near = pairs.mean(squared, pairs.genuine)
    far = pairs.mean((margin - squared.sqrt()).clamp(min=0.0).square(), pairs.impostor)
    return 0.5 * (near + far)


def triplet(pairs: Pairs, *, margin: float, **_: float) -> Tensor:
    """Return the batch-hard triplet loss: each picture with its farthest genuine and nearest impostor one.

    A scalar >= 0; pictures without both are left out. Hermans, Beyer & Leibe 2017, eq. 5.
    """
    distance = (2.0 - 2.0 * pairs.cosine).clamp(min=1e-8).sqrt()
    farthest = torch.where(pairs.genuine, distance, -torch.inf).amax(1)
    nearest = torch.where(pairs.impostor, distance, torch.inf).amin(1)
    valid = pairs.genuine.any(1) & pairs.impostor.any(1)
    gap = torch.where(valid, farthest - nearest, 0.0)
    return pairs.mean((margin + gap).clamp(min=0.0), valid)


def supcon(pairs: Pairs, *, temperature: float, **_: float) -> Tensor:
    """Return the supervised contrastive loss: a softmax over all other pictures, at `temperature` > 0.

    A scalar >= 0. Khosla et al. 2020, eq. 2.
    """
    logits = pairs.cosine / temperature
    others = pairs.genuine | pairs.impostor
    log_prob = logits - torch.where(others, logits, -torch.inf).logsumexp(1, keepdim=True)
    positives = pairs.genuine.sum(1)
    each = -torch.where(pairs.genuine, log_prob, 0.0).sum(1) / positives.clamp(min=1)
    return pairs.mean(each, positives > 0)


def bce(pairs: Pairs, *, same: Callable[[Tensor, Tensor], Tensor], **_: Any) -> Tensor:
    """Return the cross-entropy of "the same person or not", genuine and impostor pairs with half the weight.

    A scalar >= 0; `same(a, b)` returns logits [n, N]. Koch, Zemel & Salakhutdinov 2015, section 3.
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
