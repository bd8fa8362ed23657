"""`python -m tests.support.slowed RUN`: a rank slowed by the seconds of SLOWED, by kind of work."""

import json
import os
import sys
import time
from typing import Any

from data_shards.loading.loader import TrainLoader
from hpc import train
from hpc.checkpoints import store


def slowed(owner: Any, name: str, seconds: float, *, counted: bool = False) -> None:
    """Let a function of `owner` take so much longer; `counted`: it knows how long others waited for it."""
    before = getattr(owner, name)

    def longer(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        if counted:
            arguments[0].waited += seconds
        return before(*arguments, **options)

    setattr(owner, name, longer)


if __name__ == "__main__":
    plan = json.loads(os.environ["SLOWED"])
    slowed(train.fault_injection, "crash_point", plan["step"])
    slowed(store, "save", plan["save"])
    slowed(train.evaluation, "evaluate", plan["evaluate"])
    slowed(TrainLoader, "next", plan["wait"], counted=True)
    sys.exit(train.main(sys.argv[1]))
