"""Counted normal numbers drawn on the device: the generators of `counter_rng.py`, in torch.

Noise for each pixel of an image of 1024 pixels is millions of numbers, which a host would draw more slowly
than a GPU trains. The bits are the same on any device; sines and logarithms may differ in their last digit.
"""

import math

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """Return the int64 of the same 64 bits."""
    return word - (1 << 64) if word >> 63 else word


# As in `counter_rng.py`; products of int64 keep their low 64 bits, as those of uint64 do.
_GOLDEN, _MIX1, _MIX2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_LOW = (1 << 32) - 1
_STEP = 2.0**-32


def bits(seeds: Tensor, draws: int) -> Tensor:
    """Return int64 [n, draws]: the bits of `counter_rng.bits`, of generators that begin at `seeds` [n]."""
    steps = torch.arange(1, draws + 1, device=seeds.device).mul_(_GOLDEN)
    words = seeds[:, None] + steps
    words ^= _shifted(words, 30)
    words *= _MIX1
    words ^= _shifted(words, 27)
    words *= _MIX2
    words ^= _shifted(words, 31)
    return words


def _shifted(words: Tensor, places: int) -> Tensor:
    """Shift to the right and fill with zeros, as of unsigned numbers."""
    return (words >> places).bitwise_and_((1 << (64 - places)) - 1)


def normal(seeds: Tensor, dim: int) -> Tensor:
    """Return standard normal float32 [n, dim] on the device of `seeds` int64 [n]; |x| < 6.8.

    Row i depends on `seeds[i]` alone. Each word gives two numbers (Box and Muller 1958).
    """
    half = -(-dim // 2)
    words = bits(seeds, half)
    length = (_shifted(words, 32).float() + 0.5).mul_(_STEP).log_().mul_(-2.0).clamp_(min=0.0).sqrt_()
    angle = words.bitwise_and_(_LOW).float().mul_(2.0 * math.pi * _STEP)
    return torch.cat([length * angle.cos(), length * angle.sin()], 1)[:, :dim]
