"""Losses of generators and judges: against closed forms, torch's own, and finite differences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from hpc.losses import adversarial as losses
from models.progan import Discriminator
from tests.support.host_reads import HostReads

REAL, FAKE = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.0, 3.0, -2.0])


def draw(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def log_sigmoid(x):
    return np.log(1 / (1 + np.exp(-x.numpy())))


@pytest.mark.parametrize(
    ("name", "judge", "generator"),
    [
        ("vanilla", -(log_sigmoid(REAL).mean() + log_sigmoid(-FAKE).mean()) / 2, -log_sigmoid(FAKE).mean()),
        ("logistic", -(log_sigmoid(REAL).mean() + log_sigmoid(-FAKE).mean()), -log_sigmoid(FAKE).mean()),
        ("saturating", -(log_sigmoid(REAL).mean() + log_sigmoid(-FAKE).mean()), log_sigmoid(-FAKE).mean()),
        ("lsgan", ((1 + 4 + 0.25) / 3 + (0 + 9 + 4) / 3) / 2, (1 + 4 + 9) / 3),
        ("wgan", (0 + 3 - 2) / 3 - (2 - 1 + 0.5) / 3, -(0 + 3 - 2) / 3),
    ],
)
def test_the_pairs_are_their_formulas(name, judge, generator):
    pair = losses.LOSSES[name]
    assert pair.judge(REAL, FAKE).item() == pytest.approx(judge, rel=1e-5)
    assert pair.generator(FAKE).item() == pytest.approx(generator, rel=1e-5)
    maps = pair.judge(REAL.view(3, 1, 1, 1).expand(3, 1, 2, 2), FAKE.view(3, 1, 1, 1).expand(3, 1, 2, 2))
    torch.testing.assert_close(maps, pair.judge(REAL, FAKE))  # patches count alike


@pytest.mark.parametrize("name", losses.LOSSES)
def test_judge_and_generator_pull_scores_apart(name):
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    pair = losses.LOSSES[name]
    towards = torch.autograd.grad(pair.judge(real, fake), (real, fake))
    (against,) = torch.autograd.grad(pair.generator(fake), fake)
    if name != "lsgan":  # which pulls to 1 and 0
        assert (towards[0] < 0).all()
        assert (towards[1] > 0).all()
        assert (against < 0).all()
    else:
        torch.testing.assert_close(towards[0], (REAL - 1) / 3)
        torch.testing.assert_close(towards[1], FAKE / 3)
        torch.testing.assert_close(against, (FAKE - 1) * 2 / 3)


def test_the_generator_s_slope_does_not_vanish_where_the_judge_is_sure():
    for name, least in (("logistic", 0.99), ("vanilla", 0.99), ("saturating", 0.0)):
        score = torch.tensor([-12.0], requires_grad=True)
        (slope,) = torch.autograd.grad(losses.LOSSES[name].generator(score), score)
        assert slope.abs() > least if least else slope.abs() < 1e-5


def test_scores_far_out_stay_finite():
    far = torch.tensor([200.0, -200.0])
    for name in ("vanilla", "logistic", "saturating"):
        assert losses.LOSSES[name].judge(far, far).isfinite()
        assert losses.LOSSES[name].generator(far).isfinite()


def test_drift_is_the_mean_square_of_real_scores():
    assert losses.drift(REAL).item() == pytest.approx(1e-3 * (4 + 1 + 0.25) / 3)


def test_r1_of_a_quadratic_score_is_the_closed_form():
    """D(x) = x'Ax / 2 has the slope Ax."""
    matrix = draw(6, 6, dtype=torch.float64)
    matrix = matrix + matrix.T
    x = draw(5, 1, 2, 3, dtype=torch.float64).requires_grad_()
    flat = x.flatten(1)
    scores = (flat @ matrix * flat).sum(1) / 2
    expected = 7.0 / 2 * (flat @ matrix).square().sum(1).mean()
    torch.testing.assert_close(losses.r1(scores, x, gamma=7.0), expected)


def test_a_linear_score_has_the_penalty_of_its_slope_and_its_gradient():
    """D(x) = w x has the slope w everywhere: weight (|w| / target - 1)^2, whose gradient is closed too."""
    weight = draw(12).requires_grad_()
    points = losses.between(draw(4, 3, 2, 2), draw(4, 3, 2, 2, seed=2), draw(4, 1, seed=3))
    found = losses.slope_penalty(points.flatten(1) @ weight, points, weight=10.0, target=2.0)
    length = weight.norm()
    torch.testing.assert_close(found, 10 * (length / 2 - 1) ** 2)
    found.backward()
    expected = 10 * 2 * (length / 2 - 1) / 2 * weight / length
    torch.testing.assert_close(weight.grad, expected.detach())


def test_a_flat_score_has_a_finite_penalty_and_gradient():
    weight = torch.zeros(4, requires_grad=True)
    points = losses.between(draw(2, 1, 2, 2), draw(2, 1, 2, 2, seed=2), draw(2, 1))
    penalty = losses.slope_penalty(points.flatten(1) @ weight, points)
    penalty.backward()
    assert penalty.item() == pytest.approx(10.0, rel=1e-4)
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["r1", "slope_penalty"])
def test_gradients_of_slopes_are_finite_differences_of_weights(kind):
    """The judge of ProGAN in float64, with its groups and the blur, as StyleGAN's."""
    torch.manual_seed(0)
    net = Discriminator(8, width=3, blur=True, group=2).double()
    real, fake = draw(4, 3, 8, 8, dtype=torch.float64), draw(4, 3, 8, 8, seed=2, dtype=torch.float64)

    def penalty():
        if kind == "r1":
            x = real.clone().requires_grad_()
            return losses.r1(net(x, 1, 0.4), x, gamma=3.0)
        points = losses.between(real, fake, draw(4, 1, seed=3, dtype=torch.float64))
        return losses.slope_penalty(net(points, 1, 0.4), points)

    names = ["blocks.0.first.weight", "colours.0.weight", "colours.1.weight", "conv.weight", "dense.bias"]
    parameters = dict(net.named_parameters())
    found = torch.autograd.grad(penalty(), [parameters[name] for name in names], allow_unused=True)
    for name, slope in zip(names, found, strict=True):
        parameter = parameters[name].data
        direction = draw(*parameter.shape, seed=7, dtype=torch.float64)
        ends = []
        for step in (1e-5, -1e-5):
            parameter.add_(direction, alpha=step)
            ends.append(penalty().item())
            parameter.sub_(direction, alpha=step)
        expected = (ends[0] - ends[1]) / 2e-5
        inner = 0.0 if slope is None else (slope * direction).sum().item()
        assert inner == pytest.approx(expected, rel=1e-4, abs=1e-7), name


def test_points_are_even_on_the_line_and_counted_by_the_noise():
    real, fake = torch.zeros(20_000, 1), torch.ones(20_000, 1)
    points = losses.between(real, fake, draw(20_000, 1))
    assert points.requires_grad
    assert stats.kstest(points.detach()[:, 0].numpy(), "uniform").pvalue > 1e-3
    images = losses.between(
        draw(3, 3, 4, 4), draw(3, 3, 4, 4, seed=2), torch.tensor([[-50.0], [0.0], [50.0]])
    )
    torch.testing.assert_close(images[0], draw(3, 3, 4, 4)[0])
    torch.testing.assert_close(images[1], (draw(3, 3, 4, 4)[1] + draw(3, 3, 4, 4, seed=2)[1]) / 2)
    torch.testing.assert_close(images[2], draw(3, 3, 4, 4, seed=2)[2])


def test_kl_is_torch_s():
    mean, log_variance = draw(5, 7), draw(5, 7, seed=2)
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(losses.kl(mean, log_variance), expected)
    assert losses.kl(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


def test_distances_of_images_are_those_of_numpy():
    a, b = draw(2, 3, 4, 4).clamp(-1, 1), draw(2, 3, 4, 4, seed=2).clamp(-1, 1)
    assert losses.l1(a, b).item() == pytest.approx(np.abs(a.numpy() - b.numpy()).mean(), rel=1e-5)
    unit = [(x.numpy() + 1) / 2 for x in (a, b)]
    assert losses.reconstruction(a, b).item() == pytest.approx(((unit[0] - unit[1]) ** 2).mean(), rel=1e-5)


def test_dissimilarity_is_a_cosine():
    a = F.normalize(draw(4, 6), dim=1)
    assert losses.dissimilarity(a, 3 * a).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.dissimilarity(a, -a).item() == pytest.approx(2.0)
    assert losses.dissimilarity(torch.eye(2), torch.eye(2).flip(0)).item() == pytest.approx(1.0)


def test_a_batch_is_the_mean_of_its_parts():
    """What a sum over micro batches and ranks relies on."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 1))
    real, fake, noise = draw(8, 3, 8, 8), draw(8, 3, 8, 8, seed=2), draw(8, 1, seed=3)

    def loss(rows):
        x = real[rows].clone().requires_grad_()
        points = losses.between(real[rows], fake[rows], noise[rows])
        pair = losses.LOSSES["wgan"].judge(net(real[rows]), net(fake[rows])) + losses.drift(net(real[rows]))
        return pair + losses.r1(net(x), x) + losses.slope_penalty(net(points), points)

    whole = torch.autograd.grad(loss(slice(None)), [*net.parameters()])
    parts = [torch.autograd.grad(loss(slice(low, low + 2)), [*net.parameters()]) for low in range(0, 8, 2)]
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.stack(several).mean(0), one, rtol=1e-4, atol=1e-5)


def test_nothing_is_read_from_the_device_also_under_autocast():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 1))
    x = draw(4, 3, 8, 8).requires_grad_()
    with HostReads() as reads, torch.autocast("cpu", dtype=torch.bfloat16):
        total = losses.r1(net(x), x)
        points = losses.between(x, x.flip(0), draw(4, 1))
        total = total + losses.slope_penalty(net(points), points)
        for pair in losses.LOSSES.values():
            total = total + pair.judge(net(x), net(x)) + pair.generator(net(x))
        total.backward()
    assert reads.found == []
    assert total.dtype == torch.float32
    assert math.isfinite(total.item())
