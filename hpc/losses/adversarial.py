"""Losses of generators and their judges, slopes of judges, and what else pulls images together.

Scores are what a judge gives: [n], or a map [n, 1, h, w] of patches, high = real, without a sigmoid. Every
function returns the mean over the batch that it is given, as `Task.loss` does. Random numbers come from
outside, so that a sample has the same ones on any rank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Adversarial:
    """A pair of losses."""

    judge: Callable[[Tensor, Tensor], Tensor]  # scores of real and of generated images
    generator: Callable[[Tensor], Tensor]  # scores of generated images


def vanilla_judge(real: Tensor, fake: Tensor) -> Tensor:
    """Return half of the cross-entropy of real against generated (Isola et al. 2017, section 3.3)."""
    return 0.5 * (_cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0))


def vanilla_generator(fake: Tensor) -> Tensor:
    """Return the cross-entropy of generated images taken for real (Goodfellow et al. 2014, section 3)."""
    return _cross_entropy(fake, 1.0)


def logistic_judge(real: Tensor, fake: Tensor) -> Tensor:
    """Return -log D(real) - log(1 - D(fake)), D the sigmoid of the score (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-_wide(real)).mean() + F.softplus(_wide(fake)).mean()


def logistic_generator(fake: Tensor) -> Tensor:
    """Return -log D(fake), whose slope does not vanish where the judge is sure: not saturating."""
    return F.softplus(-_wide(fake)).mean()


def saturating_generator(fake: Tensor) -> Tensor:
    """Return log(1 - D(fake)), the game of eq. 1 itself, whose slope vanishes where the judge is sure."""
    return -F.softplus(_wide(fake)).mean()


def lsgan_judge(real: Tensor, fake: Tensor) -> Tensor:
    """Return half of the squared distances to 1 and 0 (Mao et al. 2017, eq. 9; CycleGAN, appendix 7.1)."""
    return 0.5 * ((_wide(real) - 1).square().mean() + _wide(fake).square().mean())


def lsgan_generator(fake: Tensor) -> Tensor:
    """Return the squared distance to 1 (CycleGAN, appendix 7.1; Mao et al. take half of it)."""
    return (_wide(fake) - 1).square().mean()


def wgan_judge(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of generated less that of real images (Arjovsky et al. 2017, eq. 3).

    It needs `slope_penalty`, and `drift` as ProGAN has it.
    """
    return _wide(fake).mean() - _wide(real).mean()


def wgan_generator(fake: Tensor) -> Tensor:
    """Return the mean score, negated."""
    return -_wide(fake).mean()


LOSSES: dict[str, Adversarial] = {
    "vanilla": Adversarial(vanilla_judge, vanilla_generator),
    "logistic": Adversarial(logistic_judge, logistic_generator),
    "saturating": Adversarial(logistic_judge, saturating_generator),
    "lsgan": Adversarial(lsgan_judge, lsgan_generator),
    "wgan": Adversarial(wgan_judge, wgan_generator),
}


def drift(real: Tensor, weight: float = 1e-3) -> Tensor:
    """Return `weight` times the mean square of real scores, which keeps them near 0 (ProGAN, app. A.1)."""
    return weight * _wide(real).square().mean()


def slopes(scores: Tensor, images: Tensor) -> Tensor:
    """Return the gradient of each image's score in the image [n, ...], to be differentiated again.

    A map of scores is summed over its patches. images: they require gradients, and `scores` come of them. A
    phase that calls this says `second_order=True`.
    """
    (slope,) = torch.autograd.grad(_wide(scores).sum(), images, create_graph=True)
    return slope


def r1(scores: Tensor, real: Tensor, gamma: float = 10.0) -> Tensor:
    """Return gamma / 2 times the mean squared length of the slopes at real images.

    Mescheder, Geiger & Nowozin 2018, eq. 9. A lazy phase, every k updates, multiplies it by k (StyleGAN2,
    appendix B).
    """
    return gamma / 2 * _wide(slopes(scores, real)).square().flatten(1).sum(1).mean()


def between(real: Tensor, fake: Tensor, noise: Tensor) -> Tensor:
    """Return a point on the line between each real and generated image [n, ...], which requires gradients.

    Gulrajani et al. 2017, algorithm 1.

    noise: standard normal [n, 1], as `Batch.latents` counts it; its place on the line is even in [0, 1]
    """
    start, end = _wide(real.detach()), _wide(fake.detach())
    share = torch.special.ndtr(_wide(noise)).to(start.dtype).view(-1, *[1] * (real.dim() - 1))
    return torch.lerp(start, end, share).requires_grad_()


def slope_penalty(scores: Tensor, points: Tensor, *, weight: float = 10.0, target: float = 1.0) -> Tensor:
    """Return `weight` times the mean squared distance of the slopes' lengths from `target`, over its square.

    `points` are those of `between`. Gulrajani et al. 2017, eq. 3 (WGAN-GP); `target`: ProGAN, appendix A.1.
    """
    squared = _wide(slopes(scores, points)).square().flatten(1).sum(1)
    length = (squared + 1e-12).sqrt()  # the root has no slope at 0
    return weight * (length / target - 1).square().mean()


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the divergence of N(mean, variance) from N(0, 1), summed over d latents, averaged over n images.

    Kingma & Welling 2014, appendix B.
    """
    mean, log_variance = _wide(mean), _wide(log_variance)
    each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return each.sum(1).mean()


def reconstruction(images: Tensor, originals: Tensor) -> Tensor:
    """Return the mean squared difference of images, both in [-1, 1], as it is on the range [0, 1]."""
    return (_wide(images) - _wide(originals)).square().mean() / 4


def l1(images: Tensor, originals: Tensor) -> Tensor:
    """Return the mean absolute difference of images: of a pair, of a cycle, of one to be left as it is.

    Isola et al. 2017, eq. 3; Zhu et al. 2017, eq. 2 and section 5.2.
    """
    return (_wide(images) - _wide(originals)).abs().mean()


def dissimilarity(embeddings: Tensor, others: Tensor) -> Tensor:
    """Return 1 less the mean cosine of embeddings [n, d]: 0 where all persons are kept, 2 at most."""
    return 1 - F.cosine_similarity(_wide(embeddings), _wide(others), dim=1).mean()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _cross_entropy(scores: Tensor, truth: float) -> Tensor:
    wide = _wide(scores)
    return F.binary_cross_entropy_with_logits(wide, torch.full_like(wide, truth))
