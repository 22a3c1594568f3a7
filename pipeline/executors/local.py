"""Executor `local`: processes of this machine, one per GPU or per group of cores."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from pipeline.errors import ConfigurationError, ExecutorError
from pipeline.executors.base import Chunk, Executor, Future, Item, Limits


class _Lane:
    """One process after the other: the next one begins when the last one was killed.

    Args:
        environment: What each of them sees, over that of this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._pool: ProcessPoolExecutor | None = None

    def run(self, work: bytes, item: Any, started: Callable[[], None]) -> Any:
        """Do the work for an item.

        Args:
            work: What to do.
            item: For what.
            started: Called once there is a process that has it.

        Returns:
            What it returned; what it raised comes through.

        Raises:
            ExecutorError: The process is gone.
        """
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # never forked from this process
            self._pool = ProcessPoolExecutor(1, context, _start, (self._environment,))
        try:
            future = self._pool.submit(_run, work, item)
            started()
            return future.result()
        except BrokenProcessPool as error:
            self.end()
            raise ExecutorError(
                "its process has ended without a result: killed, or out of memory"
            ) from error

    def end(self) -> None:
        """Let the process end."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


class LocalExecutor(Executor):
    """Processes of this machine by the standard library, each of which may be lost alone.

    Args:
        workers: How many.
        devices: What ``CUDA_VISIBLE_DEVICES`` is for each of them; empty leaves it as it is.
    """

    def __init__(self, workers: int, devices: Sequence[str]) -> None:
        self._workers = workers
        cores = {"OMP_NUM_THREADS": str(max(_cores() // workers, 1))}
        shown = [{"CUDA_VISIBLE_DEVICES": name} for name in devices] or [{}] * workers
        self._lanes = [_Lane(cores | device) for device in shown]
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        self._stopped = False

    @property
    def limits(self) -> Limits:
        """The cores and the memory of this machine, shared out."""
        return Limits(max(_cores() // self._workers, 1), None, self._workers)

    def split(self, shards: Sequence[int]) -> list[Chunk]:
        """One shard each: a worker takes the next one when it is free, and keeps what it prepared."""
        return [(shard,) for shard in shards]

    def submit(self, work: Callable[[Item], Any], items: Sequence[Item]) -> list[Future]:
        """Queue the items for the processes, which start when there is something for them.

        Returns:
            Their futures, in the same order.

        Raises:
            ExecutorError: The work cannot be sent to other processes.
        """
        sent = _portable(work)
        return [self._threads.submit(self._take, sent, item) for item in items]

    def cancel(self) -> str:
        """Stop the workers: what they have not committed is computed again later."""
        self._stopped = True
        self._end_if_stopped()
        return ""

    def _end_if_stopped(self) -> None:
        if self._stopped:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()

    def __enter__(self) -> LocalExecutor:
        self._others = set(multiprocessing.active_children())
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="worker")
        for lane in self._lanes:
            self._free.put(lane)
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for lane in self._lanes:
            lane.end()

    def _take(self, work: bytes, item: Any) -> Any:
        if self._stopped:
            raise ExecutorError("the run was stopped")
        lane = self._free.get()  # there are as many as threads
        try:
            # a process that was starting when the others were stopped is stopped here
            return lane.run(work, item, self._end_if_stopped)
        finally:
            self._free.put(lane)


def _start(environment: Mapping[str, str]) -> None:
    """Begin a worker: Ctrl-C is for the parent, and each worker has a share of the machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.environ.update(environment)


def _follow_parent() -> None:
    """End with the process that started this one, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are children"
    parent.join()
    os._exit(1)


def _portable(work: Callable[[Item], Any]) -> bytes:
    """Pickle by cloudpickle where it is installed, which takes functions of a notebook too."""
    pickler: ModuleType = pickle
    with suppress(ImportError):
        pickler = importlib.import_module("cloudpickle")
    try:
        sent: bytes = pickler.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ExecutorError(
            f"the function cannot be sent to other processes: {error}; define it at the top level of "
            "a module, make it a plugin, or install cloudpickle"
        ) from error
    return sent


def _run(work: bytes, item: Any) -> Any:
    return pickle.loads(work)(item)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def build(folder: Path, /, workers: int | None = None) -> LocalExecutor:
    """Build the executor.

    Args:
        folder: Not used.
        workers: Processes; null: one per GPU that is visible, else one per two cores.

    Returns:
        The executor.

    Raises:
        ConfigurationError: The number is not positive.
    """
    if workers is not None and workers < 1:
        raise ConfigurationError(
            [f"executor.workers: expected a positive number or null, got {workers}"]
        )
    devices = _devices()
    count = workers or len(devices) or max(_cores() // 2, 1)
    shared = [devices[index % len(devices)] for index in range(count)] if devices else []
    return LocalExecutor(count, shared)


def _devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
