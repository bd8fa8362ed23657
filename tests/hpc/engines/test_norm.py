"""Batch norm with stated statistics, against torch's own."""

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.distributed.collectives import gather_grad
from hpc.distributed.comm import Comm
from hpc.engines import batch_norm
from hpc.engines.factory import build_engine
from hpc.task import Batch, Phase, Task
from hpc.training.accumulation import BackwardPass
from hpc.training.player import Player
from hpc.training.validation import in_eval_mode
from tests.support.ranks import launch


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


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def one_step(comm: Comm, mode: str, group: int, micro: int) -> tuple[torch.Tensor, dict]:
    """Outputs and buffers after one training pass over this rank's share of 12 images."""
    net = batch_norm.convert(network(), mode=mode, group=group, comm=comm)
    share = images(12).chunk(comm.world)[comm.rank]
    with batch_norm.collecting(batch_norm.norms(net)):
        outputs = torch.cat([net(part) for part in share.split(micro)])
    batch_norm.commit(batch_norm.norms(net), comm)
    return outputs.detach(), {k: v for k, v in net.state_dict().items() if "running" in k}


def test_one_group_over_the_whole_batch_is_torch_batch_norm() -> None:
    plain = network()
    expected = plain(images(12))
    for mode, group in (("local", 8), ("group", 12), ("sync", 8)):
        outputs, buffers = one_step(Comm(), mode, group, 12)
        torch.testing.assert_close(outputs, expected.detach())
        for name, value in buffers.items():
            torch.testing.assert_close(value, plain.state_dict()[name])


def test_evaluation_equals_torch_and_weights_load_back() -> None:
    plain = network()
    ours = batch_norm.convert(copy.deepcopy(plain), mode="group", group=4, comm=Comm())
    assert plain.state_dict().keys() == ours.state_dict().keys()
    torch.testing.assert_close(ours.eval()(images(5)), plain.eval()(images(5)), rtol=0, atol=0)


@pytest.mark.parametrize(("mode", "micro"), [("group", 99), ("group", 2), ("sync", 99)])
def test_group_and_sync_do_not_depend_on_ranks(mode: str, micro: int) -> None:
    reference, buffers = one_step(Comm(), mode, 2, 12)
    found = launch(one_step, 2, mode, 2, micro)
    torch.testing.assert_close(torch.cat([outputs for outputs, _ in found]), reference, rtol=1e-5, atol=1e-5)
    for _, theirs in found:
        for name, value in theirs.items():
            torch.testing.assert_close(value, buffers[name], rtol=1e-5, atol=1e-6)


def sync_gradient(comm: Comm) -> torch.Tensor:
    net = batch_norm.convert(network(), mode="sync", group=1, comm=comm)
    share = images(12).chunk(comm.world)[comm.rank]
    (net(share).square().flatten(1).sum(1) * torch.arange(12.0).chunk(comm.world)[comm.rank]).sum().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def test_sync_gradient_equals_one_process() -> None:
    found = launch(sync_gradient, 2)
    torch.testing.assert_close(found[0] + found[1], sync_gradient(Comm()), rtol=1e-4, atol=1e-4)


class Penalised(Task):
    """Two players; `G` passes through both networks, `D` is penalised for its gradient at the images."""

    def players(self) -> dict[str, nn.Module]:
        return {"G": network(), "D": nn.Sequential(nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3))}

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        scores = nets["D"](nets["G"](batch.images["image"]))
        if not phase.second_order:
            return scores.square().mean()
        slopes = torch.autograd.grad(scores.sum(), list(nets["D"].parameters()), create_graph=True)
        return torch.stack([slope.square().sum() for slope in slopes]).sum()


@pytest.mark.parametrize(
    ("phase", "counted"),
    [
        (Phase("make", "G"), {"G"}),
        (Phase("judge", "D"), {"D"}),
        (Phase("smooth", "D", second_order=True), set()),
        (Phase("smooth", "D", second_order=True, collect=True), {"D"}),
        (Phase("judge", "D", collect=False), set()),
    ],
)
def test_only_the_player_of_a_phase_collects(phase: Phase, counted: set[str]) -> None:
    task = Penalised(None)
    nets = {
        name: batch_norm.convert(net, mode="local", group=1, comm=Comm())
        for name, net in task.players().items()
    }
    run = BackwardPass(
        task,
        phase,
        {name: build_engine("flat", net, Comm()) for name, net in nets.items()},
        clock=0,
        seed=lambda _: None,
        autocast=contextlib.nullcontext,
    )
    run.backward(
        Batch({"image": images(6)}, {}, torch.arange(6)[:, None], torch.arange(6)), [slice(0, 4), slice(4, 6)]
    )
    found = {name: [int(layer.stat_count) for layer in batch_norm.norms(net)] for name, net in nets.items()}
    assert found == {"G": [6 * ("G" in counted)] * 2, "D": [6 * ("D" in counted)]}
    for net in nets.values():
        net(images(2) if net is nets["G"] else torch.randn(2, 4, 3, 3))  # outside a phase
    again = {name: [int(layer.stat_count) for layer in batch_norm.norms(net)] for name, net in nets.items()}
    assert again == found


class Reads(TorchDispatchMode):
    """Counts the operators, and those by which the host waits for a value of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.reads = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.operators += 1
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_commit_reads_nothing_from_the_device() -> None:
    net = batch_norm.convert(
        nn.Sequential(*[nn.BatchNorm2d(3) for _ in range(50)]), mode="local", group=1, comm=Comm()
    )
    layers = batch_norm.norms(net)
    with batch_norm.collecting(layers):
        net(images(4))
    with Reads() as found:
        batch_norm.commit(layers, Comm(), torch.tensor(True))
    assert found.reads == 0
    assert found.operators < 20
    assert [int(layer.num_batches_tracked) for layer in layers] == [1] * 50


@pytest.mark.parametrize("momentum", [0.0, 0.3, None])
def test_running_statistics_move_by_the_momentum_as_in_torch(momentum: float | None) -> None:
    plain = nn.BatchNorm2d(3, momentum=momentum)
    net = batch_norm.convert(nn.Sequential(copy.deepcopy(plain)), mode="local", group=1, comm=Comm())
    for step in range(3):
        batch = images(4) * (step + 1) + step
        plain(batch)
        with batch_norm.collecting(batch_norm.norms(net)):
            net(batch)
        batch_norm.commit(batch_norm.norms(net), Comm())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[f"0.{name}"], value)


VECTORS = {"1d": (nn.BatchNorm1d, (8, 3)), "1d over a line": (nn.BatchNorm1d, (8, 3, 5))}
VOLUMES = {"3d": (nn.BatchNorm3d, (8, 3, 2, 4, 4)), "torch's own sync": (nn.SyncBatchNorm, (8, 3, 2))}


@pytest.mark.parametrize(("kind", "shape"), [*VECTORS.values(), *VOLUMES.values()], ids=[*VECTORS, *VOLUMES])
def test_every_kind_of_batch_norm_is_converted(kind: type, shape: tuple[int, ...]) -> None:
    layer = kind(3)
    net = batch_norm.convert(nn.Sequential(layer), mode="local", group=1, comm=Comm())
    assert isinstance(net[0], batch_norm.Norm)
    x = torch.randn(shape)
    expected = nn.functional.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.1, layer.eps)
    torch.testing.assert_close(net(x), expected)


def one_vector_step(comm: Comm, mode: str) -> list[torch.Tensor]:
    torch.manual_seed(5)
    net = batch_norm.convert(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), mode=mode, group=2, comm=comm)
    rows = torch.randn(8, 4).chunk(comm.world)[comm.rank]
    with batch_norm.collecting(batch_norm.norms(net)):
        outputs = net(rows)
    batch_norm.commit(batch_norm.norms(net), comm)
    return [outputs.detach(), *(value for key, value in net.state_dict().items() if "running" in key)]


def test_vectors_leave_the_same_statistics_on_all_ranks() -> None:
    for mode in ("local", "group", "sync"):
        one, other = launch(one_vector_step, 2, mode)
        alone = one_vector_step(Comm(), mode)
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))
        if mode != "local":
            torch.testing.assert_close(torch.cat([one[0], other[0]]), alone[0])
            torch.testing.assert_close(one[1:], alone[1:])


def test_what_was_frozen_stays_frozen() -> None:
    module = nn.Sequential(*network(), copy.deepcopy(network()[4]))
    module[4].weight.requires_grad_(False)
    module[1].eval()
    module.add_module("again", module[4])  # one layer in two places
    player = Player("net", module, Config(channels_last=False), Comm())
    assert module[4] is module.again
    assert len(player.layers) == 3
    for on in (False, True):
        player.receive_gradients(on)
        assert not module[4].weight.requires_grad
        assert module[0].weight.requires_grad is on
    assert [module[place].training for place in (0, 1, 4)] == [True, False, True]
    with in_eval_mode({"net": module}):
        assert not any(layer.training for layer in module.modules())
    assert [module[place].training for place in (0, 1, 4)] == [True, False, True]
    with batch_norm.collecting(player.layers):
        module[:2](images(2))
    assert int(module[1].stat_count) == 0


def test_a_layer_whose_size_is_not_known_yet_is_refused() -> None:
    with pytest.raises(UserError, match="LazyBatchNorm2d, whose size is not known yet"):
        batch_norm.convert(nn.Sequential(nn.LazyBatchNorm2d()), mode="local", group=1, comm=Comm())


def second_order(comm: Comm) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of a penalty on a gradient, through `sync` and through a gather of all outputs."""
    net = batch_norm.convert(network().double(), mode="sync", group=1, comm=comm)
    share = images(12).double().chunk(comm.world)[comm.rank].requires_grad_()
    outputs = net(share).tanh().flatten(1)
    everyone = gather_grad(outputs, comm)
    values = (outputs @ everyone.T).tanh().square().sum()
    (slope,) = torch.autograd.grad(values, share, create_graph=True)
    slope.square().sum().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]), slope.detach()


def test_a_penalty_on_a_gradient_is_the_same_on_two_ranks_and_one() -> None:
    (one, upper), (other, lower) = launch(second_order, 2)
    alone, slope = second_order(Comm())
    torch.testing.assert_close(torch.cat([upper, lower]), slope, rtol=1e-12, atol=1e-14)
    assert float((one + other - alone).norm() / alone.norm()) < 1e-13
