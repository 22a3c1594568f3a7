"""Sets of integers, many at a time: each is a number, and what it holds is in one table."""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY = 0
MOST = 1 << 27  # integers in all sets of a table, and of one union: a gigabyte


class TooManyError(Exception):
    """The sets together hold more than can pay."""


class SetTable:
    """All sets that were met: compressed sparse rows that only grow; set 0 is empty.

    Tensors of sets are int64 tensors of such numbers, so that torch can move, broadcast and
    compare them. Sets of the same content may have several numbers.
    """

    def __init__(self) -> None:
        self._starts = _Growing(torch.zeros(1, dtype=torch.int64))
        self._sizes = _Growing(torch.zeros(1, dtype=torch.int64))
        self._pool = _Growing(torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self._starts)

    def singletons(self, entries: Tensor) -> Tensor:
        """Make a set of each integer.

        Args:
            entries: int64, any shape.

        Returns:
            Numbers of the sets, of the same shape.
        """
        flat = entries.reshape(-1)
        return self._add(flat, torch.ones_like(flat)).reshape(entries.shape)

    def sizes(self, sets: Tensor) -> Tensor:
        """How many integers each set holds."""
        return self._sizes.data[sets]

    def members(self, sets: Tensor) -> tuple[Tensor, Tensor]:
        """What sets hold.

        Args:
            sets: (S,).

        Returns:
            Position of the set in `sets`, and integer, for each that one of them holds.

        Raises:
            TooManyError: That would be too many.
        """
        sizes = self._sizes.data[sets]
        total = int(sizes.sum())
        if total > MOST:
            raise TooManyError
        position = torch.repeat_interleave(torch.arange(len(sets)), sizes, output_size=total)
        ends = sizes.cumsum(0)
        within = torch.arange(total) - (ends - sizes)[position]
        return position, self._pool.data[self._starts.data[sets][position] + within]

    def merge(self, a: Tensor, b: Tensor) -> Tensor:
        """Union of sets, entry by entry.

        Args:
            a: Numbers of sets.
            b: As many.

        Returns:
            Numbers of their unions.
        """
        merged = torch.where(a == EMPTY, b, a)
        differ = ((a != b) & (a != EMPTY) & (b != EMPTY)).nonzero()
        if len(differ):
            index = tuple(differ.unbind(1))
            keys = torch.stack(
                [torch.minimum(a[index], b[index]), torch.maximum(a[index], b[index])]
            )
            pairs, inverse = _unique(keys[0] * len(self) + keys[1])
            groups = torch.arange(len(pairs)).repeat(2)
            both = torch.cat([pairs // len(self), pairs % len(self)])
            merged[index] = self._expand(groups, both, len(pairs))[inverse]
        return merged

    def unite(self, groups: Tensor, sets: Tensor, count: int) -> Tensor:
        """Union of sets, group by group.

        Args:
            groups: Which group each set belongs to, (S,).
            sets: The sets, (S,).
            count: Number of groups.

        Returns:
            Numbers of the unions, (count,); empty where a group has no set.
        """
        united = torch.zeros(count, dtype=torch.int64)
        if len(self) == 1:
            return united
        keys = torch.unique((groups * len(self) + sets)[sets != EMPTY])
        groups, sets = keys // len(self), keys % len(self)
        of_group = torch.bincount(groups, minlength=count)
        single = of_group[groups] == 1
        united[groups[single]] = sets[single]
        groups, sets = groups[~single], sets[~single]
        if len(groups):
            alike = _unique(_signatures(groups, sets, count)[groups])
            first = torch.full((len(alike[0]),), count, dtype=torch.int64)
            first.scatter_reduce_(0, alike[1], groups, "amin")
            kept = first[alike[1]] == groups
            made = self._expand(alike[1][kept], sets[kept], len(first))
            united[groups] = made[alike[1]]
        return united

    def _expand(self, groups: Tensor, sets: Tensor, count: int) -> Tensor:
        """Union of non-empty sets; where one of them holds all the others it is the union."""
        largest = torch.zeros(count, dtype=torch.int64)
        sizes = self._sizes.data[sets]
        largest.scatter_reduce_(0, groups, sizes * len(self) + sets, "amax")
        position, entries = self.members(sets)
        span = int(entries.max()) + 1
        keys = torch.unique(groups[position] * span + entries)
        owners, entries = keys // span, keys % span
        found = torch.bincount(owners, minlength=count)
        known = found == largest // len(self)
        fresh = ~known[owners]
        united = largest % len(self)
        united[~known] = self._add(entries[fresh], found[~known])
        return united

    def _add(self, entries: Tensor, sizes: Tensor) -> Tensor:
        if len(self._pool) + len(entries) > MOST:
            raise TooManyError
        numbers = torch.arange(len(self), len(self) + len(sizes))
        self._starts.extend(len(self._pool) + sizes.cumsum(0) - sizes)
        self._sizes.extend(sizes)
        self._pool.extend(entries)
        return numbers


class _Growing:
    """A tensor to which others are appended; room is doubled when it is full."""

    def __init__(self, start: Tensor) -> None:
        self._room, self._length = start, len(start)

    def __len__(self) -> int:
        return self._length

    @property
    def data(self) -> Tensor:
        return self._room[: self._length]

    def extend(self, more: Tensor) -> None:
        length = self._length + len(more)
        if length > len(self._room):
            room = self._room.new_empty(max(2 * len(self._room), length))
            room[: self._length] = self.data
            self._room = room
        self._room[self._length : length] = more
        self._length = length


def _unique(keys: Tensor) -> tuple[Tensor, Tensor]:
    unique, inverse = torch.unique(keys, return_inverse=True)
    return unique, inverse


def _signatures(groups: Tensor, sets: Tensor, count: int) -> Tensor:
    """A number for each group that groups of the same sets share, and no others."""
    # the sum modulo 2^64 of one well-mixed word per set (the finaliser of SplitMix64, Steele, Lea &
    # Flood 2014): that two of 10^6 groups share it by accident has probability 3e-8
    words = sets * _word(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ _shifted(words, shift)) * _word(factor)
    words ^= _shifted(words, 31)
    return torch.zeros(count, dtype=torch.int64).index_add_(0, groups, words)


def _word(bits: int) -> int:
    """The same 64 bits as a signed number."""
    return bits - (1 << 64) if bits >= 1 << 63 else bits


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Shift right, filling with zeros."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)
