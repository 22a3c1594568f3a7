"""Writes shards in threads of their own, so that computing, writing and syncing overlap."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Generic, TypeVar

from pipeline.store.writing.shard import ShardWriter

Label = TypeVar("Label")


class _DroppedError(Exception):
    """The open shard is not wanted any more."""


class _Shard:
    """One shard, from its opening to its commit, in a thread of its own."""

    def __init__(self, shard: AbstractContextManager[ShardWriter]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._open = ExitStack()
        self._writer: ShardWriter | None = None
        self._error: BaseException | None = None
        self.opened = self.submit(lambda: self._enter(shard))

    def submit(self, task: Callable[[], Any]) -> Future[None]:
        return self._thread.submit(self._guarded, task)

    def call(self, task: Callable[[ShardWriter], None]) -> Future[None]:
        return self.submit(lambda: self._do(task))

    def commit(self, after: Future[None] | None, then: Callable[[], None]) -> Future[None]:
        """Complete the file; it counts only when the one before it does."""
        return self.submit(lambda: self._leave(after, then))

    def end(self) -> None:
        """Wait for what has been asked for, and give up what is not committed."""
        dropped = (_DroppedError, _DroppedError(), None)
        self._thread.submit(self._open.__exit__, *dropped).result()
        self._thread.shutdown()

    def _guarded(self, task: Callable[[], Any]) -> None:
        if self._error is not None:
            raise self._error
        try:
            task()
        except BaseException as error:
            self._error = error
            self._give_up()
            raise

    def _give_up(self) -> None:
        try:
            # the shard's own clean-up says what the error means, and raises that
            self._open.__exit__(*sys.exc_info())
        except BaseException as meant:
            self._error = meant
            raise

    def _enter(self, shard: AbstractContextManager[ShardWriter]) -> None:
        self._writer = self._open.enter_context(shard)

    def _do(self, task: Callable[[ShardWriter], None]) -> None:
        assert self._writer is not None, "opening it was the first task"
        task(self._writer)

    def _leave(self, after: Future[None] | None, then: Callable[[], None]) -> None:
        if after is not None:
            after.result()
        self._open.close()
        then()


class BackgroundWriter(Generic[Label]):
    """Does to shards what it is told, in that order; whatever fails is raised at a later call.

    A shard is synced and committed while the next one is being written. Leaving the ``with``
    block drops what is not committed.

    Args:
        depth: Most tasks that wait: it bounds the memory that batches take.

    Examples:
        >>> with BackgroundWriter() as writer:
        ...     pass
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._waiting: deque[Future[None]] = deque()
        self._committed: deque[Label] = deque()
        self._open: _Shard | None = None
        self._closing: tuple[_Shard, Future[None]] | None = None

    def begin(self, shard: AbstractContextManager[ShardWriter]) -> None:
        """Open the next shard."""
        self._open = _Shard(shard)
        self._wait_for(self._open.opened)

    def call(self, task: Callable[[ShardWriter], None]) -> None:
        """Do something to the open shard, such as append a batch to it."""
        assert self._open is not None, "begin comes first"
        self._wait_for(self._open.call(task))

    def commit(self, label: Label) -> None:
        """Complete the open shard, and remember its label."""
        shard, before = self._open, self._closing
        assert shard is not None, "begin comes first"
        done = shard.commit(before and before[1], lambda: self._committed.append(label))
        self._open, self._closing = None, (shard, done)
        if before is not None:
            self._finish(*before)

    def committed(self) -> list[Label]:
        """Labels of the shards that have become durable since the last call."""
        return [self._committed.popleft() for _ in range(len(self._committed))]

    def wait(self) -> None:
        """Wait until everything is done."""
        while self._waiting:
            self._waiting.popleft().result()
        if self._closing is not None:
            closing, self._closing = self._closing, None
            self._finish(*closing)

    def __enter__(self) -> BackgroundWriter[Label]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            for shard in filter(None, (self._closing and self._closing[0], self._open)):
                shard.end()

    def _wait_for(self, task: Future[None]) -> None:
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(task)

    @staticmethod
    def _finish(shard: _Shard, done: Future[None]) -> None:
        try:
            done.result()
        finally:
            shard.end()
