"""Sizes that a network doubles its way to. Imports no torch: plans check sizes with it before the queue."""


def level_of(size: int, *, key: str, least: int, most: int) -> int:
    """Return log2 of `size`, pixels.

    Raises ValueError that names `key` unless it is a power of two from `least` to `most`, two such powers.
    """
    if not least <= size <= most:
        raise ValueError(f"{key}={size} is out of range: use a power of two from {least} to {most}")
    level = size.bit_length() - 1
    if size != 1 << level:
        raise ValueError(f"{key}={size} is not a power of two: use {1 << level} or {min(2 << level, most)}")
    return level


def channels_at(level: int, width: int) -> int:
    """Return the channels of the maps of a level: `width` up to 32 pixels, then half of it at each doubling.

    With a width of 512 it is table 2 of the paper: 512 up to 32 pixels, 16 at 1024.
    """
    return max(width >> max(level - 3, 0), 1)


def positive(number: int, key: str) -> int:
    """Return `number`; ValueError names `key` unless it is 1 or more."""
    if number < 1:
        raise ValueError(f"{key}={number} is not positive: use 1 or more")
    return number
