"""Losses of pairs of embeddings: contrastive, triplet, supervised contrastive, binary cross-entropy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpc.distributed.collectives import gather_grad_with, sum_
from hpc.distributed.comm import Comm


@dataclass
class Selection:
    """The pairs, or the images, over which a mean is taken."""

    mask: Tensor  # [n, N] or [n] bool, of this rank
    count: Tensor  # scalar float32: how many all ranks have, at least 1


@dataclass
class Pairs:
    """This rank's rows of the pair matrix: n own embeddings against all N of the global batch."""

    own: Tensor  # [n, d], L2-normalised
    all: Tensor  # [N, d]
    genuine: Selection  # pairs [n, N]: the same identity, another image
    impostor: Selection  # pairs [n, N]: different identities
    anchors: Selection  # images [n] that have a genuine pair
    triplets: Selection  # images [n] that have both kinds of pairs
    world: int

    @property
    def cosine(self) -> Tensor:
        """The similarity of each pair, [n, N] in [-1, 1]."""
        return self.own @ self.all.T

    def mean(self, values: Tensor, selection: Selection) -> Tensor:
        """Return this rank's part of the mean of `values` over a selection; the mean over ranks is the mean.

        `values` has the shape of the selection's mask.
        """
        return torch.where(selection.mask, values, 0.0).sum() * (self.world / selection.count)


def form_pairs(own: Tensor, identity: Tensor, ids: Tensor, comm: Comm) -> Pairs:
    """Pair the unit embeddings `own` [n, d] with those of all ranks.

    `identity` and `ids` [n] belong to the own ones; n is the same on all ranks. An image of an unknown person
    (-1) is in no pair. The ranks meet twice: embeddings, identities and ids travel in one message, all counts
    in another.
    """
    embeddings, identities, all_ids = gather_grad_with(own, (identity, ids), comm)
    same = identity[:, None] == identities[None, :]
    known = (identity >= 0)[:, None] & (identities >= 0)[None, :]
    genuine, impostor = same & known & (ids[:, None] != all_ids[None, :]), ~same & known
    anchors = genuine.any(1)
    masks = [genuine, impostor, anchors, anchors & impostor.any(1)]
    counts = sum_(torch.stack([mask.sum(dtype=torch.float32) for mask in masks]), comm).clamp(min=1.0)
    near, far, images, full = (Selection(mask, count) for mask, count in zip(masks, counts, strict=True))
    return Pairs(own, embeddings, near, far, images, full, comm.world)


def contrastive(pairs: Pairs, *, margin: float, **_: float) -> Tensor:
    """Return the squared distance of genuine pairs and the squared hinge at `margin` of impostors, half each.

    A scalar >= 0; `margin` is a distance of unit vectors, in (0, 2). Hadsell, Chopra & LeCun 2006, eq. 4.
    """
    squared = (2.0 - 2.0 * pairs.cosine).clamp(min=1e-8)
    near = pairs.mean(squared, pairs.genuine)
    far = pairs.mean((margin - squared.sqrt()).clamp(min=0.0).square(), pairs.impostor)
    return 0.5 * (near + far)


def triplet(pairs: Pairs, *, margin: float, **_: float) -> Tensor:
    """Return the batch-hard triplet loss: each image with its farthest genuine and nearest impostor one.

    A scalar >= 0; images without both are left out. Hermans, Beyer & Leibe 2017, eq. 5.
    """
    distance = (2.0 - 2.0 * pairs.cosine).clamp(min=1e-8).sqrt()
    farthest = torch.where(pairs.genuine.mask, distance, -torch.inf).amax(1)
    nearest = torch.where(pairs.impostor.mask, distance, torch.inf).amin(1)
    gap = torch.where(pairs.triplets.mask, farthest - nearest, 0.0)
    return pairs.mean((margin + gap).clamp(min=0.0), pairs.triplets)


def supcon(pairs: Pairs, *, temperature: float, **_: float) -> Tensor:
    """Return the supervised contrastive loss: a softmax over all other images, at `temperature` > 0.

    A scalar >= 0. Khosla et al. 2020, eq. 2.
    """
    logits = pairs.cosine / temperature
    genuine = pairs.genuine.mask
    others = genuine | pairs.impostor.mask
    log_prob = logits - torch.where(others, logits, -torch.inf).logsumexp(1, keepdim=True)
    each = -torch.where(genuine, log_prob, 0.0).sum(1) / genuine.sum(1).clamp(min=1)
    return pairs.mean(each, pairs.anchors)


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
