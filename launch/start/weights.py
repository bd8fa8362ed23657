"""The run with whose weights another one begins (`init.run`), at submit: is it there, and does it fit?

Torch is imported here, and only where `init.run` is given: a misfit is refused before the queue.
"""

import dataclasses
from pathlib import Path
from typing import Any

from hpc.config.schema import Config
from hpc.runs.run_dir import RunDir


def located(config: Config) -> Config:
    """Return the config with the absolute folder of `init.run`; UserError where it is not a run."""
    run = RunDir.open(Path(config.init.run).expanduser(), runs=config.runs).path
    return dataclasses.replace(config, init=dataclasses.replace(config.init, run=str(run)))


def check(config: Config) -> None:
    """Build the networks of the new run, and refuse weights that do not fit them."""
    from hpc.checkpoints import transfer
    from hpc.task import build_task

    transfer.fitting(
        config, transfer.of_networks(build_task(config).players()), transfer.read(record(config))
    )


def record(config: Config) -> dict[str, Any]:
    """Return what the new run keeps of the checkpoint with which it begins."""
    from hpc.checkpoints import transfer

    return transfer.choose(config)
