"""The errors that a user can mend; one class for all packages, defined where no package lies below it."""

from data_shards.errors import DecodeError, UserError

__all__ = ["DecodeError", "UserError"]
