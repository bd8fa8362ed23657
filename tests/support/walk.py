"""The walk of a job: made by `rostro submit`'s steps, killed, resumed, audited, evaluated, predicted.

A job is one line of `JOBS`: its name, a set to learn from, and the keys that make it small.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.train import Trainer
from launch.commands import audit_resume
from launch.commands.audit_resume import Auditor, Case
from launch.options.compose import composed
from launch.options.conf import plan_of_task
from launch.start import snapshot
from tests.support import (
    runs,
    tiny,  # noqa: F401 - the tiny jobs, in the ranks too
)
from tests.support.marked import pack_marked
from tests.support.object_set import pack_objects
from tests.support.scenes import Scenes
from tests.support.sets import pack_set

# Small, and something of everything: saves on both sides of an evaluation, warm-up, averages.
SMALL = ("images=144", "save.every=48", "eval.every=96", "eval.batch=5", "log.every=48", "log.projector=4")
SMALL += ("optim.warmup=24", "ema.half_life=60", "data.threads=1", "precision=fp32", "desync_every=4")
SMALL += ("save.last=9",)


@dataclass(frozen=True)
class Job:
    """A row of the walk."""

    task: str
    data: str  # one of SETS; empty: procedural faces with the labels that the job states
    keys: tuple[str, ...] = ()  # as for `rostro submit`, over those of its yaml and SMALL
    engine: str = "flat"
    begins: tuple[str, ...] = ()  # keys beside init.run of the job that begins with a run of itself

    @property
    def label(self) -> str:
        return "-".join([self.task, *(["own"] if "task.own=true" in self.keys else [])])


JOBS = [
    Job("growing", "people", ("images=288",)),
    Job("pairs", "scenes"),
    Job("mosaic", "scenes"),
    Job("mosaic", "scenes", ("task.own=true", "data.members=4")),
    Job("marks", "marked", engine="ddp"),
    Job("centres", "people", ("optim.name=sgd", "optim.lr=0.1")),
    Job("adapting", "people", engine="ddp", begins=("init.skip=[net.2.2.*]", "init.freeze=[net.2.0.*]")),
    Job("siamese", "people", ("batch=24", "norm_group=4"), engine="ddp"),
    Job("face_attributes", "", ("batch=24", "norm_group=4"), engine="ddp"),
    Job("vae", "", ("batch=24", "norm_group=4"), engine="ddp"),
    Job("pix2pix", "", ("batch=24", "norm_group=4"), engine="ddp"),
    Job("yolov5x_widerface", "objects", ("batch=24", "norm_group=4"), engine="ddp"),
    Job("cyclegan", "", ("batch=24", "norm_group=4")),
    Job("unet_persons", "", ("batch=24", "norm_group=4"), engine="ddp"),
    Job("stylegan", "", ("images=240", "batch=24", "task.batches=[24,24,24]", "norm_group=4")),
]


def _people(folder: Path) -> None:
    shutil.move(pack_set(folder.parent / "pictures", identities=12, each=4), folder)


def _scenes(folder: Path) -> None:
    pack(Scenes(40), folder, Request(holdout=0.25), workers=1)


# Each packs folder/train and folder/eval.
SETS: dict[str, Callable[[Path], None]] = {
    "people": _people,
    "scenes": _scenes,
    "marked": pack_marked,
    "objects": pack_objects,
}


class Walker(Auditor):
    """The audit of one job in a folder that has `shards/`; its ranks execute this checkout."""

    def __init__(self, job: Job, folder: Path, shards: Path | None, more: tuple[str, ...] = ()) -> None:
        super().__init__(job.task, folder, 0, (*SMALL, *job.keys, *more))
        self.job = job
        if not job.data:
            self.make_data()
        elif not (folder / "shards").exists():
            (folder / "shards").symlink_to(shards or "")

    def make_run(self, name: str, case: Case, *extra: str) -> Path:
        with mock.patch.object(snapshot, "copy_code", lambda code: code.symlink_to(runs.ROOT)):
            return super().make_run(name, case, *extra)


def start_ranks(run: Path, procs: int, **variables: str) -> list[int]:
    """Stand in for `launch.audit.forked_ranks`: the ranks are forked with the trainer loaded."""
    ended = runs.finish(runs.start(run, procs, variables=variables))
    for rank, (_, out, error) in enumerate(ended):
        with (run / "logs" / f"rank{rank}.log").open("a") as log:
            log.write(out + error)
    return [code for code, _, _ in ended]


@contextlib.contextmanager
def forked() -> Iterator[None]:
    with mock.patch.object(audit_resume, "start_ranks", start_ranks):
        yield


def walker_of(job: Job, folder: Path, shards: Path | None) -> Walker:
    """Return what audits the job; one that begins with another run has that run trained first."""
    first = Walker(job, folder, shards)
    if not job.begins:
        return first
    source = first.straight("source", Case(1, job.engine, "host"), "seed=5")
    return Walker(job, folder, shards, (f"init.run={source}", *job.begins))


def audited(walker: Walker, procs: str, *, short: bool = False) -> bool:
    """Audit as `rostro audit-resume` does: with all controls, and a resume on another number of ranks.

    A job of one stage is killed inside a save and in an update, one that grows at its boundaries too.
    short: without controls and other numbers of ranks, with one kill less
    """
    kills = 3 if len(plan_of_task(walker.task).stages(composed(walker.words))) > 1 else 2
    keys = {"procs": procs, "engine": walker.job.engine, "stage": "", "backend": "host"}
    keys |= {"kills": kills - short, "controls": not short, "elastic": not short}
    return audit_resume.audit(walker, SimpleNamespace(**keys))


def judged(comm: Comm, run: str) -> dict[str, Any]:
    """Evaluate the last checkpoint as the training does, on all ranks."""
    with contextlib.closing(Trainer(RunDir(Path(run)), comm)) as trainer:
        return trainer.evaluate()
