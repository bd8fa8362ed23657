"""Prepares a rank before its first step: the run's code, lock, config, threads, and the log's first lines.

Everything here is called once; the loop itself is in `hpc/train.py`.
"""

import contextlib
import dataclasses
import importlib.util
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from data_shards.errors import UserError
from data_shards.loading import loader
from data_shards.shard_format.shard_set import ShardSet
from hpc.cluster import slurm_env
from hpc.config import data_order, held_out
from hpc.config.check import check
from hpc.config.players import describe, ema_of
from hpc.config.schema import Config
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.runs import failures
from hpc.runs.processes import mark
from hpc.runs.run_dir import RunDir
from hpc.task import Stage
from hpc.training.player import Player


def refuse_foreign_code(run: RunDir) -> None:
    """Refuse packages that do not come from the run's own copy of the code."""
    code = (run.path / "code").resolve()
    for name in ("hpc", "models", "data_shards"):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            raise UserError(f"{name} cannot be imported, it belongs into {code}: start with `rostro resume`")
        folder = Path(spec.origin).resolve().parent.parent
        if folder == code:
            continue
        remedy = "start it with `rostro resume`"
        if name != "hpc":
            remedy = f"a foreign package named {name} is first on the path: take {folder} off PYTHONPATH"
        raise UserError(f"{name} was imported from {folder}, this run's code is {code}: {remedy}")


def bf16_hardware(comm: Comm) -> bool:
    """Return whether bf16 arithmetic is fast on this rank's device."""
    if comm.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("x86_64", "AMD64") and Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def resolved(run: RunDir, comm: Comm) -> Config:
    """Return the run's config with every `auto` decided, once, by rank 0 of the first start."""
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
    """Share the cores among the ranks of this machine; choose deterministic GPU kernels where asked for."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(max(1, cores // max(1, config.procs)))
    if comm.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)


def first_lines(
    config: Config,
    comm: Comm,
    players: dict[str, Player],
    sets: dict[str, ShardSet],
    clock: int,
    stage: Stage,
) -> str:
    """Compose the head of the log: everything that is active."""
    data, share = config.data, stage.batch // comm.world
    parameters = ", ".join(
        f"{name} ({player.size:,} parameters{_cut(player)})" for name, player in players.items()
    )
    exact = "equal bit for bit"
    if data.stream:
        exact = "weaker with data.stream=true: see docs/resume.md"
    elif comm.device.type != "cpu" and not config.deterministic:
        exact = "not bit-equal on a GPU without deterministic=true"
    counts = ", ".join(f"{name} {len(shards):,} images" for name, shards in sets.items())
    staged = f", staged in {data.stage}" if data.stage else ""
    lines = [
        f"task {config.task['name']}, players {parameters}",
        *(
            f"player {name}: {describe(player.optim, ema_of(config, name))}"
            for name, player in players.items()
        ),
        f"ranks {comm.world} on {comm.device.type}, engine {_engine(config)}, precision {config.precision}, "
        f"norm_stats {config.norm_stats}, {torch.get_num_threads()} threads a rank",
        f"batch {stage.batch} = {comm.world} x {share}, micro batch "
        f"{stage.micro_batch or config.micro_batch or share}, "
        f"order {data_order.describe(data)}, backend {data.backend}{', stream' if data.stream else ''}",
        f"data {counts or data.train}{staged}",
        *(shards.unchecked for shards in sets.values() if shards.unchecked),
        held_out.statement(data),
        f"images {clock:,} of {config.images:,}; a resume is {exact}",
    ]
    return "\n".join(lines)


def stage_line(stage: Stage, comm: Comm) -> str:
    """Say which stage is entered, for the log."""
    fade = f", fading in over {stage.fade:,} images" if stage.fade else ""
    reset = ", moments reset" if stage.reset_moments else ""
    return (
        f"stage at {stage.clock:,} images: batch {stage.batch} = {comm.world} x {stage.batch // comm.world}, "
        f"{stage.size} pixels, level {stage.level}{fade}{reset}"
    )


def _cut(player: Player) -> str:
    """Name the parameters of which each rank holds some rows."""
    rows = player.engine.rows
    return "".join(f", {name} of {of:,} rows cut over the ranks" for name, (_, _, of) in rows.items())


def _engine(config: Config) -> str:
    """Name the engine for the log, with what DeepSpeed splits."""
    deepspeed = config.engine.deepspeed
    if config.engine.name != "deepspeed":
        return config.engine.name
    return f"deepspeed ZeRO {deepspeed.stage}{', offload' if deepspeed.offload else ''}"


@contextlib.contextmanager
def locked(run: RunDir, comm: Comm) -> Iterator[None]:
    """Hold the run's lock on rank 0; end all ranks where another living job holds it."""
    error = ""
    if comm.main:
        try:
            run.ownership.acquire(job=slurm_env.job_id() if slurm_env.in_step() else "")
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
            run.ownership.release()
