"""Losses of a label of each image: a class, bits, a number. Each returns one value an image, [n].

An unknown label (-1) costs nothing. Means are taken over all images of a batch, known or not, so they do not
depend on how it is cut over ranks.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax(
    logits: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    focal: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy [n] of `logits` [n, k] and classes `labels` [n] int64.

    smoothing: share of the target that all classes have alike (Szegedy et al., CVPR 2016, section 7)
    focal: gamma, by which sure images count less (Lin et al., "Focal loss", ICCV 2017, equation 4)
    weights: [k], of the images of each class
    """
    known, target = labels >= 0, labels.clamp(min=0)
    logs = F.log_softmax(logits, dim=1)
    own = logs.gather(1, target[:, None])[:, 0]
    loss = -(1 - smoothing) * own - smoothing * logs.mean(1)
    return _weighed(loss, own.exp(), target, known, focal, weights)


def sigmoid(
    logit: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    focal: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the binary cross-entropy [n] of the `logit` [n, 1] of class 1 and classes `labels` [n] of 0, 1.

    The keys are those of `softmax`, of which it is the case of two classes with logits 0 and `logit`.
    """
    return softmax(two_classes(logit), labels, smoothing=smoothing, focal=focal, weights=weights)


def two_classes(logit: Tensor) -> Tensor:
    """Return logits [n, 2] of two classes, of which class 1 has the probability sigmoid(`logit` [n, 1])."""
    return torch.cat([torch.zeros_like(logit), logit], dim=1)


def _weighed(
    loss: Tensor, chance: Tensor, target: Tensor, known: Tensor, focal: float, weights: Tensor | None
) -> Tensor:
    if focal:
        loss = loss * (1 - chance).clamp(min=1e-6) ** focal
    if weights is not None:
        loss = loss * weights.to(loss)[target]
    return torch.where(known, loss, 0.0)


def bits(logits: Tensor, labels: Tensor, *, focal: float = 0.0, positive: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy [n] over the known bits `labels` [n, b] of 0, 1 (-1: unknown).

    focal: gamma, as in `softmax`. positive: [b], the weight of the ones of each bit.
    """
    known, target = labels >= 0, labels.clamp(min=0).to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=None if positive is None else positive.to(logits)
    )
    if focal:
        chance = torch.sigmoid(torch.where(target > 0, logits, -logits))
        loss = loss * (1 - chance).clamp(min=1e-6) ** focal
    counted = known.to(loss.dtype)
    return (loss * counted).sum(1) / counted.sum(1).clamp(min=1)


def l1(out: Tensor, labels: Tensor, *, low: float, high: float) -> Tensor:
    """Return |number - label| [n] in units of half the range; `out` [n, 1], see `number_of`."""
    return _known(labels, (number_of(out, low, high) - labels).abs() * (2 / (high - low)))


def number_of(out: Tensor, low: float, high: float) -> Tensor:
    """Return the number [n] that an output [n, 1] stands for: 0 is the middle of the range, 1 its end."""
    return (low + high) / 2 + (high - low) / 2 * out[:, 0]


def ordinal(out: Tensor, labels: Tensor, *, low: float, high: float) -> Tensor:
    """Return the mean cross-entropy [n] of the answers "above low + j?", `out` [n, high - low].

    Source: Niu et al., "Ordinal regression with multiple output CNN for age estimation", CVPR 2016.
    """
    steps = low + 0.5 + torch.arange(out.shape[1], device=out.device)
    above = (labels.to(out.dtype)[:, None] > steps).to(out.dtype)
    return _known(labels, F.binary_cross_entropy_with_logits(out, above, reduction="none").mean(1))


def ordinal_number(out: Tensor, low: float) -> Tensor:
    """Return the number [n]: low, and one for each answer by its probability."""
    return low + torch.sigmoid(out).sum(1)


def distribution(out: Tensor, labels: Tensor, *, low: float, high: float, sigma: float) -> Tensor:
    """Return [n] the divergence from a normal distribution around the label, and the error of the mean.

    out: logits [n, high - low + 1] of the whole numbers of the range. Source: Gao et al., "Age estimation
    using expectation of label distribution learning" (DLDL-v2), IJCAI 2018, equations 7 and 8; the error is
    in units of a tenth of the range.
    """
    years = low + torch.arange(out.shape[1], device=out.device, dtype=out.dtype)
    label = labels.to(out.dtype)[:, None]
    target = torch.softmax(-((years - label) ** 2) / (2 * sigma**2), dim=1)
    logs = F.log_softmax(out, dim=1)
    divergence = (target * (target.clamp(min=1e-12).log() - logs)).sum(1)
    off = (distribution_number(out, low) - label[:, 0]).abs() * (10 / (high - low))
    return _known(labels, divergence + off)


def distribution_number(out: Tensor, low: float) -> Tensor:
    """Return the mean [n] of the distribution with logits `out` [n, k] of low, low + 1, ..."""
    years = low + torch.arange(out.shape[1], device=out.device, dtype=out.dtype)
    return (torch.softmax(out, dim=1) * years).sum(1)


def _known(labels: Tensor, loss: Tensor) -> Tensor:
    """Return `loss` [n], 0 where the label is -1: the value that stands for an unknown one."""
    return torch.where(labels == -1, 0.0, loss)


def class_weights(counts: list[int], power: float) -> list[float]:
    """Return weights of classes that occur `counts` times: as count ** -power, 1 in the mean over images.

    power: 0 weighs all images alike, 1 all classes. A class that does not occur has weight 0.
    """
    total = sum(counts)
    raw = [count**-power if count else 0.0 for count in counts]
    mean = math.fsum(weight * count for weight, count in zip(raw, counts, strict=True)) / max(total, 1)
    return [weight / mean if mean else 0.0 for weight in raw]


def positive_weights(ones: list[int], known: list[int], power: float, most: float = 20.0) -> list[float]:
    """Return the weight of the ones of each bit: (zeros / ones) ** power, at most `most`."""
    return [
        min(most, ((total - count) / count) ** power) if 0 < count < total else 1.0
        for count, total in zip(ones, known, strict=True)
    ]
