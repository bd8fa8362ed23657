"""What `init.*` may say, before any run is opened. Imports no torch.

The transfer of weights itself: `hpc/checkpoints/transfer.py`.
"""

from collections.abc import Iterable

from data_shards.errors import UserError
from hpc.config.schema import Config, Init
from hpc.config.types import shown


def check(config: Config, players: Iterable[str]) -> None:
    """Raise UserError for keys of `init` that have no meaning."""
    init, plain, known = config.init, Init(), list(players)
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
    for name in ("skip", "freeze"):
        for pattern in getattr(init, name):
            if pattern.partition(".")[0] not in known:
                raise UserError(
                    f"init.{name}={shown(getattr(init, name))}: {shown(pattern)} begins with no player: type "
                    f"for example init.{name}=[{known[0]}.{pattern.lstrip('.')}]"
                )


def frozen_patterns(config: Config, player: str) -> list[str]:
    """Return the patterns of `init.freeze` for the parameters of a player."""
    parts = (pattern.partition(".") for pattern in config.init.freeze)
    return [rest or "*" for name, _, rest in parts if name == player]
