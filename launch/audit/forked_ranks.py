"""Ranks that are forked from a server with torch loaded: an audit starts dozens, and loading takes seconds.

Each rank is a process of its own with the run's own code; only libraries come from the server.
"""

import importlib.util
import multiprocessing
import os
import sys
import time
from pathlib import Path

from data_shards.errors import UserError

OWN = ("data_shards", "hpc", "models")  # packages that a rank takes from the run's code
CONTEXT = multiprocessing.get_context("forkserver")
LIBRARIES = ["torch", "torch.distributed", "torch._dynamo", "matplotlib.backends.backend_agg"]


def preload_deepspeed() -> None:
    """Let the server load DeepSpeed, too, before the first rank starts; its import takes each rank seconds.

    Only where there is no GPU: DeepSpeed looks for one, after which a forked process could not use it.
    """
    if any(Path("/dev").glob("nvidia[0-9]*")) or importlib.util.find_spec("deepspeed") is None:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    if "deepspeed" not in LIBRARIES:
        LIBRARIES.append("deepspeed")


def start_ranks(run: Path, procs: int, *, timeout: float = 300, **variables: str) -> list[int]:
    """Run all ranks to their ends; return the exit codes by rank, -9 for SIGKILL.

    Code and data are the run's own; `variables` are added to the environment. UserError after `timeout`
    seconds.
    """
    CONTEXT.set_forkserver_preload(LIBRARIES)  # of no effect on a server that runs already
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the server when it loads torch
    common = {"ROSTRO_ATTEMPT": f"audit-{os.getpid()}-{time.monotonic_ns()}", "WORLD_SIZE": str(procs)}
    (run / "logs").mkdir(exist_ok=True)
    ranks = []
    for rank in range(procs):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(CONTEXT.Process(target=_rank, args=(run, rank, common | place | variables)))
    end = time.monotonic() + timeout
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in ranks]
    finally:
        for process in ranks:
            if process.pid is not None:
                process.kill()
                process.join()
    if None in codes:
        raise UserError(f"run {run} hangs: its logs are in {run / 'logs'}; keep=DIR keeps them")
    return [code for code in codes if code is not None]


def _rank(run: Path, rank: int, variables: dict[str, str]) -> None:
    with (run / "logs" / f"rank{rank}.log").open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.environ.pop("MASTER_ADDR", None)
    os.environ.update(variables)
    os.chdir(run / "code")
    for name in list(sys.modules):
        if name.partition(".")[0] in OWN:
            del sys.modules[name]
    sys.path.insert(0, str(run / "code"))
    from hpc import rank as code

    sys.exit(code.main(str(run)))
