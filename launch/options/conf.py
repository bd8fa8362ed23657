"""The files of `launch/conf`, the choices of task=, engine= and cluster=, a task's plan and `smoke` block.

Hydra is not imported. The choices of engine and cluster are those of `engine.name` and `cluster.name`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from data_shards.errors import UserError
from data_shards.files import read_yaml
from hpc.config.plan import Plan, plan_of
from hpc.config.rules import rules
from hpc.config.schema import Config
from hpc.config.types import near, shown

GROUPS = ("task", "engine", "cluster")
CONF = Path(__file__).resolve().parents[1] / "conf"


def choices(group: str) -> list[str]:
    """Return the values of `task=`, `engine=` or `cluster=`."""
    if group == "task":
        return sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
    return sorted(rules(Config)[f"{group}.name"].one_of)


def chosen_task(words: Sequence[str]) -> str:
    """Return the task that the words name; UserError if there is none or it is not known."""
    known = choices("task")
    task = next((word[5:] for word in reversed(words) if word.startswith("task=")), None)
    if task is None:
        raise UserError(f"task= is missing: write task={known[0]} (known: {', '.join(known)})")
    if task not in known:
        task = shown(task)
        raise UserError(f"task={task} is not known: {near(task, known, what='task')}")
    return task


def plan_of_task(task: str) -> Plan:
    """Return the plan of conf/task/<task>.yaml, with the task's keys as they stand there."""
    keys = read_yaml(CONF / "task" / f"{task}.yaml", {"task?": {str: object}}, remedy="correct it")
    return plan_of({"name": task} | keys.get("task", {}))


def smoke_overrides(task: str) -> list[str]:
    """Return the `smoke` block of conf/task/<task>.yaml as `key=value` words: small sizes, the same code."""
    chosen_task([f"task={task}"])
    path = CONF / "task" / f"{task}.yaml"
    block = read_yaml(path, {"smoke?": {str: object}}, remedy="correct it").get("smoke", {})
    return [
        f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in block.items()
    ]
