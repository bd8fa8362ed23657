"""The errors that a user can fix. Commands print them on one line and exit with a nonzero code."""


class UserError(ValueError):
    """Wrong input: the message names the key, its value and what to type instead.

    The message is one printable line, whatever the names and values in it contain: other characters are
    escaped.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DecodeError(UserError):
    """A stored image that does not decode: the message names shard, member and sample id."""


class LostRank(UserError):
    """Another rank has died or never joined: `rank` is its number."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank
