"""Batch norm with stated statistics, against torch's own."""

import copy

import pytest
import torch
from torch import nn

from hpc import norm
from hpc.dist import Dist
from tests.ranks import launch


def network() -> nn.Module:
    torch.manual_seed(3)
    layers = [
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.BatchNorm2d(4),
    ]
    return nn.Sequential(*layers)


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def one_step(here: Dist, mode: str, group: int, micro: int) -> tuple[torch.Tensor, dict]:
    """Outputs and buffers after one training pass over this rank's share of 12 pictures."""
    net = norm.convert(network(), mode=mode, group=group, here=here)
    share = pictures(12).chunk(here.world)[here.rank]
    outputs = torch.cat([net(part) for part in share.split(micro)])
    norm.commit(norm.norms(net), here)
    return outputs.detach(), {k: v for k, v in net.state_dict().items() if "running" in k}


def test_one_group_over_the_whole_batch_is_torch_batch_norm() -> None:
    plain = network()
    expected = plain(pictures(12))
    for mode, group in (("local", 8), ("group", 12), ("sync", 8)):
        outputs, buffers = one_step(Dist(), mode, group, 12)
        torch.testing.assert_close(outputs, expected.detach())
        for name, value in buffers.items():
            torch.testing.assert_close(value, plain.state_dict()[name])


def test_evaluation_equals_torch_and_weights_load_back() -> None:
    plain = network()
    ours = norm.convert(copy.deepcopy(plain), mode="group", group=4, here=Dist())
    assert plain.state_dict().keys() == ours.state_dict().keys()
    torch.testing.assert_close(ours.eval()(pictures(5)), plain.eval()(pictures(5)), rtol=0, atol=0)


@pytest.mark.parametrize(("mode", "micro"), [("group", 99), ("group", 2), ("sync", 99)])
def test_group_and_sync_do_not_depend_on_ranks(mode: str, micro: int) -> None:
    reference, buffers = one_step(Dist(), mode, 2, 12)
    found = launch(one_step, 2, mode, 2, micro)
    torch.testing.assert_close(torch.cat([outputs for outputs, _ in found]), reference, rtol=1e-5, atol=1e-5)
    for _, theirs in found:
        for name, value in theirs.items():
            torch.testing.assert_close(value, buffers[name], rtol=1e-5, atol=1e-6)


def sync_gradient(here: Dist) -> torch.Tensor:
    net = norm.convert(network(), mode="sync", group=1, here=here)
    share = pictures(12).chunk(here.world)[here.rank]
    (net(share).square().flatten(1).sum(1) * torch.arange(12.0).chunk(here.world)[here.rank]).sum().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def test_sync_gradient_equals_one_process() -> None:
    found = launch(sync_gradient, 2)
    torch.testing.assert_close(found[0] + found[1], sync_gradient(Dist()), rtol=1e-4, atol=1e-4)


def test_a_pass_that_does_not_count_leaves_no_statistics() -> None:
    net = norm.convert(network(), mode="local", group=1, here=Dist())
    layers = norm.norms(net)
    with norm.not_collecting(layers):
        net(pictures(4))
    before = [layer.running_mean.clone() for layer in layers]
    norm.commit(layers, Dist())
    assert all(torch.equal(layer.running_mean, mean) for layer, mean in zip(layers, before, strict=True))
