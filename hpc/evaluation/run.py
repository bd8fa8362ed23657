"""Walks a held-out set with the evaluators of a task, on all ranks: no padding, no communication in the loop.

Fixed blocks of `eval.batch` samples are dealt to the ranks in turn, so a sample is always judged in the same
batch; sums and rows meet once, at the end. Rank 0 computes the figures, the others receive the scalars.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, Batch
from data_shards.errors import UserError
from data_shards.ragged import Ragged
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.evaluation.base import Evaluator, JudgedSet, Report, Rows
from hpc.metrics.groups import Groups
from hpc.task import Task
from hpc.training.validation import in_eval_mode

DIGITS = 10  # of what is all-reduced: the last ones depend on the number of ranks
Shown = tuple[Tensor, Tensor]


class OncePerBatch:
    """A task whose prediction of a batch is computed once, however many evaluators ask for it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._last: tuple[Batch, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> Any:
        if self._last is None or self._last[0] is not batch:
            self._last = batch, self._task.predict(nets, batch)
        return self._last[1]


def walk(
    task: Task,
    nets: dict[str, nn.Module],
    evaluators: Mapping[str, Evaluator],
    judged: JudgedSet,
    comm: Comm,
    *,
    channels_last: bool,
    thumbnails: int = 0,
) -> Shown | None:
    """Show this rank's batches to the evaluators; return thumbnails uint8 [n, 3, h, w] and their ids [n].

    Rank 0 alone has thumbnails, at most so many; None without.
    """
    for each in evaluators.values():
        each.begin(judged)
    sharing = [each for each in evaluators.values() if type(each).batches is Evaluator.batches]
    thumbs: list[Tensor] = []
    ids: list[Tensor] = []
    with in_eval_mode(nets), torch.no_grad():
        for raw in judged.batches(comm) if sharing else ():
            if comm.main and sum(map(len, ids)) < thumbnails:
                thumbs.append(
                    next(iter(raw.images.values())) if IMAGE not in raw.images else raw.images[IMAGE]
                )
                ids.append(raw.ids[:, 0])
            batch, once = raw.prepare(comm.device, channels_last=channels_last), OncePerBatch(task)
            for each in sharing:
                each.add(once, nets, batch)  # type: ignore[arg-type]
        for each in evaluators.values():
            if each not in sharing:
                for raw in each.batches(judged, comm):
                    each.add(task, nets, raw.prepare(comm.device, channels_last=channels_last))
    return (torch.cat(thumbs)[:thumbnails], torch.cat(ids)[:thumbnails]) if thumbs else None


def evaluate(
    task: Task,
    nets: dict[str, nn.Module],
    judged: JudgedSet,
    comm: Comm,
    *,
    channels_last: bool,
    thumbnails: int = 0,
) -> tuple[dict[str, Report], Shown | None]:
    """Judge a set by all evaluators of `task`: their reports by name, and thumbnails with ids as `walk`.

    All ranks have the scalars of a report, rank 0 alone the rest of it.
    """
    evaluators = {name: make() for name, make in task.evaluators.items()}
    shown = walk(task, nets, evaluators, judged, comm, channels_last=channels_last, thumbnails=thumbnails)
    return {name: figures(each, comm) for name, each in evaluators.items()}, shown


def labels_of(shown: Shown | None, shards: Any, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the labels of thumbnails by which the projector can colour; {} without thumbnails.

    Fields of which a sample has any number, and images beside it, are left out.
    """
    columns = [field for field in fields if field in shards.labels] if shown else []
    return {field: shards.labels[field][shown[1].numpy()] for field in columns} if shown else {}


def figures(evaluator: Evaluator, comm: Comm, *, groups: Groups | None = None, rounds: int = 0) -> Report:
    """Join what the ranks have added, and compute the report on rank 0; the others receive its scalars."""
    sums, rows = collected(evaluator, comm)
    report, refused = Report(), ""
    if comm.main:
        try:
            report = evaluator.report(sums, rows, groups=groups or Groups(), rounds=rounds)
        except UserError as error:
            refused = str(error)
    collectives.agree_or_raise(refused, comm)  # all ranks end with the message of rank 0
    report.scalars = collectives.broadcast(report.scalars, comm)
    return report


def collected(evaluator: Evaluator, comm: Comm) -> tuple[dict[str, Tensor], Rows]:
    """Return the sums of all ranks, and on rank 0 the rows of all ranks (elsewhere this rank's own)."""
    return _summed(evaluator.sums(), comm), gathered(evaluator.rows(), comm)


def _summed(sums: dict[str, Tensor], comm: Comm) -> dict[str, Tensor]:
    if not sums:
        return sums
    flat = torch.cat([part.detach().cpu().to(torch.float64).reshape(-1) for part in sums.values()])
    parts = _rounded(collectives.sum_(flat, comm)).split([part.numel() for part in sums.values()])
    return {name: part.reshape(sums[name].shape) for name, part in zip(sums, parts, strict=True)}


def _rounded(values: Tensor) -> Tensor:
    """Round float64 values to DIGITS significant digits; whole numbers stay."""
    array = values.numpy()
    scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.maximum(np.abs(array), 1e-290))))
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.where(array == np.rint(array), array, np.rint(array * scale) / scale)
    return torch.from_numpy(np.where(np.isfinite(rounded), rounded, array))


def gathered(rows: Rows, comm: Comm) -> Rows:
    """Return on rank 0 the rows of all ranks, sorted by (id, nth), each once; elsewhere the rank's own."""
    everyone = collectives.gather_to_main(rows, comm)
    parts = [part for part in everyone if len(part["ids"])] or everyone[:1]
    joined = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    ids = np.asarray(joined["ids"])
    nth = np.asarray(joined.get("nth", np.zeros(len(ids), np.int64)))
    order = np.lexsort((nth, ids))  # stable: of equal rows the first rank's comes first
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(ids[order]) != 0) | (np.diff(nth[order]) != 0)
    kept = order[first]
    return {
        name: part.take(kept) if isinstance(part, Ragged) else part[kept] for name, part in joined.items()
    }


def _joined(parts: list[Any]) -> np.ndarray | Ragged:
    return Ragged.cat(parts) if isinstance(parts[0], Ragged) else np.concatenate(parts)
