"""Writes shards in a thread of its own, so that computing and writing overlap."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Generic, TypeVar

from pipeline.store.shard import ShardWriter

Label = TypeVar("Label")


class _DroppedError(Exception):
    """The open shard is not wanted any more."""


class BackgroundWriter(Generic[Label]):
    """Does to shards what it is told, in that order; whatever fails is raised at the next call.

    Leaving the ``with`` block by an error drops the shard that is not committed.

    Args:
        depth: Most tasks that wait: it bounds the memory that batches take.

    Example:
        >>> with BackgroundWriter() as writer:
        ...     pass
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._waiting: deque[Future[None]] = deque()
        self._committed: deque[Label] = deque()
        self._shard = ExitStack()
        self._writer: ShardWriter | None = None

    def begin(self, shard: AbstractContextManager[ShardWriter]) -> None:
        """Open the next shard."""
        self._submit(lambda: self._enter(shard))

    def call(self, task: Callable[[ShardWriter], None]) -> None:
        """Do something to the open shard, such as append a batch to it."""
        self._submit(lambda: task(self._open_shard()))

    def commit(self, label: Label) -> None:
        """Complete the open shard, and remember its label."""
        self._submit(lambda: self._leave(label))

    def committed(self) -> list[Label]:
        """Labels of the shards that have become durable since the last call."""
        return [self._committed.popleft() for _ in range(len(self._committed))]

    def wait(self) -> None:
        """Wait until everything is done."""
        while self._waiting:
            self._waiting.popleft().result()

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
            self._thread.submit(self._abandon, kind, error, traceback).result()
            self._thread.shutdown()

    def _submit(self, task: Callable[[], Any]) -> None:
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._guarded, task))

    def _guarded(self, task: Callable[[], Any]) -> None:
        try:
            task()
        except BaseException:
            self._writer = None
            # the shard's own clean-up says what the error means, and raises that
            self._shard.__exit__(*sys.exc_info())
            raise

    def _enter(self, shard: AbstractContextManager[ShardWriter]) -> None:
        self._writer = self._shard.enter_context(shard)

    def _open_shard(self) -> ShardWriter:
        assert self._writer is not None, "no shard is open: an earlier task failed"
        return self._writer

    def _leave(self, label: Label) -> None:
        self._shard.close()
        self._writer = None
        self._committed.append(label)

    def _abandon(self, *error: Any) -> None:
        if any(error):
            # whatever the caller's error is, the store need not interpret it
            self._shard.__exit__(_DroppedError, _DroppedError(), None)
