"""The files of `launch/conf`: where they are, which choices they offer, and a task's `smoke` block. No Hydra."""

import json
from pathlib import Path

from data_shards.errors import UserError
from data_shards.files import read_yaml
from hpc.config.types import near, shown

CONF = Path(__file__).resolve().parents[1] / "conf"


def choices(group: str) -> list[str]:
    """Return the values of `task=`, `engine=` or `cluster=`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def smoke_overrides(task: str) -> list[str]:
    """Return the `smoke` block of conf/task/<task>.yaml as `key=value` words: small sizes, the same code."""
    if task not in choices("task"):
        raise UserError(f"task={shown(task)} is not known: {near(task, choices('task'), what='task')}")
    path = CONF / "task" / f"{task}.yaml"
    block = read_yaml(path, {"smoke?": {str: object}}, remedy="correct it").get("smoke", {})
    return [
        f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in block.items()
    ]
