"""Start a training run: `python launch/submit.py task=siamese procs=2`, which is `rostro submit ...`.

It resolves the config, refuses what cannot work, makes the run directory, starts the ranks and returns.
Nothing here imports torch. Composition is in `launch/options/compose.py`, the plan's table in
`launch/start/table.py`, the ranks in `launch/job.py`.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

# Run as a script from a checkout: this folder is on the path, its parent is not.
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpc.config.schema import Config
from hpc.runs.run_dir import RunDir
from launch.start.create import make, resolve
from launch.start.plan import RunPlan
from launch.start.start import start_run
from launch.start.undo import NewFolders, NewRun

HYDRA_FLAGS = ("--hydra-help", "-sc", "--shell-completion", "--cfg", "-c", "--info", "-i")
COMPOSING = ("--cfg", "-c", "--info", "-i")  # those of them that compose a config
OWN_HELP = True  # with every key of the chosen task
HELP_FLAGS = ("-h", "--help")
SWEEP_FLAGS = ("-m", "--multirun")
INTERRUPTED = 130  # exit code of a followed run that Ctrl-C stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Start what the words ask for; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if any(word in HELP_FLAGS for word in words):
        from launch.options.submit_help import show

        return show(words)
    if any(word.split("=")[0] in HYDRA_FLAGS for word in words):
        return _hydra(words)
    if any(word in SWEEP_FLAGS for word in words):
        return _sweep([word for word in words if word not in SWEEP_FLAGS])
    return _start(resolve(words))


def _sweep(words: Sequence[str]) -> int:
    """Start a run for each point of a sweep; all points are checked before the first run starts."""
    from launch.options import sweep

    points = sweep.points(words)
    endings = sweep.endings(points)
    opened: dict[str, Any] = {}
    plans = [resolve(point, suffix=end, opened=opened) for point, end in zip(points, endings, strict=True)]
    worst = 0
    for end, plan in zip(endings, plans, strict=True):
        print(f"{' '.join(plan.words)}:")
        code = _start(plan, called=sweep.unnamed(plan.task, end))
        worst = max(worst, code)
        if code == INTERRUPTED:
            break
    return worst


def _start(plan: RunPlan, *, called: str = "") -> int:
    """Print, prepare or start one run. called: its name if none was given."""
    config = plan.config
    if config.dry_run:
        from launch.start import dry_run

        return dry_run.show(plan)
    folders = NewFolders(Path(config.runs).absolute())
    run = make(plan, called=called)
    if config.prepare:
        print(f"run          {run.path}")
        print(f"start it     cd {quote(str(run.code))} && PYTHONPATH=. {_torchrun(run, config)}")
        return 0
    return start_run(run, config, NewRun(run, folders))


def _torchrun(run: RunDir, config: Config) -> str:
    return f"torchrun --nproc-per-node={config.procs} -m hpc.train {quote(str(run.path))}"


def _hydra(words: Sequence[str]) -> int:
    """Answer --cfg and the like by Hydra itself; none of them runs anything."""
    import hydra

    from launch.options.compose import register
    from launch.options.conf import CONF, chosen_task

    if any(word.split("=")[0] in COMPOSING for word in words):
        chosen_task(words)
    register()
    sys.argv[1:] = [re.sub(r"^(engine|cluster)=", r"\1.name=", word) for word in words]
    hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(lambda config: None)()
    return 0


if __name__ == "__main__":
    from launch.cli import main as run_command

    sys.exit(run_command(["submit", *sys.argv[1:]]))
