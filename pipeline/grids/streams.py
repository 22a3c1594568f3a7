"""Counter-based random numbers: number i of a stream is a function of i alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

GENERATOR = "philox4x64-10"
WORDS = 4  # random 64-bit words per value of Philox4x64's counter


@dataclass(frozen=True)
class Stream:
    """An unlimited sequence of random numbers that can be entered anywhere.

    Philox4x64-10 of Salmon, Moraes, Dror & Shaw (2011), "Parallel random numbers: as easy as
    1, 2, 3", SC '11.

    Attributes:
        purpose: What the numbers are for: other purposes have other numbers.
        seed: Seed.
    """

    purpose: str
    seed: int

    def words(self, start: int, stop: int) -> NDArray[np.uint64]:
        """The words start … stop - 1 of the sequence.

        Returns:
            (stop - start,) uniform 64-bit words.
        """
        counter, skip = divmod(start, WORDS)
        words: NDArray[np.uint64] = Philox(key=self._key, counter=counter).random_raw(
            skip + stop - start
        )
        return words[skip:]

    def centred(self, start: int, stop: int, bits: int = 52) -> NDArray[np.float64]:
        """The midpoints (k + 1/2) / 2^bits for random k: never 0, never 1, all exact.

        Args:
            start: First number.
            stop: One past the last number.
            bits: Random bits of each number, at most 52.

        Returns:
            (stop - start,) uniform on the midpoints of 2^bits equal parts of (0, 1).
        """
        k = (self.words(start, stop) >> np.uint64(64 - bits)).astype(np.float64)
        return (k + 0.5) * 2.0**-bits

    @property
    def _key(self) -> int:
        text = f"{self.purpose}:{self.seed}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
