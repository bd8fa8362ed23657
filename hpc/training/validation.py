"""Evaluates a held-out set on all ranks: raw or averaged modules, no padding, no communication in the loop.

Each rank walks its own contiguous block of the set; rows meet once, by sample id, so any number of ranks
gives the same figures. Rank 0 computes them, and the others receive the scalars.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE
from hpc.distributed.collectives import broadcast, gather_rows
from hpc.distributed.comm import Comm
from hpc.task import Batch, Report, Task


@contextlib.contextmanager
def in_eval_mode(nets: dict[str, nn.Module]) -> Iterator[None]:
    """Put every network into eval mode; restore the mode of each layer afterwards."""
    before = [(module, module.training) for net in nets.values() for module in net.modules()]
    for net in nets.values():
        net.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def evaluate(
    task: Task,
    nets: dict[str, nn.Module],
    batches: Iterable[Batch],
    comm: Comm,
    *,
    channels_last: bool,
    thumbnails: int = 0,
) -> tuple[Report, tuple[Tensor, Tensor] | None]:
    """Run `task` over this rank's `batches`; return the report of the whole set, and thumbnails with ids.

    Rank 0 alone has the curves and embeddings of the report and the thumbnails (uint8 [n, 3, h, w], ids [n]).
    """
    meters = task.meters()
    thumbs: list[Tensor] = []
    ids: list[Tensor] = []
    with in_eval_mode(nets), torch.no_grad():
        for raw in batches:
            if comm.main and sum(map(len, ids)) < thumbnails:
                thumbs.append(raw.images[IMAGE])
                ids.append(raw.ids[:, 0])
            task.evaluate(nets, raw.prepare(comm.device, channels_last=channels_last), meters)
    report = Report()
    for meter in meters.values():
        rows = gather_rows(meter.rows(), comm)
        if comm.main:
            part = meter.result(rows)
            report.scalars |= part.scalars
            report.curves |= part.curves
            report.embeddings = part.embeddings or report.embeddings
    report.scalars = broadcast(report.scalars, comm)
    shown = (torch.cat(thumbs)[:thumbnails], torch.cat(ids)[:thumbnails]) if thumbs else None
    return report, shown


@torch.no_grad()
def monitor_images(task: Task, nets: dict[str, nn.Module], batch: Batch, clock: int) -> dict[str, Tensor]:
    """Return the images that the monitor shows, and change nothing in networks that may be in training."""
    with in_eval_mode(nets):
        return task.images(nets, batch, clock)
