"""The help page of `rostro submit`: every key of the chosen task with its default, values and meaning."""

import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from hpc.config.rules import WORDS, Rule, rules, written
from hpc.config.schema import Config

HELP = """
usage: rostro submit task=NAME [key=value ...]        (the same: python launch/submit.py ...)

Starts a run and returns at once; closing the terminal does not end the run.

  task=NAME             what to train: {tasks}
  engine=ddp            how ranks share gradients: {engines}
  cluster=auto          where: {clusters}; auto is slurm where one answers, else local
  nodes=1 procs=1       nodes, and ranks on each of them
  gpus=0 hours=24       SLURM: GPUs of a node; time limit of an allocation (the run resumes in the next one)
  after=RUN             SLURM: start when that run, or job, has ended well
  name=                 of the run directory runs/<name>; default <task>-<date>-<time>
  players.NAME.optim.lr=  any key of optim and ema for one player alone ({players})
  data.train=FOLDER     packed set; ../val beside it chooses the checkpoint, ../eval is reported
  data.set=NAME         the same as data.train=$ROSTRO_SHARDS/NAME/train
  wait=true             follow the run to its end and return its exit code; Ctrl-C saves and stops it
  dry_run=true          print the plan: batches per rank, updates, memory, the sbatch text; start nothing
  smoke=true            small sizes (the smoke block of the task's yaml): to see in a minute that a run works
  prepare=true          make the run directory and print how to start it by torchrun
  -m key=a,b            a run for each value (a sweep): all at once, or one after the other with wait=true

examples:
  rostro submit task=siamese procs=2 data.train=shards/lfw/train wait=true
  rostro submit task=siamese task.loss=supcon optim.lr=3e-4 batch=128 dry_run=true
  rostro submit -m task=siamese task.loss=contrastive,triplet seed=0,1 data.set=lfw

completion: eval "$(rostro completion bash)", then rostro submit <TAB>

every key with its default{which}, what it may be, and what it means:
{keys}
"""
COLUMN = 32  # where the explanation of a key begins


def show(words: Sequence[str]) -> int:
    """Print our own page; Hydra's flags are behind `--hydra-help`.

    Without `task=NAME` among the words the page lists the keys that all tasks share.
    """
    from hpc.config.check import all_rules
    from hpc.config.types import flatten
    from launch.options.compose import known_keys, shared_keys, task_yaml
    from launch.options.conf import choices, chosen_task, plan_of_task

    if any(word.startswith("task=") for word in words):
        task = chosen_task(words)
        plan, known, which = plan_of_task(task), known_keys(task), f" for task={task}"
        rule_of = all_rules(plan)
        own = flatten(task_yaml(task))  # of the keys of one player only those that the task sets itself
        players = ", ".join(plan.players)
    else:
        rule_of, known, own, players = rules(Config) | WORDS, shared_keys(), {}, "the task's"
        which = " (with task=NAME: the task's own keys too, and its defaults)"
    width = shutil.get_terminal_size().columns if os.isatty(1) else 110
    lines = [
        line(key, value, rule_of.get(key), max(80, width))
        for key, value in known.items()
        if key not in ("task.name", "task.kind") and (key in own or not key.startswith("players."))
    ]
    groups = {group + "s": " | ".join(choices(group)) for group in ("task", "engine", "cluster")}
    groups["tasks"] = textwrap.fill(groups["tasks"], 80, break_on_hyphens=False).replace(
        "\n", f"\n{' ' * 24}"
    )
    print(HELP.format(**groups, players=players, which=which, keys="\n".join(lines)).strip())
    print("\nHydra's own flags (--cfg job prints the composed config): --hydra-help")
    return 0


def line(key: str, default: Any, rule: Rule | None, width: int) -> str:
    """Return `  key=default    values; meaning`, wrapped below the meaning's column."""
    typed = f"  {key}={written(default)}"
    if rule is None:
        return typed
    text = f"{rule.values(default)}; {rule.help}"
    first = typed.ljust(COLUMN) if len(typed) < COLUMN else f"{typed}\n{' ' * COLUMN}"
    indent = " " * COLUMN
    return first + textwrap.fill(text, width - COLUMN).replace("\n", f"\n{indent}")
