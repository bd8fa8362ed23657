"""The errors that a user can mend; one class for all packages, defined where no package lies below it."""

from data_shards.errors import DecodeError, UserError

__all__ = ["DecodeError", "LostRank", "UserError"]


class LostRank(UserError):
    """Another rank is dead or never came: `rank` names it."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank
