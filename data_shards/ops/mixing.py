"""What mixup and cutmix share: how much of a slot's own image is left, and the labels of two images in one.

A label of one value a slot, such as a class, is not mixed itself: `name.partner` holds the partner's, and MIX
the share of the own one, so that a loss is `mix * loss(own) + (1 - mix) * loss(partner)` for any kind of
loss. Boxes and other ragged labels of both slots are joined.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ops.base import pick, upload
from data_shards.ragged import Ragged

MIX = "mix"  # the label [n] float32 in [0, 1]: share of the slot's own image
PARTNER = ".partner"  # ends the name of the partner's label
_STEPS = 4096


def beta(alpha: float, uniform: np.ndarray) -> np.ndarray:
    """Beta(alpha, alpha) variates of uniform ones in [0, 1): the inverse of its distribution function.

    That is tabulated on the lower half, over x ** min(alpha, 1), where the density is finite.
    """
    power = min(alpha, 1.0)
    x = np.linspace(0, 0.5**power, _STEPS) ** (1 / power)
    density = x ** (alpha - power) * (1 - x) ** (alpha - 1)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    lower = np.minimum(uniform, 1 - uniform)
    half = np.interp(2 * lower, mass / mass[-1], x**power) ** (1 / power)
    return np.where(uniform < 0.5, half, 1 - half)


def mix_labels(
    batch: Batch, op: str, other: np.ndarray, mix: np.ndarray
) -> tuple[dict[str, Tensor | Ragged], Mapping[str, str]]:
    """(labels, kinds) with the partners' values of fixed labels and MIX.

    other: [n], the partner of each slot. mix: [n], the share of its own image.
    Raises UserError where the labels are mixed already.
    """
    if MIX in batch.labels:
        raise UserError(f"{op}: the labels are mixed already: use one of mixup and cutmix")
    labels, kinds = {**batch.labels}, {**batch.kinds}
    for name in batch.named("class", "value", "bits"):
        label = labels[name]
        if isinstance(label, Tensor):
            labels[name + PARTNER], kinds[name + PARTNER] = pick(label, other), kinds[name]
    labels[MIX] = upload(mix, batch.device, torch.float32)
    return labels, kinds


def both(other: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """int64 [n, 2]: the slots whose rows each slot gets, itself and its partner; -1: it has no share."""
    own = np.arange(len(other))
    return np.stack([np.where(mix > 0, own, -1), np.where(mix < 1, other, -1)], axis=1)
