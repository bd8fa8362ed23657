"""The errors that a user can fix. Commands print them on one line and exit with a code that is not 0."""


class UserError(ValueError):
    """Wrong input: the message names the key, its value and what to type instead.

    It is one printable line, whatever a name or a value in it holds: other characters are escaped.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DecodeError(UserError):
    """A stored picture that does not decode: the message names shard, member and sample id."""


class LostRank(UserError):
    """Another rank is dead or never came: `rank` names it."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank
