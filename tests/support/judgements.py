"""Evaluators of the tiny jobs, where the product has none of their kind."""

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from hpc.evaluation.base import Evaluator, Report, Rows, Table
from hpc.metrics.groups import Groups
from hpc.task import Task


class MeanOutput(Evaluator):
    """The mean of an output over all samples; each sample's own is kept by its id."""

    def __init__(self, output: str) -> None:
        self.output = output
        self._parts = [{"ids": np.zeros(0, np.int64), "values": np.zeros(0)}]

    def add(self, task: Task, nets: dict[str, nn.Module], batch: Batch) -> None:
        values = task.predict(nets, batch)[self.output].double().reshape(len(batch), -1).mean(1)
        self._parts.append({"ids": batch.ids[:, 0].numpy(), "values": values.cpu().numpy()})

    def rows(self) -> Rows:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        mean = float(np.asarray(rows["values"]).mean())
        return Report({"mean": mean}, tables={"means": Table(("output", "mean"), [[self.output, mean]])})


class PixelAccuracy(Evaluator):
    """The share of the known pixels of a mask whose class is right, by sums alone."""

    def __init__(self, piece: str) -> None:
        self.piece = piece
        self._counts = torch.zeros(2, dtype=torch.float64)

    def add(self, task: Task, nets: dict[str, nn.Module], batch: Batch) -> None:
        mask = batch.images[self.piece][:, 0]
        right = task.predict(nets, batch)[self.piece].argmax(1) == mask
        self._counts += torch.stack([right.sum(), (mask != 255).sum()]).double().cpu()

    def sums(self) -> dict[str, Tensor]:
        return {"counts": self._counts}

    def report(self, sums: dict[str, Tensor], rows: Rows, *, groups: Groups, rounds: int) -> Report:
        right, known = sums["counts"].tolist()
        table = Table(("mask", "accuracy", "pixels"), [[self.piece, right / known, int(known)]])
        return Report({"accuracy": right / known}, tables={"pixels": table})
