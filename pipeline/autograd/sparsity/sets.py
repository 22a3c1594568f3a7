"""Sets of integers, many at a time: each is a number, and what it holds is in one table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

EMPTY = 0
MOST = 1 << 27  # integers in all sets of a table, and of one union: a gigabyte


class TooManyError(Exception):
    """The sets together hold more than can pay."""


class SetTable:
    """All sets that were met: compressed sparse rows that only grow; set 0 is empty.

    Arrays of sets are int64 arrays of such numbers, so that they can be moved, broadcast and
    compared. Sets of the same content may have several numbers. (Arrays of NumPy, since what is
    done to them are many short operations, each of which costs much less than one of torch.)
    """

    def __init__(self) -> None:
        self._starts, self._sizes = _Growing(1), _Growing(1)
        self._pool = _Growing(0)

    def __len__(self) -> int:
        return len(self._starts)

    def singletons(self, entries: Numbers) -> Numbers:
        """Make a set of each integer.

        Args:
            entries: (S,).

        Returns:
            Numbers of the sets, (S,).
        """
        return self._add(entries, np.ones_like(entries))

    def sizes(self, sets: Numbers) -> Numbers:
        """How many integers each set holds."""
        return self._sizes.data[sets]

    def members(self, sets: Numbers) -> tuple[Numbers, Numbers]:
        """What sets hold.

        Args:
            sets: (S,).

        Returns:
            Position of the set in `sets`, and integer, for each that one of them holds.

        Raises:
            TooManyError: That would be too many.
        """
        sizes = self._sizes.data[sets]
        ends = sizes.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        if total > MOST:
            raise TooManyError
        position = np.repeat(np.arange(len(sets)), sizes)
        offset = self._starts.data[sets] - (ends - sizes)
        return position, self._pool.data[np.arange(total) + offset[position]]

    def merge(self, a: Numbers, b: Numbers) -> Numbers:
        """Union of sets, entry by entry.

        Args:
            a: Numbers of sets, (S,).
            b: As many.

        Returns:
            Numbers of their unions, (S,).
        """
        merged = np.where(a == EMPTY, b, a)
        differ = np.flatnonzero((merged != b) & (b != EMPTY))
        if len(differ):
            left, right = a[differ], b[differ]
            keys = np.minimum(left, right) * len(self) + np.maximum(left, right)
            pairs, inverse = located(keys)
            both = np.stack([pairs // len(self), pairs % len(self)], 1).reshape(-1)
            merged[differ] = self._expand(np.arange(len(both)) // 2, both, len(pairs))[inverse]
        return merged

    def unite(self, groups: Numbers, sets: Numbers, count: int) -> Numbers:
        """Union of sets, group by group.

        Args:
            groups: Which group each set belongs to, (S,).
            sets: The sets, (S,).
            count: Number of groups.

        Returns:
            Numbers of the unions, (count,); empty where a group has no set.
        """
        united = np.zeros(count, dtype=np.int64)
        if len(self) == 1:
            return united
        keys = distinct((groups * len(self) + sets)[sets != EMPTY])
        groups, sets = keys // len(self), keys % len(self)
        single = np.bincount(groups, minlength=count)[groups] == 1
        united[groups[single]] = sets[single]
        groups, sets = groups[~single], sets[~single]
        if len(groups):
            words, alike = located(_signatures(groups, sets, count)[groups])
            first = np.full(len(words), count)
            np.minimum.at(first, alike, groups)
            kept = first[alike] == groups
            united[groups] = self._expand(alike[kept], sets[kept], len(first))[alike]
        return united

    def _expand(self, groups: Numbers, sets: Numbers, count: int) -> Numbers:
        """Union of non-empty sets; where one of them holds all the others it is the union."""
        largest = np.zeros(count, dtype=np.int64)
        np.maximum.at(largest, groups, self._sizes.data[sets] * len(self) + sets)
        position, entries = self.members(sets)
        span = int(entries.max()) + 1
        keys = distinct(groups[position] * span + entries)
        owners, entries = keys // span, keys % span
        found = np.bincount(owners, minlength=count)
        known = found == largest // len(self)
        united = largest % len(self)
        united[~known] = self._add(entries[~known[owners]], found[~known])
        return united

    def _add(self, entries: Numbers, sizes: Numbers) -> Numbers:
        if len(self._pool) + len(entries) > MOST:
            raise TooManyError
        numbers = np.arange(len(self), len(self) + len(sizes))
        self._starts.extend(len(self._pool) + sizes.cumsum() - sizes)
        self._sizes.extend(sizes)
        self._pool.extend(entries)
        return numbers


class _Growing:
    """Zeros to which arrays are appended; room is doubled when it is full."""

    def __init__(self, length: int) -> None:
        self.data: Numbers = np.zeros(length, dtype=np.int64)
        self._room = self.data

    def __len__(self) -> int:
        return len(self.data)

    def extend(self, more: Numbers) -> None:
        before, length = len(self.data), len(self.data) + len(more)
        if length > len(self._room):
            self._room = np.empty(max(2 * len(self._room), length), dtype=np.int64)
            self._room[:before] = self.data
        self._room[before:length] = more
        self.data = self._room[:length]


def distinct(keys: Numbers) -> Numbers:
    """Numbers without repetitions, ascending.

    Args:
        keys: (S,).

    Returns:
        (U,).
    """
    if _ascends(keys):
        return keys
    keys = np.sort(keys)
    kept = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=kept[1:])
    return keys[kept]


def located(keys: Numbers) -> tuple[Numbers, Numbers]:
    """Numbers without repetitions, ascending, and where each is among them.

    Args:
        keys: (S,).

    Returns:
        The numbers (U,), and positions (S,).
    """
    if _ascends(keys):
        return keys, np.arange(len(keys))
    numbers, positions = np.unique(keys, return_inverse=True)
    return numbers, positions


def _ascends(keys: Numbers) -> bool:
    return bool((keys[1:] > keys[:-1]).all())  # as those of a stencil do: nothing is to be sorted


def _signatures(groups: Numbers, sets: Numbers, count: int) -> Numbers:
    """A number for each group that groups of the same sets share, and no others."""
    # the sum modulo 2^64 of one well-mixed word per set (the finaliser of SplitMix64, Steele, Lea &
    # Flood 2014): that two of 10^6 groups share it by accident has probability 3e-8
    words = sets.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ words >> np.uint64(shift)) * np.uint64(factor)
    words ^= words >> np.uint64(31)
    signatures = np.zeros(count, dtype=np.uint64)
    np.add.at(signatures, groups, words)
    return signatures.view(np.int64)
