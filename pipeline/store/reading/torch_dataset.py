"""Results as datasets of torch.utils.data: by point, or as a stream of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from pipeline.errors import StoreError
from pipeline.store.layout import STATUS
from pipeline.store.reading.batches import (
    POINT,
    Span,
    cut,
    require_names,
    require_rows,
    spans_to_read,
    to_torch,
)

if TYPE_CHECKING:
    from pipeline.store.reading.results import Results

Sample = dict[str, Tensor]


class PointDataset(Dataset[Sample]):
    """A map-style dataset: sample i is a point, in the order of the file.

    A DataLoader asks for whole batches at once; an index that is itself a list, as a batch
    sampler with ``batch_size=None`` gives, is answered by one tensor per name without collating.

    Args:
        results: Where from; each worker opens its own files.
        names: Datasets, and ``point`` for the index of each point.
        points: Index of each sample's point; None for all points.
    """

    def __init__(
        self, results: Results, names: Sequence[str], points: NDArray[np.int64] | None
    ) -> None:
        self.names = tuple(names)
        self._results, self._points = results, points

    def __len__(self) -> int:
        return self._results.points if self._points is None else len(self._points)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Sample:
        """Read one sample, or several as one.

        Args:
            index: Of the sample; negative from the end; a slice or several indices for a batch.

        Returns:
            Name -> tensor (…), or (B, …) for several.
        """
        if isinstance(index, slice):
            return self._read(np.arange(*index.indices(len(self))))
        if np.ndim(index) == 0:
            return {name: block[0] for name, block in self._read(np.atleast_1d(index)).items()}
        return self._read(np.asarray(index, dtype=np.int64))

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Read the samples of a batch at once.

        Args:
            indices: Of the samples.

        Returns:
            One sample for each, for the collate function.
        """
        batch = self._read(np.asarray(indices, dtype=np.int64))
        return [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]

    def _read(self, samples: NDArray[np.int64]) -> Sample:
        points = np.where(samples < 0, samples + len(self), samples)
        if self._points is not None:
            points = self._points[points]
        return to_torch(
            {name: points if name == POINT else self._results[name][points] for name in self.names}
        )


@dataclass(frozen=True)
class Choice:
    """Which points are read.

    Attributes:
        only_ok: Whether to leave points out whose status is not ok.
        skip_missing: Whether to leave points out that have not been computed.
    """

    only_ok: bool = False
    skip_missing: bool = False


def point_dataset(results: Results, names: Sequence[str], choice: Choice) -> PointDataset:
    """Choose the points of a map-style dataset.

    Args:
        results: Where from.
        names: Datasets and ``point``; none for all datasets.
        choice: Which points.

    Returns:
        The dataset.
    """
    spans = spans_to_read(results, choice.skip_missing)
    points = None
    if choice.only_ok:
        points = np.concatenate([_ok_points(results, span) for span in spans])
    elif results.missing():
        points = np.concatenate([np.arange(*span) for span in spans])
    return PointDataset(results, require_names(results, names), points)


def _ok_points(results: Results, span: Span) -> NDArray[np.int64]:
    return span[0] + np.flatnonzero(results["status"].read(*span) == STATUS["ok"])


class BatchStream(IterableDataset[Sample]):
    """An iterable dataset of batches in order, whose files are shared out among workers.

    Every batch is given exactly once in all workers and ranks together.

    Args:
        results: Where from; each worker opens its own files.
        names: Datasets, and ``point`` for the index of each point.
        spans: start, stop of each batch.
        only_ok: Whether to leave points out whose status is not ok.
        share: (rank, ranks) of distributed training.
    """

    def __init__(
        self,
        results: Results,
        names: Sequence[str],
        spans: Sequence[Span],
        only_ok: bool,
        share: tuple[int, int],
    ) -> None:
        self.names, self.spans = tuple(names), tuple(spans)
        self._results, self._only_ok, self._share = results, only_ok, share

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rank, ranks = self._share
        own = share_out(self.spans, rank * workers + number, ranks * workers)
        read = self._read_ok if self._only_ok else self._read
        return filter(None, map(read, own))

    def _read(self, span: Span) -> Sample:
        return to_torch(
            {
                name: np.arange(*span) if name == POINT else self._results[name].read(*span)
                for name in self.names
            }
        )

    def _read_ok(self, span: Span) -> Sample:
        ok = torch.from_numpy(self._results["status"].read(*span) == STATUS["ok"])
        return {name: block[ok] for name, block in self._read(span).items()} if ok.any() else {}


def batch_stream(
    results: Results,
    rows: int,
    names: Sequence[str],
    choice: Choice,
    share: tuple[int, int],
) -> BatchStream:
    """Choose the batches of a stream.

    Args:
        results: Where from.
        rows: Points per batch.
        names: Datasets and ``point``; none for all datasets.
        choice: Which points.
        share: (rank, ranks) of distributed training.

    Returns:
        The dataset.

    Raises:
        StoreError: There is no such rank.
    """
    rank, ranks = share
    if not 0 <= rank < ranks:
        raise StoreError(f"share has to be (rank, ranks) with 0 <= rank < ranks, got {share}")
    require_rows(rows)
    spans = tuple(cut(spans_to_read(results, choice.skip_missing), rows))
    return BatchStream(results, require_names(results, names), spans, choice.only_ok, share)


def share_out(spans: Sequence[Span], number: int, workers: int) -> Sequence[Span]:
    """Give each worker consecutive batches, so that few files are read by two of them.

    Args:
        spans: start, stop of each batch.
        number: Which worker.
        workers: How many there are.

    Returns:
        The worker's own.

    Examples:
        >>> [share_out(((0, 4), (4, 8), (8, 9)), number, 2) for number in (0, 1)]
        [((0, 4),), ((4, 8), (8, 9))]
    """
    return spans[len(spans) * number // workers : len(spans) * (number + 1) // workers]
