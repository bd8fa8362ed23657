"""What `tests/hpc/evaluation` runs on every rank: a task of one linear layer, and its evaluators."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ragged import Ragged
from data_shards.sampling.order import evaluation_blocks
from hpc.distributed.comm import Comm
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows
from hpc.evaluation.run import evaluate
from hpc.metrics.groups import Groups
from hpc.task import Task

SAMPLES, BLOCK = 14, 4  # four blocks: of five ranks one has none


class Sums(Task):
    """Predicts the mean of an image times a weight."""

    def __init__(self, *evaluators: type[Evaluator]) -> None:
        super().__init__(None)
        self.evaluators = {each.__name__.lower(): each for each in evaluators}
        self.predicted = 0

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        self.predicted += 1
        return {"mean": nets["net"](batch.images["image"].mean((2, 3)))}


class Rowed(Evaluator):
    """Keeps a row of each sample and, ragged, as many as its id has ones in binary."""

    def __init__(self) -> None:
        self.ids: list[np.ndarray] = []
        self.means: list[np.ndarray] = []

    def add(self, task: Task, nets: dict[str, nn.Module], batch: Batch) -> None:
        self.ids.append(batch.ids[:, 0].numpy())
        self.means.append(task.predict(nets, batch)["mean"][:, 0].cpu().numpy())

    def rows(self) -> Rows:
        ids = np.concatenate([np.zeros(0, np.int64), *self.ids])
        parts = [torch.full((int(number).bit_count(), 2), float(number)) for number in ids]
        ragged = Ragged.of_lists(parts) if parts else Ragged(torch.zeros(0, 2), np.zeros(1, np.int64))
        return {"ids": ids, "mean": np.concatenate([np.zeros(0, np.float32), *self.means]), "ones": ragged}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        ones = rows["ones"]
        assert isinstance(ones, Ragged)
        assert rows["ids"].tolist() == list(range(SAMPLES))
        assert ones.counts.tolist() == [number.bit_count() for number in range(SAMPLES)]
        assert (ones.rows[:, 0].numpy() == ones.owners).all()
        return Report({"mean": float(np.asarray(rows["mean"], np.float64).sum())})


class Summed(Evaluator):
    """Adds up over samples what is not a whole number; several rows an id, of latents that need no set."""

    def __init__(self) -> None:
        self.total = torch.zeros(3, dtype=torch.float64)
        self.parts: list[np.ndarray] = []

    def batches(self, judged: JudgedSet, comm: Comm) -> Iterable[Batch]:
        for block in evaluation_blocks(SAMPLES, BLOCK, comm.rank, comm.world):
            rows = torch.arange(block.start, block.stop)
            yield Batch({"image": torch.zeros(len(rows), 3, 1, 1)}, {}, rows[:, None], rows, seed=3)

    def add(self, task: Task, nets: dict[str, nn.Module], batch: Batch) -> None:
        self.total += batch.latents("z", 3).double().sum(0)
        self.parts.append(batch.ids[:, 0].numpy())

    def sums(self) -> dict[str, Tensor]:
        return {"total": self.total, "count": torch.tensor(float(sum(map(len, self.parts))))}

    def rows(self) -> Rows:
        ids = np.repeat(np.concatenate([np.zeros(0, np.int64), *self.parts]), 2)
        return {"ids": ids, "nth": 1 - np.arange(len(ids)) % 2}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        assert np.asarray(rows["nth"]).tolist() == [0, 1] * SAMPLES
        return Report({"total": float(sums["total"].sum()), "count": float(sums["count"])})


class Refusing(Rowed):
    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        raise UserError("no figure can be made of these")


def image_batches(comm: Comm) -> Iterable[Batch]:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (SAMPLES, 3, 5, 5), np.uint8))
    for block in evaluation_blocks(SAMPLES, BLOCK, comm.rank, comm.world):
        rows = torch.arange(block.start, block.stop)
        yield Batch({"image": images[rows]}, {}, rows[:, None], rows)


def judged(comm: Comm, *evaluators: type[Evaluator]) -> tuple[dict[str, Any], int, int]:
    """Scalars by evaluator, how often the network was asked, thumbnails."""
    torch.manual_seed(0)
    task, nets = Sums(*evaluators), {"net": nn.Linear(3, 1)}
    reports, shown = evaluate(
        task, nets, JudgedSet(image_batches), comm, channels_last=False, thumbnails=BLOCK
    )
    assert nets["net"].training
    scalars = {name: report.scalars for name, report in reports.items()}
    return scalars, task.predicted, len(shown[0]) if shown else 0


def refused(comm: Comm) -> str:
    try:
        judged(comm, Refusing)
    except UserError as error:
        return str(error)
    return ""
