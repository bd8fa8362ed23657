"""Micro batches: a task's scalars stand for the whole share, however it is cut. Gradients: test_engine.py."""

import contextlib

import pytest
import torch
from torch import Tensor, nn

from hpc.distributed.comm import Comm
from hpc.engines.factory import build_engine
from hpc.task import Batch, Phase, Task
from hpc.training.accumulation import BackwardPass, blocks_of


class Mean(Task):
    """Reports the mean of its images, a coupled phase in `forward`, and there the count of outputs too."""

    def forward(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        self.report("brightness", batch.images["image"].mean())
        return nets["net"](batch.images["image"].flatten(1))

    def couple(
        self, phase: Phase, nets: dict[str, nn.Module], outputs: Tensor, batch: Batch, clock: int
    ) -> Tensor:
        self.report("count", torch.tensor(float(len(outputs))))
        return outputs.mean()

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        loss = nets["net"](batch.images["image"].flatten(1)).mean()
        self.report("brightness", batch.images["image"].mean())
        return loss


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("micro", [0, 1, 2, 3, 7, 8])
def test_reported_scalars_are_those_of_the_whole_share(micro, coupled):
    torch.manual_seed(0)
    images = torch.randn(8, 3, 2, 2)
    batch = Batch({"image": images}, {}, torch.arange(8)[:, None], torch.arange(8))
    reported: dict[str, list[tuple[float, float]]] = {}
    weight = [1.0]
    task = Mean(None)
    task.report = lambda name, value: reported.setdefault(name, []).append((weight[0], float(value)))
    run = BackwardPass(
        task,
        Phase("train", "net", coupled=coupled),
        {"net": build_engine("flat", nn.Linear(12, 1), Comm())},
        clock=0,
        seed=lambda _: None,
        autocast=contextlib.nullcontext,
        set_loss_weight=lambda share: weight.__setitem__(0, share),
    )
    run.backward(batch, blocks_of(8, micro))
    assert sum(share for share, _ in reported["brightness"]) == pytest.approx(1.0)
    mean = sum(share * value for share, value in reported["brightness"])
    assert mean == pytest.approx(float(images.mean()), abs=1e-6)
    assert reported.get("count") == ([(1.0, 8.0)] if coupled else None)
