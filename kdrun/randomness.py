"""Random numbers by position: a draw is a function of its key and index, not of earlier draws.

A counter-based generator (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014) in int64 tensor operations, which overflow alike on every device. There is no state,
so nothing has to be saved or replayed if a training is resumed.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)
_MASK = 2**64 - 1

ORDER, AUGMENTATION, HELD_OUT, TRANSFER, TEST, GENERATED, DROPOUT, CORRUPTION, ATTACK, DRAWN_TEST = range(1, 11)
VIEW, VIEWED, STRONG = range(11, 14)
"""The purpose of a draw, the first word of a key, so that equal seeds give independent draws for two purposes."""


def key(*words: int) -> int:
    """Fold words such as (purpose, seed, epoch) into one 64-bit key."""
    state = 0
    for word in words:
        state = _mixed((state ^ (word & _MASK)) + _GOLDEN & _MASK)
    return state


def bits(key: int, index: Tensor) -> Tensor:
    """Return 64 random bits for each index: the index-th output of the splitmix64 stream that `key` starts.

    The result is int64 with the shape and device of `index`. For one key, different indices never give the same bits.
    """
    state = index * _signed(_GOLDEN) + _signed(key)
    for shift, factor in _MIX:
        state = (state ^ _shifted(state, shift)) * _signed(factor)
    return state ^ _shifted(state, 31)


def below(limit: int, bits: Tensor, part: int) -> Tensor:
    """Return whole numbers in [0, limit), uniform to within 2⁻²¹·limit, from the part-th 21 bits (part 0 to 2)."""
    return ((bits >> 21 * part) & (2**21 - 1)) * limit >> 21


def permutation(key: int, length: int, device: torch.device | None = None) -> Tensor:
    """Return a random order of `length` items, (length,) int64: indices sorted by their random bits."""
    return bits(key, torch.arange(length, device=device)).argsort(stable=True)


def _mixed(state: int) -> int:
    for shift, factor in _MIX:
        state = (state ^ state >> shift) * factor & _MASK
    return state ^ state >> 31


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _shifted(state: Tensor, shift: int) -> Tensor:
    mask: int = 2 ** (64 - shift) - 1
    return (state >> shift) & mask  # >> repeats the sign, which the mask removes
