"""Executor `local`: processes of this machine, one per GPU or per group of cores."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.queues import Queue
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import ConfigurationError, ExecutorError
from pipeline.executors.base import Chunk, Executor, Future, Limits


class LocalExecutor(Executor):
    """A pool of processes by the standard library, started afresh: never forked from this one.

    Args:
        workers: How many.
        devices: What ``CUDA_VISIBLE_DEVICES`` is for each of them; empty leaves it as it is.
    """

    def __init__(self, workers: int, devices: Sequence[str]) -> None:
        self._workers, self._devices = workers, devices
        self._context = multiprocessing.get_context("spawn")
        self._pool: ProcessPoolExecutor | None = None
        self._others: set[multiprocessing.process.BaseProcess] = set()

    @property
    def limits(self) -> Limits:
        """The cores and the memory of this machine, shared out."""
        return Limits(max(_cores() // self._workers, 1), None, self._workers)

    def split(self, shards: Sequence[int]) -> list[Chunk]:
        """One shard each: a worker takes the next one when it is free, and keeps what it prepared."""
        return [(shard,) for shard in shards]

    def submit(self, work: Callable[[Chunk], Any], chunks: Sequence[Chunk]) -> list[Future]:
        """Start a fresh pool, since a process that was killed breaks the old one.

        Returns:
            Their futures, in the same order.

        Raises:
            ExecutorError: The work cannot be sent to other processes.
        """
        self._stop()
        sent = _portable(work)
        self._others = set(multiprocessing.active_children())
        devices: Queue[str] = self._context.Queue()
        for device in self._devices:
            devices.put(device)
        self._pool = ProcessPoolExecutor(
            min(self._workers, len(chunks)), self._context, _start, (devices, bool(self._devices))
        )
        return [self._pool.submit(_run, sent, chunk) for chunk in chunks]

    def cancel(self) -> str:
        """Stop the workers: what they have not committed is computed again later."""
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()
        return ""

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _start(devices: Queue[str], several: bool) -> None:
    """Begin a worker: Ctrl-C is for the parent, and each worker has a device of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    if several:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()


def _follow_parent() -> None:
    """End with the process that started this one, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are children"
    parent.join()
    os._exit(1)


def _portable(work: Callable[[Chunk], Any]) -> bytes:
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


def _run(work: bytes, chunk: Chunk) -> Any:
    return pickle.loads(work)(chunk)


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
