"""Losses of a class for each pixel: cross-entropy and soft Dice. Each returns one value an image, [n].

Logits are float [n, k, h, w], masks whole numbers [n, h, w]: classes, or UNKNOWN, which costs nothing. Every
image counts alike, whatever share of its pixels is known, so a mean over the batch does not depend on how it
is cut over ranks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.images.masks import UNKNOWN

SMOOTH = 1.0  # pixels, added above and below the fraction of Dice: two empty masks agree


def cross_entropy(logits: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy [n] over the known pixels; 0 for an image that has none.

    weights: [n, h, w] of the pixels, 0 or more, such as `boundary_weights` (None = all alike)
    """
    each = F.cross_entropy(logits, mask.long(), ignore_index=UNKNOWN, reduction="none")
    known = (mask != UNKNOWN).to(each.dtype)
    share = known if weights is None else known * weights
    total = share.flatten(1).sum(1)
    return (each * share).flatten(1).sum(1) / total.clamp(min=torch.finfo(each.dtype).tiny)


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - soft Dice [n], the mean over the classes but the first, the background.

    Dice is (2 |p t| + s) / (|p| + |t| + s) with probabilities p and truth t over the known pixels and
    s = SMOOTH (Milletari et al., V-Net, 2016, section 3, with sums in the place of sums of squares).
    """
    known = (mask != UNKNOWN)[:, None]
    chance = (F.softmax(logits, dim=1) * known)[:, 1:].flatten(2)
    numbers = torch.arange(1, logits.shape[1], device=mask.device)[None, :, None, None]
    truth = (mask[:, None] == numbers).to(chance.dtype).flatten(2)
    both = (chance * truth).sum(2)
    found = (2 * both + SMOOTH) / (chance.sum(2) + truth.sum(2) + SMOOTH)
    return 1 - found.mean(1)


def boundary_weights(mask: Tensor, *, extra: float, reach: int) -> Tensor:
    """Return float32 weights [n, h, w] of pixels: 1, and 1 + `extra` near the boundary of two classes.

    reach: pixels; a boundary pixel has another known class in the square of 2 reach + 1 pixels around it.
    U-Net's own map (Ronneberger et al. 2015, equation 2) falls off with the distance to two cells; this one
    is flat, knows no instances, and is two pooling operations on the device.
    """
    values, known = mask.to(torch.float32), mask != UNKNOWN
    least, most = torch.full_like(values, float("inf")), torch.full_like(values, -float("inf"))
    size = 2 * reach + 1
    high = F.max_pool2d(torch.where(known, values, most)[:, None], size, stride=1, padding=reach)
    low = -F.max_pool2d(-torch.where(known, values, least)[:, None], size, stride=1, padding=reach)
    return 1.0 + extra * ((high > low)[:, 0] & known).to(torch.float32)
