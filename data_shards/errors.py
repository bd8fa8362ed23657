"""The errors that a user can mend. Commands print them on one line and exit with a code that is not 0."""


class UserError(ValueError):
    """Wrong input: the message names the key, its value and what to type instead."""


class DecodeError(UserError):
    """A stored picture that does not decode: the message names shard, member and sample id."""
