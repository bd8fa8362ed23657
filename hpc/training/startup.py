"""What the trainer builds before its first step: the task, seeds, threads, loaders, the first lines of the
log.

Everything here is called once (or once for each growth of the batch); the loop itself is in
`hpc/train.py`.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn.modules.dropout import _DropoutNd

from data_shards import counter_rng
from data_shards.loading import loader, stream
from data_shards.loading.loader import EvalLoader, RawBatch, TrainLoader
from data_shards.sampling import order
from data_shards.shard_format.shard_set import ShardSet
from hpc.checkpoints.store import Checkpoint
from hpc.cluster import slurm
from hpc.config import held_out
from hpc.config.check import check
from hpc.config.parse import identity, numbers
from hpc.config.schema import Config
from hpc.data import staging
from hpc.distributed import comm
from hpc.distributed.comm import Dist
from hpc.errors import UserError
from hpc.runs import failures
from hpc.runs.run_dir import RunDir, mark
from hpc.task import Batch, Spec, Task
from hpc.training.player import Player


def refuse_foreign_code(run: RunDir) -> None:
    """A rank runs the copy of the code that its run keeps; raise where another package of that name comes first."""
    wanted = (run.path / "code").resolve()
    for name in ("hpc", "models", "data_shards"):
        found = importlib.util.find_spec(name)
        if found is None or not found.origin:
            raise UserError(
                f"{name} cannot be imported, it belongs into {wanted}: start with `rostro resume`"
            )
        mine = Path(found.origin).resolve().parent.parent
        if mine == wanted:
            continue
        remedy = "start it with `rostro resume`"
        if name != "hpc":
            remedy = f"a foreign package named {name} lies first on the path: take {mine} off PYTHONPATH"
        raise UserError(f"{name} was imported from {mine}, this run's code is {wanted}: {remedy}")


def bf16_hardware(here: Dist) -> bool:
    """Whether bf16 arithmetic is fast here."""
    if here.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("x86_64", "AMD64") and Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def resolved(run: RunDir, here: Dist) -> Config:
    """The run's config with every `auto` decided: by rank 0 of the first start, and kept in the run ever
    after.
    """
    config = run.config()
    choice: dict[str, str] = {}
    if here.main:
        choice = run.resolved()
        if not {"precision", "backend"} <= choice.keys():
            precision = config.precision
            if precision == "auto":
                precision = "bf16" if bf16_hardware(here) else "fp32"
            backend = loader.choose_backend(config.data.backend)
            choice = run.resolve({"precision": precision, "backend": backend})
    choice = comm.broadcast(choice, here)
    data = dataclasses.replace(config.data, backend=choice["backend"])
    return dataclasses.replace(config, precision=choice["precision"], data=data)


def check_world(config: Config, here: Dist) -> None:
    """Refuse a number of ranks (torchrun may start any) that the batch cannot be cut for."""
    if here.world != config.procs * config.nodes:
        check(dataclasses.replace(config, procs=here.world, nodes=1))


def threads_and_algorithms(config: Config, here: Dist) -> None:
    """Share the cores among the ranks of this machine; deterministic kernels on a GPU where asked for."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(max(1, cores // max(1, config.procs)))
    if here.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)


def task(config: Config) -> Task:
    """The task of `hpc/tasks/<name>.py`: the file name is the registry."""
    return importlib.import_module(f"hpc.tasks.{config.task['name']}").build(config)


def seed_torch(seed: int) -> None:
    torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights: the same on every rank, from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(int(counter_rng.key(seed, "init")))
        yield


def shard_sets(
    config: Config, job: Task, here: Dist, asked: Callable[[], int] = lambda: 0
) -> dict[str, ShardSet]:
    """The opened sets: `train`, and `val` (or else `eval`) where there is one; on the node where data.stage says so.

    Every rank checks them. Raises stage.Left where `asked()` says so while they are copied.
    """
    sets, error = {}, ""
    folders = staging.folders(config, here, asked)
    try:
        if not config.data.stream:
            sets["train"] = ShardSet.open(folders["train"], fields=job.fields)
        if judged := held_out.validation(config.data):
            sets[judged] = ShardSet.open(folders[judged], fields=job.fields)
    except UserError as refused:
        error = str(refused)
    comm.agree_or_raise(error, here)
    return sets


def train_loader(config: Config, job: Task, sets: dict[str, ShardSet], spec: Spec, here: Dist) -> Any:
    """This rank's loader of the training set, not started."""
    data = config.data
    shared: dict[str, Any] = {
        "seed": config.seed,
        "rank": here.rank,
        "world": here.world,
        "batch": spec.batch,
        "size": spec.resolution,
        "threads": data.threads,
        "ahead": data.ahead,
        "augment": data.augment,
        "fields": job.fields,
    }
    if data.stream:
        group = data.group if data.order == "groups" else 1
        return stream.StreamLoader(data.train, group=group, **shared)
    source = sets["train"]
    orders: dict[str, Callable[[], order.Order]] = {
        "groups": lambda: order.GroupOrder(source, config.seed, group=data.group),
        "plain": lambda: order.PlainOrder(source, config.seed),
    }
    if data.order not in orders:
        raise UserError(f"data.order={data.order} is not known: use {' or '.join(orders)}")
    device = here.device.index if here.device.type == "cuda" else None
    return TrainLoader(orders[data.order](), source, backend=data.backend, device_id=device, **shared)


def eval_loader(config: Config, job: Task, sets: dict[str, ShardSet], here: Dist) -> EvalLoader | None:
    """This rank's block of the held-out set, or None where the run has none."""
    if not (judged := held_out.validation(config.data)):
        return None
    return EvalLoader(
        sets[judged],
        rank=here.rank,
        world=here.world,
        batch=config.eval.batch,
        size=config.data.size,
        backend="host",  # one pinned decoder for every figure, whatever feeds the training
        threads=config.data.threads,
        fields=job.fields,
    )


def to_batch(raw: RawBatch) -> Batch:
    return Batch(raw.images, dict(raw.labels), raw.ids, raw.positions)


def memory_mb(here: Dist) -> float:
    """Memory of this rank: of the GPU at its highest, or resident."""
    if here.device.type == "cuda":
        return torch.cuda.max_memory_allocated(here.device) / 1e6
    return psutil.Process().memory_info().rss / 1e6


def meta(config: Config, job: Task, here: Dist) -> dict[str, Any]:
    """What a checkpoint says of its run."""
    return {
        "task": config.task["name"],
        "identity": identity(config),
        "numbers": numbers(config),
        "metric": list(job.metric),
        "world": here.world,
        "micro_batch": config.micro_batch,
        "torch": torch.__version__,
    }


def check_checkpoint(saved: Checkpoint, config: Config, players: Mapping[str, Player]) -> None:
    """Refuse a checkpoint of another task, backend or config, naming the first such key."""
    mine, theirs = numbers(config), dict(saved.meta.get("numbers", {}))
    if "micro_batch" in saved.meta and any(_has_dropout(player.module) for player in players.values()):
        mine["micro_batch"], theirs["micro_batch"] = config.micro_batch, saved.meta["micro_batch"]
    for key in sorted(mine.keys() | theirs.keys(), key=lambda key: (key != "task.name", key)):
        if theirs.get(key) != mine.get(key):
            raise UserError(
                f"the checkpoint of clock {saved.clock} was made with {key}={theirs.get(key)}, the run says "
                f"{key}={mine.get(key)}: set it back, or start a new run under another name"
            )


def _has_dropout(module: torch.nn.Module) -> bool:
    """Whether its masks, which are drawn for each micro batch, change the numbers."""
    return any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in module.modules())


def first_lines(
    config: Config, here: Dist, players: dict[str, Player], sets: dict[str, ShardSet], clock: int
) -> str:
    """What is active, for the head of the log."""
    share = config.batch // here.world
    sizes = {name: player.size for name, player in players.items()}
    exact = "equal bit for bit"
    if config.data.stream:
        exact = "weaker with data.stream=true: see docs/resume.md"
    elif here.device.type != "cpu" and not config.deterministic:
        exact = "not bit-equal on a GPU without deterministic=true"
    pictures = ", ".join(f"{name} {len(found):,} pictures" for name, found in sets.items())
    unchecked = [found.unchecked for found in sets.values() if found.unchecked]
    return "\n".join(
        [
            f"task {config.task['name']}, players "
            + ", ".join(f"{n} ({s:,} parameters)" for n, s in sizes.items()),
            f"ranks {here.world} on {here.device.type}, engine {_engine(config)}, "
            f"precision {config.precision}, norm_stats {config.norm_stats}, {torch.get_num_threads()} threads a rank",
            f"batch {config.batch} = {here.world} x {share}, micro batch {config.micro_batch or share}, "
            f"order {config.data.order}, backend {config.data.backend}{', stream' if config.data.stream else ''}",
            f"data {pictures or config.data.train}{f', staged in {config.data.stage}' if config.data.stage else ''}",
            *unchecked,
            held_out.statement(config.data),
            f"images {clock:,} of {config.images:,}; a resume is {exact}",
        ]
    )


def _engine(config: Config) -> str:
    """The engine as the log names it, with what DeepSpeed splits."""
    chosen = config.engine.deepspeed
    if config.engine.name != "deepspeed":
        return config.engine.name
    return f"deepspeed ZeRO {chosen.stage}{', offload' if chosen.offload else ''}"


@contextlib.contextmanager
def locked(run: RunDir, here: Dist) -> Iterator[None]:
    """Hold the run's lock on rank 0; all ranks end where another living job has it."""
    error = ""
    if here.main:
        try:
            run.take(job=slurm.job_id() if slurm.in_step() else "")
            run.write_status(state="starting", pids={}, began=time.time(), attempt=failures.attempt())
        except UserError as refused:
            error = str(refused)
    try:
        comm.agree_or_raise(error, here)
        places = comm.gather_objects(mark(), here)
        if here.main:
            run.write_status(pids={str(rank): place for rank, place in enumerate(places)}, message="")
        yield
    finally:
        if here.main and not error:
            run.release()
