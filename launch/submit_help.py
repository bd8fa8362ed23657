"""The help page of `rostro submit`: what may be typed, with every key of the chosen task and its default."""

from collections.abc import Sequence
from typing import Any

HELP = """
usage: rostro submit [task=NAME] [key=value ...]        (the same: python launch/submit.py ...)

Starts a run and returns at once; the run goes on when the terminal closes.

  task=siamese          what to train: {tasks}
  engine=ddp            how ranks share gradients: {engines}
  cluster=auto          where: {clusters}; auto is slurm where one answers, else local
  nodes=1 procs=1       nodes, and ranks on each of them
  gpus=0 hours=24       SLURM: GPUs of a node; time limit of an allocation (the run goes on in the next one)
  after=RUN             SLURM: start when that run, or job, has ended well
  name=                 of the run directory runs/<name>; default <task>-<date>-<time>
  data.train=FOLDER     packed shards (`rostro pack`); beside it, ../eval is the held-out set
  data.set=NAME         the same as data.train=$ROSTRO_SHARDS/NAME/train
  wait=true             follow the run to its end and return its exit code; Ctrl-C saves and stops it
  dry_run=true          print the plan: batches per rank, updates, memory, the sbatch text; start nothing
  prepare=true          make the run directory and print how to start it by torchrun
  -m key=a,b            a run for each value (a sweep): all at once, or one after the other with wait=true

examples:
  rostro submit task=siamese procs=2 data.train=shards/lfw/train wait=true
  rostro submit task=siamese task.loss=supcon optim.lr=3e-4 batch=128 dry_run=true
  rostro submit -m task=siamese task.loss=contrastive,triplet seed=0,1 data.set=lfw

completion: eval "$(python launch/submit.py -sc install=bash)", then python launch/submit.py <TAB>

keys and defaults of task={task}:
{keys}
"""


def show(words: Sequence[str]) -> int:
    """Our own page; Hydra's flags are behind `--hydra-help`."""
    from launch.compose import choices, chosen_task, known_keys

    task = chosen_task([word for word in words if "=" in word])
    keys = "\n".join(
        f"  {key}={_shown(value)}" for key, value in known_keys(task).items() if key != "task.name"
    )
    groups = {group + "s": " | ".join(choices(group)) for group in ("task", "engine", "cluster")}
    print(HELP.format(**groups, task=task, keys=keys).strip())
    print("\nHydra's own flags (--cfg job prints the composed config): --hydra-help")
    return 0


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")
