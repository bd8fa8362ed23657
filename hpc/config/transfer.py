"""What `init.*` may say, before any run is opened. Imports no torch.

The transfer of weights itself: `hpc/checkpoints/transfer.py`.
"""

from data_shards.errors import UserError
from hpc.config.schema import Config, Init
from hpc.config.types import shown


def check(config: Config) -> None:
    """Raise UserError for keys of `init` that have no meaning."""
    init, plain = config.init, Init()
    if not init.run:
        for name in ("checkpoint", "skip", "freeze"):
            if getattr(init, name) != getattr(plain, name):
                raise UserError(
                    f"init.{name}={shown(getattr(init, name))} has no effect without weights of a run: type "
                    "init.run=RUN, or leave it out"
                )
        return
    if init.checkpoint not in ("best", "last") and not (
        init.checkpoint.isascii() and init.checkpoint.isdigit()
    ):
        raise UserError(
            f"init.checkpoint={shown(init.checkpoint)} is not known: use best, last or a clock such as 20000"
        )
