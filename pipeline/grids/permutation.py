"""Keyed pseudorandom permutations of 0 … size - 1, computed for single indices."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

UInts = NDArray[np.uint64]

ROUNDS = 10
LARGEST = 2**48
SMALL = 2**12


def permute(index: UInts, size: int, keys: UInts) -> UInts:
    """Permute indices without a table: a generalised Feistel network with cycle walking.

    Up to 4096 elements, where few of all permutations could be reached that way (for odd a, only
    even ones of the a*a), random words are sorted instead.

    Black & Rogaway (2002), "Ciphers with arbitrary finite domains", CT-RSA 2002, LNCS 2271: the
    network permutes 0 … a*a - 1 for the smallest a with a*a >= size, and is applied again while
    its result is not below `size`.

    Args:
        index: Indices below `size`, shape (B,).
        size: Number of elements, 1 … 2^48.
        keys: One key per round.

    Returns:
        Images of the indices, shape (B,).
    """
    if size <= SMALL:
        return _sorted_words(size, keys)[index]
    side = np.uint64(math.isqrt(size - 1) + 1)
    image = _encipher(index, side, keys)
    while (outside := image >= size).any():
        image[outside] = _encipher(image[outside], side, keys)
    return image


def _sorted_words(size: int, keys: UInts) -> UInts:
    words = np.arange(size, dtype=np.uint64)
    for key in keys:  # a bijection of 64-bit words: no two are equal
        words = _mix(words ^ key)
    return np.argsort(words).astype(np.uint64)


def _encipher(index: UInts, side: np.uint64, keys: UInts) -> UInts:
    left, right = index // side, index % side
    for key in keys:
        # multiply-shift instead of the slow `%`: 32 random bits times side < 2^32
        step = ((_mix(right ^ key) >> np.uint64(32)) * side) >> np.uint64(32)
        moved = left + step
        left, right = right, np.where(moved >= side, moved - side, moved)
    return left * side + right


def _mix(word: UInts) -> UInts:
    """The finaliser of SplitMix64: Steele, Lea & Flood (2014), OOPSLA '14, section 3."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
