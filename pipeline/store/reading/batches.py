"""Reads batches in order, in a thread that keeps ahead of the caller."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError, nearest
from pipeline.store.arrays.buffers import as_numpy
from pipeline.store.reading.ahead import read_ahead

if TYPE_CHECKING:
    from pipeline.store.reading.results import Results

log = logging.getLogger(__name__)
POINT = "point"  # name under which the index of each point is given
Batch = dict[str, Any]
Buffers = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Kind = Literal["torch", "numpy"]
Span = tuple[int, int]


def require_names(results: Results, names: Sequence[str]) -> tuple[str, ...]:
    """Choose what is read.

    Args:
        results: Where from.
        names: Datasets and ``point``; none for all datasets.

    Returns:
        The names, each of which is there.
    """
    chosen = (names,) if isinstance(names, str) else tuple(names) or results.names
    for name in chosen:
        if name != POINT:
            results[name]
    return chosen


def spans_to_read(results: Results, skip_missing: bool) -> list[Span]:
    """Choose which points are read.

    Args:
        results: Where from.
        skip_missing: Whether points may be missing.

    Returns:
        start, stop of ranges that have been computed, in order, each in one file.

    Raises:
        StoreError: Points are missing.
    """
    gaps = results.missing()
    lost = sum(stop - start for start, stop in gaps)
    if gaps and not skip_missing:
        raise StoreError(
            f"{results.path} is not finished: {lost} of {results.points} points are missing, first "
            f"{gaps[0][0]}:{gaps[0][1]}; run the same command again, or give skip_missing=True"
        )
    if gaps:
        log.warning(
            "%s: %d of %d points are missing and left out", results.path, lost, results.points
        )
    return results.present()


def require_rows(rows: int) -> None:
    """Refuse batches of nothing.

    Args:
        rows: Points per batch.

    Raises:
        StoreError: There are none.
    """
    if rows < 1:
        raise StoreError(f"a batch needs at least one point, got rows={rows}")


def cut(spans: Iterable[Span], rows: int) -> Iterator[Span]:
    """Cut ranges into batches.

    Args:
        spans: start, stop of each range.
        rows: Points per batch.

    Yields:
        start, stop of each batch.

    Examples:
        >>> list(cut([(0, 5), (8, 10)], 4))
        [(0, 4), (4, 5), (8, 10)]
    """
    for start, stop in spans:
        for low in range(start, stop, rows):
            yield low, min(low + rows, stop)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Join ranges that touch.

    Args:
        spans: start, stop of each range, in order.

    Returns:
        The same points in as few ranges as there can be.

    Examples:
        >>> joined([(0, 2), (2, 5), (8, 10)])
        [(0, 5), (8, 10)]
    """
    longer: list[Span] = []
    for start, stop in spans:
        if longer and longer[-1][1] == start:
            longer[-1] = (longer[-1][0], stop)
        else:
            longer.append((start, stop))
    return longer


def new_batches(
    results: Results, names: Sequence[str], spans: Iterable[Span], kind: Kind, prefetch: int
) -> Iterator[Batch]:
    """Read batches into new memory.

    Args:
        results: Where from.
        names: Datasets and ``point``.
        spans: start, stop of each batch.
        kind: torch or numpy.
        prefetch: Batches that are read ahead.

    Returns:
        Iterator over the batches.

    Raises:
        StoreError: There is no such kind.
    """
    if kind not in ("torch", "numpy"):
        raise StoreError(f"no batches of kind {kind!r}. {nearest(kind, ('numpy', 'torch'))}")
    read = partial(_read_torch if kind == "torch" else _read_new, results, names)
    return read_ahead(read, spans, prefetch)


def reused_batches(
    results: Results, names: Sequence[str], spans: Iterable[Span], rows: int, out: Buffers
) -> Iterator[Batch]:
    """Read batches into given memory, in turn.

    Args:
        results: Where from.
        names: Datasets and ``point``.
        spans: start, stop of each batch.
        rows: Points that the buffers hold.
        out: One set of buffers, or several.

    Returns:
        Iterator over the batches.
    """
    buffers = [out] if isinstance(out, Mapping) else list(out)
    for each in buffers:
        _require_buffers(results, names, rows, each)
    tasks = zip(spans, cycle(buffers), strict=False)
    return read_ahead(lambda task: _read_into(results, names, *task), tasks, len(buffers) - 1)


def _read_new(results: Results, names: Sequence[str], span: Span) -> Batch:
    start, stop = span
    return {
        name: np.arange(start, stop) if name == POINT else results[name].read(start, stop)
        for name in names
    }


def _read_torch(results: Results, names: Sequence[str], span: Span) -> Batch:
    return to_torch(_read_new(results, names, span))


def _read_into(results: Results, names: Sequence[str], span: Span, out: Mapping[str, Any]) -> Batch:
    start, stop = span
    batch = {name: out[name][: stop - start] for name in names}
    for name, block in batch.items():
        if name == POINT:
            np.asarray(block)[...] = np.arange(start, stop)
        else:
            results[name].read(start, stop, block)
    return batch


def _require_buffers(
    results: Results, names: Sequence[str], rows: int, out: Mapping[str, Any]
) -> None:
    for name in names:
        if name not in out:
            raise StoreError(f"there is no buffer for {name!r}. {nearest(name, out)}")
        shape, dtype = _row(results, name)
        as_numpy(out[name], name, (rows, *shape), dtype)


def _row(results: Results, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if name == POINT:
        return (), np.dtype(np.int64)
    return results[name].shape[1:], results[name].dtype


def to_torch(batch: Mapping[str, NDArray[Any]]) -> Batch:
    """See NumPy arrays as tensors that share their memory.

    Args:
        batch: Name -> array.

    Returns:
        Name -> tensor.
    """
    import torch

    return {name: torch.from_numpy(array) for name, array in batch.items()}


def new_buffers(results: Results, rows: int, names: Sequence[str], pin_memory: bool) -> Batch:
    """Make torch tensors for `reused_batches`.

    Args:
        results: What will be read.
        rows: Points per batch.
        names: Datasets and ``point``; none for all datasets.
        pin_memory: Whether the pages are locked in memory.

    Returns:
        Name -> tensor (rows, …).
    """
    import torch

    buffers = {}
    for name in require_names(results, names):
        shape, dtype = _row(results, name)
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        buffers[name] = torch.empty((rows, *shape), dtype=kind, pin_memory=pin_memory)
    return buffers
