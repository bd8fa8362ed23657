"""Players: the memory layout under DDP, and two with batch norm that pass through each other."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpc import train
from hpc.checkpoints import store
from hpc.config.schema import Config, Ema, Engine, Evaluate, Save
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.training.player import Player
from tests.support.ranks import launch
from tests.support.rivals import Rivals
from tests.support.runs import make_run
from tests.support.sets import pack_set


def one_update(comm: Comm, images: int) -> tuple[list[str], list[str]]:
    """Warnings of one update under DDP; parameters whose gradient has other strides."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 32, 1), nn.Conv2d(32, 32, 3, groups=32))
    other: list[str] = []

    def compare(name: str, p: Tensor, gradient: Tensor) -> None:
        if gradient.stride() != p.stride():
            other.append(name)

    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        player = Player("net", net, Config(engine=Engine(name="ddp")), comm)
        for name, p in net.named_parameters():
            p.register_hook(lambda gradient, name=name, p=p: compare(name, p, gradient))
        images = torch.randn(images, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        for _ in range(2):
            player.optimizer.zero_grad(set_to_none=True)
            player.engine.net(images).square().mean().backward()
            player.update(1e-3, player.norm_of_gradient())
    return [str(warning.message) for warning in raised], other


# With 16 images the kernels on a CPU are others than with fewer.
@pytest.mark.parametrize("images", [4, 16])
def test_gradients_have_the_strides_of_their_parameters(images: int) -> None:
    assert launch(one_update, 2, images) == [([], [])] * 2


def test_two_players_with_batch_norm_resume_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "build_task", Rivals)
    shards = pack_set(tmp_path, identities=8, each=4)
    options: dict[str, Any] = {"images": 96, "engine": Engine(name="flat"), "ema": Ema()}
    options |= {"save": Save(every=48), "eval": Evaluate(every=48, batch=16)}
    straight, stopped = (make_run(tmp_path / name, shards, **options) for name in ("straight", "stopped"))
    with contextlib.closing(train.Trainer(RunDir(straight), Comm())) as trainer:
        trainer.fit()
    with contextlib.closing(train.Trainer(RunDir(stopped), Comm())) as trainer:
        while trainer.clock < 48:
            before = trainer.clock
            trainer.step()
        trainer._interval_start = (0.0, 0, 0.0)
        trainer._after_step(before)
    with contextlib.closing(train.Trainer(RunDir(stopped), Comm())) as trainer:
        assert trainer.clock == 48
        trainer.fit()
    one, other = (store.read(store.listing(run)[-1]).players for run in (straight, stopped))
    assert one.keys() == other.keys() == {"G", "D"}
    for name, tensors in one.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, other[name][key]), f"{name}.{key}"
