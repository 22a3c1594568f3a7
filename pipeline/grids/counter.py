"""Random numbers by index: any range of them, by anybody, the same bits."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def stream_key(seed: int, *words: str) -> int:
    """A key of 128 bits for a stream of its own.

    Args:
        seed: The user's seed.
        words: What the stream is for.

    Returns:
        The key.
    """
    text = " ".join([str(seed), *words])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def uniform(key: int, start: int, stop: int, n: int) -> Tensor:
    """Uniform numbers of the points start … stop - 1, from a counter-based generator.

    Source: J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC11 (Philox).

    Args:
        key: Key of the stream.
        start: First point.
        stop: Point after the last.
        n: Numbers per point.

    Returns:
        float64 (stop - start, n) in the open interval (0, 1).
    """
    first, last = start * n, stop * n
    generator = np.random.Philox(key=key)
    generator.advance(first // 4)  # one step of the counter gives four numbers
    raw = generator.random_raw(last - first // 4 * 4)[first % 4 :] if last > first else []
    bits = np.asarray(raw, dtype=np.uint64) >> np.uint64(11)
    values = (bits.astype(np.float64) + 0.5) * 2.0**-53
    return torch.from_numpy(values.reshape(stop - start, n))


def permute(index: Tensor, count: int, key: int) -> Tensor:
    """A pseudorandom permutation of 0 … count - 1, evaluated at some indices only.

    A Feistel network on the smallest even number of bits that holds `count`, applied again while the
    result lies outside.

    Source: J. Black and P. Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002.

    Args:
        index: int64, any shape, entries in 0 … count - 1.
        count: Size of the domain.
        key: Which permutation.

    Returns:
        int64 of the same shape.
    """
    half = max((count - 1).bit_length() + 1, 2) // 2
    keys = np.random.Philox(key=key).random_raw(6)
    value = _feistel(index.numpy().astype(np.uint64), half, keys)
    while (outside := value >= count).any():
        value[outside] = _feistel(value[outside], half, keys)
    return torch.from_numpy(value.astype(np.int64))


def _feistel(value: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = value >> bits, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << bits) | right


def _mix(value: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of the input matters."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
