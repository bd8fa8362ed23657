"""Two runs of a job, under `engine=flat` and under DeepSpeed's ZeRO-1, update by update: are they one?"""

import contextlib
from pathlib import Path

from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from hpc.training.step_sync import RunningMeans
from launch.commands.audit_resume import Case
from tests.support.ranks import launch
from tests.support.walk import Job, Walker

Losses = list[dict[str, float]]  # of each update, by the names of their series

CASES = {"flat": Case(2, "flat", "host"), "zero": Case(2, "deepspeed", "host", stage=1)}
# Largest difference of a loss, as a share of the largest value of its series. The ranks' sums are added in
# another order, and Adam makes whole steps of gradients that are nothing but rounding, as those of biases
# before a norm. bf16: a last bit of fp32 may decide how a value is rounded to 8 bits.
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}


def losses_of(comm: Comm, runs: list[str], updates: int) -> list[Losses]:
    """Return what the ranks agree on as the losses of the first updates, for each run."""
    found: list[Losses] = []
    for run in runs:
        with contextlib.closing(Trainer(RunDir(Path(run)), comm)) as trainer:
            losses: Losses = []
            for _ in range(updates):
                trainer.means = RunningMeans()
                trainer.step()
                trainer._exchange()
                losses.append(trainer.means.of_group("loss"))
            found.append(losses)
    return found


def trained(job: Job, folder: Path, *, precision: str, updates: int = 4) -> dict[str, Losses]:
    """Train the smoke run of a job, on 2 ranks, in both ways: the losses by the name of the way."""
    walker = Walker(job, folder, None)
    runs = [str(walker.make_run(name, case, f"precision={precision}")) for name, case in CASES.items()]
    return dict(zip(CASES, launch(losses_of, 2, runs, updates)[0], strict=True))


def distance(one: Losses, other: Losses) -> float:
    """Return the largest difference of a loss, as a share of the largest value of its series."""
    assert [sorted(each) for each in one] == [sorted(each) for each in other]
    far = 0.0
    for name in one[0]:
        pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True)]
        largest = max(abs(a) for a, _ in pairs)
        far = max(far, *(abs(a - b) / largest for a, b in pairs))
    return far
