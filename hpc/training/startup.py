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
from collections.abc import Iterator
from pathlib import Path

import torch

from data_shards.errors import UserError
from data_shards.loading import loader
from data_shards.loading.loader import RawBatch
from data_shards.shard_format.shard_set import ShardSet
from hpc.cluster import slurm_env
from hpc.config import held_out
from hpc.config.check import check
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.runs import failures
from hpc.runs.processes import mark
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Task
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


def bf16_hardware(comm: Comm) -> bool:
    """Whether bf16 arithmetic is fast here."""
    if comm.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("x86_64", "AMD64") and Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def resolved(run: RunDir, comm: Comm) -> Config:
    """The run's config with every `auto` decided: by rank 0 of the first start, and kept in the run ever
    after.
    """
    config = run.config()
    choice: dict[str, str] = {}
    if comm.main:
        choice = run.resolved()
        if not {"precision", "backend"} <= choice.keys():
            precision = config.precision
            if precision == "auto":
                precision = "bf16" if bf16_hardware(comm) else "fp32"
            backend = loader.choose_backend(config.data.backend)
            choice = run.resolve({"precision": precision, "backend": backend})
    choice = collectives.broadcast(choice, comm)
    data = dataclasses.replace(config.data, backend=choice["backend"])
    return dataclasses.replace(config, precision=choice["precision"], data=data)


def check_world(config: Config, comm: Comm) -> None:
    """Refuse a number of ranks (torchrun may start any) that the batch cannot be cut for."""
    if comm.world != config.procs * config.nodes:
        check(dataclasses.replace(config, procs=comm.world, nodes=1))


def threads_and_algorithms(config: Config, comm: Comm) -> None:
    """Share the cores among the ranks of this machine; deterministic kernels on a GPU where asked for."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(max(1, cores // max(1, config.procs)))
    if comm.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)


def task(config: Config) -> Task:
    """The task of `hpc/tasks/<name>.py`: the file name is the registry."""
    return importlib.import_module(f"hpc.tasks.{config.task['name']}").build(config)


def to_batch(raw: RawBatch) -> Batch:
    return Batch(raw.images, dict(raw.labels), raw.ids, raw.positions)


def first_lines(
    config: Config, comm: Comm, players: dict[str, Player], sets: dict[str, ShardSet], clock: int
) -> str:
    """What is active, for the head of the log."""
    share = config.batch // comm.world
    sizes = {name: player.size for name, player in players.items()}
    exact = "equal bit for bit"
    if config.data.stream:
        exact = "weaker with data.stream=true: see docs/resume.md"
    elif comm.device.type != "cpu" and not config.deterministic:
        exact = "not bit-equal on a GPU without deterministic=true"
    pictures = ", ".join(f"{name} {len(found):,} pictures" for name, found in sets.items())
    unchecked = [found.unchecked for found in sets.values() if found.unchecked]
    return "\n".join(
        [
            f"task {config.task['name']}, players "
            + ", ".join(f"{n} ({s:,} parameters)" for n, s in sizes.items()),
            f"ranks {comm.world} on {comm.device.type}, engine {_engine(config)}, "
            f"precision {config.precision}, norm_stats {config.norm_stats}, {torch.get_num_threads()} threads a rank",
            f"batch {config.batch} = {comm.world} x {share}, micro batch {config.micro_batch or share}, "
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
def locked(run: RunDir, comm: Comm) -> Iterator[None]:
    """Hold the run's lock on rank 0; all ranks end where another living job has it."""
    error = ""
    if comm.main:
        try:
            run.lock.acquire(job=slurm_env.job_id() if slurm_env.in_step() else "")
            run.write_status(state="starting", pids={}, began=time.time(), attempt=failures.attempt())
        except UserError as refused:
            error = str(refused)
    try:
        collectives.agree_or_raise(error, comm)
        places = collectives.gather_objects(mark(), comm)
        if comm.main:
            run.write_status(pids={str(rank): place for rank, place in enumerate(places)}, message="")
        yield
    finally:
        if comm.main and not error:
            run.lock.release()
