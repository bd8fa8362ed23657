"""`rostro stop`: ask the ranks of a run to save and leave, and wait until they have."""

import sys
import time

from data_shards.errors import UserError
from hpc.cluster import slurm
from hpc.runs.processes import alive
from hpc.runs.run_dir import RunDir
from launch.options.key_value import parse
from launch.options.option import Option, option_lines
from launch.watch.stopping import ask_job_to_stop, ask_to_stop, living_ranks

OPTIONS = {
    "runs": Option("runs", "folder of the run directories"),
    "timeout": Option(600.0, "seconds to wait for the ranks"),
}
HELP = f"""
usage: rostro stop RUN [key=value ...]

The ranks save at the end of their step and leave; `rostro resume RUN` resumes from there.

{option_lines(OPTIONS, {"RUN": "a name or a run directory"})}

Example: rostro stop siamese-20260101-120000
"""


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS, positional=("run",), required=("run",))
    run = RunDir.open(keys.run, runs=keys.runs)
    if not run.ownership.in_use():
        state = run.status()["state"]
        raise UserError(f"run {run.name} is not running, it is {state}: `rostro status {run.path}` shows it")
    stop(run, timeout=keys.timeout)
    status = run.status()
    print(
        f"{run.name}: {status['state']} at {status.get('clock', 0):,} of {status.get('images', 0):,} images"
    )
    if status["state"] in ("stopped", "finished"):
        return 0
    print(f"error: {status.get('message') or f'it left no message, see {run.logs}'}", file=sys.stderr)
    return 1


def stop(run: RunDir, *, timeout: float) -> None:
    """Ask the ranks to leave and wait until they have; UserError if they cannot be asked or are too slow."""
    if run.ownership.job():
        stop_job(run, run.ownership.job(), timeout=timeout)
        return
    lock = run.ownership.read()
    place = (lock.get("host", ""), lock["pid"], lock.get("started")) if lock else ("", 0)
    owner = place[1] if alive(*place) is True else None
    if not ask_to_stop(run, owner):
        elsewhere = sorted({place[0] for place in run.ranks().values()} | ({place[0]} if lock else set()))
        raise UserError(f"run {run.name} runs on {', '.join(elsewhere)}: type `rostro stop {run.path}` there")
    end, asked = time.monotonic() + timeout, time.monotonic()
    while run.ownership.in_use():
        if time.monotonic() > end:
            pids = " ".join(map(str, living_ranks(run)))
            raise UserError(
                f"run {run.name} did not leave in timeout={timeout:g} seconds: type kill -9 {pids}"
            )
        if run.status()["state"] in ("starting", "prepared") and time.monotonic() > asked + 1:
            ask_to_stop(run, owner)  # ranks that load their libraries ignore the signal
            asked = time.monotonic()
        time.sleep(0.1)


def stop_job(run: RunDir, job: str, *, timeout: float) -> None:
    """Stop a run that is a SLURM job. A job that waits in the queue leaves it."""
    queued = run.status()["state"] == "queued"
    ask_job_to_stop(run, job)
    if slurm.job_state(job) is None and not slurm.answers():
        raise UserError(
            f"run {run.name} belongs to job {job}, and no SLURM answers here: type `rostro stop {run.path}` "
            f"where one does; if that cluster is gone, delete {run.lock_file}"
        )
    end, asked = time.monotonic() + timeout, time.monotonic()
    while run.ownership.in_use():
        if time.monotonic() > end:
            raise UserError(f"job {job} did not leave in timeout={timeout:g} seconds: type scancel {job}")
        if time.monotonic() > asked + 5:  # a step that was just being launched received nothing
            ask_job_to_stop(run, job)
            asked = time.monotonic()
        time.sleep(0.5)
    if queued or run.status()["state"] == "dead":
        run.write_status(state="stopped", message=f"job {job} was taken out of the queue" if queued else "")
