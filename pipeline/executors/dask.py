"""Executor `dask`: the workers of a Dask cluster, wherever it runs. Needs the extra `dask`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigurationError, ExecutorError
from pipeline.executors.base import Chunk, Executor, Future, Item, Limits

if TYPE_CHECKING:
    from distributed import Client


class DaskExecutor(Executor):
    """Chunks as tasks of a Dask client.

    Args:
        connect: Gives the client when the executor is entered.
        started: How many workers it starts on this machine; 0 if none.
    """

    def __init__(self, connect: Callable[[], Client], started: int) -> None:
        self._connect, self._started = connect, started
        self._client: Client | None = None

    @property
    def limits(self) -> Limits:
        """One core each; the memory of this machine where the workers are started here."""
        return Limits(1, None, self._started or 1, elsewhere=not self._started)

    def split(self, shards: Sequence[int]) -> list[Chunk]:
        """One shard each: Dask gives it to a worker that is free, which keeps what it prepared."""
        return [(shard,) for shard in shards]

    def submit(self, work: Callable[[Item], Any], items: Sequence[Item]) -> list[Future]:
        """Submit every item; each is run anew, whatever Dask remembers of it."""
        assert self._client is not None, "the executor has to be entered first"
        return list(self._client.map(work, list(items), pure=False))

    def __enter__(self) -> DaskExecutor:
        try:
            self._client = self._connect()
        except OSError as error:
            raise ExecutorError(
                f"no Dask scheduler answers: {error}; check executor.address or executor.scheduler_file"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._client is not None:
            self._client.close()
            if self._client.cluster is not None:
                self._client.cluster.close()
            self._client = None


def build(
    folder: Path,
    /,
    workers: int = 2,
    address: str | None = None,
    scheduler_file: str | None = None,
) -> DaskExecutor:
    """Build the executor.

    Args:
        folder: Not used.
        workers: Processes to start on this machine where no scheduler is given.
        address: Of a scheduler that runs already, e.g. ``tcp://10.0.0.1:8786``; its workers may
            come from dask-jobqueue or anything else.
        scheduler_file: The file in which such a scheduler wrote its address.

    Returns:
        The executor.

    Raises:
        ConfigurationError: Dask is not installed, or two schedulers are named.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ConfigurationError(
            ["executor=dask needs dask; pip install 'pipeline-derivatives[dask]'"]
        ) from error
    if address and scheduler_file:
        raise ConfigurationError(
            ["executor: expected address or scheduler_file, got both; leave one out"]
        )

    def connect() -> Client:
        if address or scheduler_file:
            return Client(address=address, scheduler_file=scheduler_file, timeout=20)
        logging.getLogger("distributed").setLevel(logging.WARNING)  # it tells every step of its own
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        return Client(cluster)

    return DaskExecutor(connect, 0 if address or scheduler_file else workers)
