"""`rostro audit-resume`: prove that a killed and resumed run equals a straight one, bit for bit.

Each case trains the task's smoke run twice on procedural faces: straight, and killed with SIGKILL as a
separate process (at a step, inside a save, at another step) and resumed each time. Compared: every file of
the last checkpoint (weights, optimizer, EMA, task state) and every TensorBoard series but the wall-clock
ones. Controls that leave out a part of the state must fail. The comparison itself is in
`launch/audit/compare.py`.
"""

import dataclasses
import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from data_shards import counter_rng
from data_shards.errors import UserError
from hpc.config.plan import Plan
from hpc.config.schema import Config
from launch.audit.compare import differences, elastic_differences, first_differences, state_parts
from launch.audit.forked_ranks import preload_deepspeed, start_ranks
from launch.options.conf import chosen_task, plan_of_task, smoke_overrides
from launch.options.key_value import parse
from launch.options.option import Option, option_lines

OPTIONS = {
    "task": Option("", "which job: it must be given", placeholder="NAME"),
    "procs": Option("1,2", "ranks to try"),
    "engine": Option("", "engines to try, as ddp,flat (default: those of them that the task allows)"),
    "stage": Option("", "stages of ZeRO to try with engine=deepspeed (default: those allowed of 1,2,3)"),
    "backend": Option("host,dali", "decoders to try"),
    "kills": Option(3, "how often the second run is killed, 1 to 3", least=1, most=3),
    "controls": Option(
        True, "also leave out optimizer, EMA and task state: each must be noticed, where there is any"
    ),
    "elastic": Option(
        True, "also resume a run of 2 ranks on 1 (norm_stats=group): same samples, equal within 1e-3"
    ),
    "seed": Option(0, "draws the clocks of the kills"),
    "keep": Option(None, "work there and keep the runs (default: a temporary folder)", placeholder="DIR"),
}
HELP = f"""
usage: rostro audit-resume task=NAME [key=value ...]

Trains the task's smoke run straight, and killed (SIGKILL) and resumed; compares both bit for bit.

{option_lines(OPTIONS)}

Exit code 0: all equal and all controls noticed; 1: a difference, which is named.
Example: rostro audit-resume task=siamese procs=2 engine=ddp backend=host
"""

TOLERANCE = 1e-3  # of an elastic resume: relative Euclidean distance of the weights
SAVES = ("save0", "save1", "save2", "save3", "save4", "savecommit")


@dataclass(frozen=True)
class Case:
    """One way to run the task."""

    procs: int
    engine: str
    backend: str
    stage: int | None = None  # of ZeRO

    @property
    def label(self) -> str:
        stage = "" if self.stage is None else f" stage={self.stage}"
        return f"procs={self.procs} engine={self.engine}{stage} backend={self.backend}"

    @property
    def words(self) -> list[str]:
        """Return the case as words of `rostro submit`."""
        stage = [] if self.stage is None else [f"engine.deepspeed.stage={self.stage}"]
        return [f"procs={self.procs}", f"engine={self.engine}", *stage, f"data.backend={self.backend}"]


class Auditor:
    """Makes runs of one task under a folder and starts their ranks as separate processes.

    words: keys of all runs, over those of the yaml's smoke block
    """

    def __init__(self, task: str, folder: Path, seed: int, words: Sequence[str] = ()) -> None:
        self.task, self.folder, self.seed = task, folder, seed
        self.words = [f"task={task}", *smoke_overrides(task), *words]

    def make_data(self) -> None:
        """Pack procedural faces, or scenes for a task that learns boxes, few enough for a smoke run."""
        if (self.folder / "shards" / "train" / "manifest.json").exists():
            return
        from data_shards.pack.pack import pack
        from data_shards.pack.request import Request
        from data_shards.sources.registry import open_source, source_module
        from launch.audit.faces import OF_PAIRS, FacePairs, LabelledFaces, pieces_of
        from launch.options.compose import composed  # it loads Hydra

        if "boxes" in plan_of_task(self.task).fields("train"):
            options = source_module("scenes").OPTIONS | {"scenes": 64, "side": 64}
            request = Request(holdout=0.25, name="audit", options=options)
            scenes: Any = open_source("scenes", "", options=options)
            pack(scenes, self.folder / "shards", request, workers=1)
            return
        options = source_module("procedural").OPTIONS | {"identities": 24, "per_identity": 8, "size": 32}
        source: Any = open_source("procedural", "", options=options)
        size = 32
        if composed(self.words).data.halves:
            source, size, options = FacePairs(source), 0, OF_PAIRS
        elif own := plan_of_task(self.task).labels:
            source = LabelledFaces(source, own)
            size = 0 if pieces_of(own) else size  # they are drawn at it
        request = Request(size=size, holdout=0.25, name="audit", options=options)
        pack(source, self.folder / "shards", request, workers=1)

    def make_run(self, name: str, case: Case, *extra: str) -> Path:
        """Prepare the run directory of a smoke run; return its path."""
        from launch.start import create

        words = [*self.words, f"name={name}", f"runs={self.folder / 'runs'}", *case.words]
        words += [f"data.train={self.folder / 'shards/train'}", f"data.eval={self.folder / 'shards/eval'}"]
        shutil.rmtree(self.folder / "runs" / name, ignore_errors=True)
        return create.prepare([*words, *extra]).path

    def straight(self, name: str, case: Case, *extra: str) -> Path:
        """Train a run without interruption."""
        run = self.make_run(name, case, *extra)
        self._finish(run, case.procs)
        return run

    def interrupted(
        self, name: str, case: Case, *extra: str, kills: int = 3, last_procs: int = 0, forget: str = ""
    ) -> Path:
        """Train a run that is killed at the last `kills` of the drawn places and resumed each time.

        last_procs: ranks after the last kill (0 = those of the case)
        forget: part of the state that the resumed run does not restore (empty = none); it is killed once then
        """
        run = self.make_run(name, case, *extra)
        for fault in [self.late_fault(case)] if forget else self.faults(case)[-kills:]:
            codes = start_ranks(run, case.procs, ROSTRO_FAULT=fault)
            if -9 not in codes:
                raise UserError(
                    f"the kill {fault} of {run} did not happen (exit codes {codes}): see {run / 'logs'}"
                )
        self._finish(run, last_procs or case.procs, **({"ROSTRO_FORGET": forget} if forget else {}))
        return run

    def faults(self, case: Case) -> list[str]:
        """Draw the places of the kills: each comes after the newest checkpoint of the one before.

        A job that grows is killed just after its first change of stage, and in the middle of its last fade.
        """
        config = self._config(case)
        images, every = config.images, config.save.every
        draws = counter_rng.uniform(counter_rng.key(self.seed, "audit", case.label), np.arange(3), 2)
        thirds = [int((third + 0.15 + 0.7 * draws[third, 0]) * images / 3) for third in range(3)]
        victim = int(draws[0, 1] * case.procs)
        boundary = SAVES[int(draws[1, 1] * len(SAVES))]
        first, middle, last = max(thirds[0], every + 1), thirds[1], min(thirds[2], images - every // 2)
        _, *later = plan_of_task(self.task).stages(config)
        if later:
            first, last = later[0].clock + 1, later[-1].clock + max(2, later[-1].fade // 2)
            middle = (first + last) // 2
        return [f"step@{first}/{victim}", f"{boundary}@{middle}", f"step@{last}"]

    def late_fault(self, case: Case) -> str:
        """Return the place of a kill for controls: late, when moments that a stage has reset are back."""
        config = self._config(case)
        return f"step@{config.images - config.save.every // 2}"

    def _config(self, case: Case) -> Config:
        from launch.options.compose import composed  # it loads Hydra

        return composed([*self.words, *case.words])

    def _finish(self, run: Path, procs: int, **variables: str) -> None:
        codes = start_ranks(run, procs, **variables)
        if any(codes):
            raise UserError(
                f"run {run} failed with exit codes {codes}: see {run / 'logs'} (keep=DIR keeps them)"
            )


def _cases(keys: SimpleNamespace, plan: Plan) -> list[Case]:
    """List the cases that were typed, or those that the task allows."""
    zero = [number for number in (1, 2, 3) if plan.allows("deepspeed", number)]
    numbers = {"procs": _numbers("procs", keys.procs), "stage": _numbers("stage", keys.stage) or zero}
    engines = (
        keys.engine.split(",") if keys.engine else [name for name in ("ddp", "flat") if plan.allows(name, 0)]
    )
    cases = []
    for procs, engine in itertools.product(numbers["procs"], engines or ["deepspeed"]):
        stages = numbers["stage"] if engine == "deepspeed" else [None]
        cases += [Case(procs, engine, *way) for way in itertools.product(keys.backend.split(","), stages)]
    return cases


def _numbers(key: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"{key}={text} is not a list of numbers: type {key}=1,2") from None


def controls(task: str, straight: Path) -> dict[str, str]:
    """Return part of the state to leave out -> why it is skipped (empty = it must be noticed).

    The task's plan may name the parts in `controls`; else they are what the run's checkpoint holds.
    """
    named = plan_of_task(task).controls
    parts = state_parts(straight) if named is None else named
    absent = {
        "optim": "the optimizer keeps none",
        "ema": "the run keeps no average (ema.half_life=0)",
        "task": "the task has none: its state() is empty",
    }
    return {part: "" if part in parts else why for part, why in absent.items()}


def audit(auditor: Auditor, keys: SimpleNamespace) -> bool:
    """Run every case and control, print a line for each; return whether all came out as they must."""
    good = True
    plan = plan_of_task(auditor.task)
    cases = _cases(keys, plan)
    if any(case.engine == "deepspeed" for case in cases):
        preload_deepspeed()
    for number, case in enumerate(cases):
        started = time.monotonic()
        straight = auditor.straight(f"straight{number}", case)
        killed = auditor.interrupted(f"killed{number}", case, kills=keys.kills)
        wrong = differences(straight, killed)
        good &= not wrong
        kills = ", ".join(auditor.faults(case)[-keys.kills :])
        verdict = "equal bit for bit" if not wrong else f"DIFFERENT: {wrong[0]} (+{len(wrong) - 1} more)"
        print(f"{case.label}: {verdict}  [killed at {kills}; {time.monotonic() - started:.0f} s]", flush=True)
        if number == 0 and keys.controls:
            for part, why in controls(auditor.task, straight).items():
                if why:
                    print(f"control, {part} state left out: skipped, {why}", flush=True)
                    continue
                run = auditor.interrupted(f"control-{part}", case, forget=part)
                wrong = differences(straight, run)
                good &= bool(wrong)
                verdict = f"noticed: {wrong[0]}" if wrong else "NOT NOTICED"
                print(f"control, {part} state left out: {verdict}", flush=True)
    if keys.elastic:
        case = dataclasses.replace(cases[0], procs=2)
        straight = auditor.straight("elastic-straight", case, "norm_stats=group")
        resumed = auditor.interrupted("elastic", case, "norm_stats=group", kills=1, last_procs=1)
        compare = elastic_differences if plan.elastic else first_differences
        wrong, distance = compare(straight, resumed, TOLERANCE)
        good &= not wrong
        verdict = "same samples" if not wrong else f"DIFFERENT: {wrong[0]}"
        what = "weights" if plan.elastic else "losses of the first updates"
        print(f"2 ranks resumed on 1, norm_stats=group: {verdict}, {what} within {distance:.1e}", flush=True)
    return good


def main(argv: list[str]) -> int:
    keys = parse(argv, OPTIONS)
    chosen_task(argv)
    with tempfile.TemporaryDirectory(prefix="rostro-audit-") as temporary:
        auditor = Auditor(keys.task, Path(keys.keep or temporary).resolve(), keys.seed)
        auditor.make_data()
        good = audit(auditor, keys)
    print("audit passed" if good else "audit FAILED")
    return 0 if good else 1
