"""Opens the sets of a run, and builds this rank's loaders of them."""

from collections.abc import Callable
from typing import Any

from data_shards.errors import UserError
from data_shards.loading import stream
from data_shards.loading.loader import EvalLoader, Loader, TrainLoader
from data_shards.shard_format.shard_set import ShardSet
from hpc.cluster.signals import StopReason
from hpc.config import data_order, held_out
from hpc.config.schema import Config
from hpc.data import orders, staging, views
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.task import Stage, Task


def shard_sets(
    config: Config,
    job: Task,
    comm: Comm,
    stop_reason: Callable[[], StopReason] = lambda: StopReason.NONE,
) -> dict[str, ShardSet]:
    """Open the sets: `train`, `train_b` and `val` (or else `eval`) where there are, or copies by data.stage.

    Every rank checks them. Raises StagingStopped where `stop_reason()` names one while they are copied.
    """
    sets, error = {}, ""
    folders = staging.folders(config, comm, stop_reason)
    try:
        for split, folder in folders.items():
            if split != "train" or not config.data.stream:
                fields = data_order.stated_of_set(config.data, job.plan, split)
                sets[split] = ShardSet.open(folder, fields=fields)
    except UserError as refused:
        error = str(refused)
    collectives.agree_or_raise(error, comm)
    return sets


def train_loader(config: Config, job: Task, sets: dict[str, ShardSet], stage: Stage, comm: Comm) -> Loader:
    """Build this rank's loader of the training set, not started."""
    data = config.data
    shared: dict[str, Any] = {
        "seed": config.seed,
        "rank": comm.rank,
        "world": comm.world,
        "batch": stage.batch,
        "view": views.training(config, stage.size),
        "threads": data.threads,
        "ahead": data.ahead,
    }
    fields: Any = data_order.fields_of_set(data, job.plan, "train")
    if data.stream:
        group = data.group if data.order == "groups" else 1
        return stream.StreamLoader(data.train, group=group, fields=fields, **shared)
    if data.order == "unpaired":
        fields = {side: job.plan.fields(side) for side in ("a", "b")}
    source = orders.training_sets(sets)
    return TrainLoader(
        orders.build(config, source),
        source,
        backend=data.backend,
        fields=fields,
        twins=data.twins,
        unit=job.plan.unit(config),
        device_id=comm.device.index if comm.device.type == "cuda" else None,
        **shared,
    )


def eval_loader(config: Config, job: Task, sets: dict[str, ShardSet], comm: Comm) -> EvalLoader | None:
    """Build the loader of this rank's block of the held-out set; None where the run has no such set."""
    if not (judged := held_out.validation(config.data)):
        return None
    return EvalLoader(
        sets[judged],
        rank=comm.rank,
        world=comm.world,
        batch=config.eval.batch,
        view=views.evaluation(config, config.data.size),
        backend="host",  # one pinned decoder for every figure, whatever feeds the training
        threads=config.data.threads,
        fields=job.plan.fields(judged),
    )


def successor(
    before: Loader, config: Config, job: Task, sets: dict[str, ShardSet], stage: Stage, comm: Comm
) -> Loader:
    """Build the loader that takes over where a job grows; it continues the count of the seconds waited."""
    before.close()
    loader = train_loader(config, job, sets, stage, comm)
    loader.waited = before.waited
    return loader
