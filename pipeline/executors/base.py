"""What an engine has to do: start functions in other processes and give their futures."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)
Chunk = tuple[int, ...]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """What one of several workers does of a run that is not planned yet, whatever its shards will be.

    Attributes:
        first: Index of its first shard.
        workers: Every how manieth shard is its own: how many workers there are.
    """

    first: int
    workers: int

    def of(self, shards: int) -> Chunk:
        """Say which shards these are, once it is known how many there are."""
        return tuple(range(self.first, shards, self.workers))


class Future(Protocol):
    """What is asked of a running chunk, as in `concurrent.futures`."""

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""

    def result(self) -> Any:
        """What it returned; raises where the process was lost or the function raised."""


@dataclass(frozen=True)
class Limits:
    """What one worker has; None where it is not known.

    Attributes:
        threads: Cores.
        memory: Bytes.
        sharing: Workers that share the memory of this machine.
        elsewhere: They run on other machines, whose cores, memory and devices are not those here.
    """

    threads: int | None = None
    memory: int | None = None
    sharing: int = 1
    elsewhere: bool = False


class Executor(ABC):
    """A few processes somewhere that compute chunks of shards.

    Laws that every executor keeps:
        - a chunk runs in a process of its own, or after another one, never beside it in a thread;
        - a lost process (killed, out of memory, out of time, node gone) makes ``result()`` raise;
        - leaving the ``with`` block lets go of everything that this process alone keeps alive.
    """

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """What one worker has."""

    @abstractmethod
    def split(self, shards: Sequence[int]) -> list[Chunk]:
        """Distribute shards over chunks; a chunk pays for the start of a worker where that is new."""

    def shares(self, most: int) -> list[Share]:
        """Choose who begins a run that workers elsewhere have to plan: here one, with the first shard.

        Args:
            most: Shards that there can be.

        Returns:
            Shares without a shard in common; what is in none of them is given out when it is known.
        """
        return [Share(0, most)]

    @abstractmethod
    def submit(self, work: Callable[[Item], Any], items: Sequence[Item]) -> list[Future]:
        """Start ``work(item)`` for every item, such as a chunk.

        Returns:
            Their futures, in the same order.

        Raises:
            ExecutorError: The engine does not take them.
        """

    def remember(self, items: Sequence[Any], futures: Sequence[Future]) -> None:
        """Note what was submitted, shares or tuples, where `recover` can find it."""
        del items, futures  # only what outlives this process has to be found again

    def avoid(self, nodes: Sequence[str]) -> None:
        """Give nothing more to these nodes, where the engine lets one choose."""
        del nodes

    def recover(self) -> list[tuple[Any, Future]]:
        """What an earlier process has started and remembered, and still runs."""
        return []

    def cancel(self) -> str:
        """Stop what can be stopped at once, because the user stops the run.

        Returns:
            What goes on all the same, for the user, or nothing.
        """
        return ""

    @abstractmethod
    def __enter__(self) -> Executor:
        """Start the engine."""

    @abstractmethod
    def __exit__(self, *error: object) -> None:
        """Let go of it."""


@contextmanager
def stopped_with(executor: Executor) -> Iterator[None]:
    """Stop what can be stopped when the block is left by an error or by the user, and say what goes on.

    Args:
        executor: What the block has given work to.
    """
    try:
        yield
    except BaseException:
        remark = executor.cancel()
        if remark:
            log.warning("%s", remark)
        raise


def interleaved(shards: Sequence[int], count: int) -> list[Chunk]:
    """Distribute shards evenly, neighbours to different chunks.

    Args:
        shards: Indices.
        count: Most chunks.

    Returns:
        The chunks that are not empty.

    Examples:
        >>> interleaved([0, 1, 2, 3, 4], 2)
        [(0, 2, 4), (1, 3)]
    """
    return [tuple(shards[first::count]) for first in range(min(count, len(shards)))]
