"""Does tasks in threads that keep ahead of the one that wants the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def read_ahead(
    read: Callable[[Task], Answer], tasks: Iterable[Task], depth: int, threads: int = 1
) -> Generator[Answer]:
    """Do tasks in threads that are up to `depth` answers ahead of the caller; answers come in order.

    What a task raises is raised when its answer is asked for. Closing the iterator, which leaving
    a ``for`` loop does, ends the threads.

    Args:
        read: Does one task.
        tasks: What to do.
        depth: 0 for no thread.
        threads: How many work at the same time.

    Yields:
        The answers.
    """
    if depth < 1:
        yield from map(read, tasks)
        return
    waiting: deque[Future[Answer]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
    try:
        remaining = iter(tasks)
        waiting.extend(pool.submit(read, task) for task in islice(remaining, depth))
        while waiting:
            answer = waiting.popleft().result()
            # before the caller goes to work, so that the threads have work as well
            waiting.extend(pool.submit(read, task) for task in islice(remaining, 1))
            yield answer
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
