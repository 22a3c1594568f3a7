"""Which points of a result are drawn, and how they are read: bounded in memory and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.layout import SPARSE
from pipeline.store.reading.reader import Results

MOST_POINTS = 40_000  # that are drawn
MOST_CELLS = 250_000  # of a matrix that is drawn
MOST_BYTES = 256 << 20  # that are held of one dataset
NEAR = 64 << 10  # bytes between two rows below which they are read together


@dataclass(frozen=True)
class Selection:
    """Points to draw.

    Attributes:
        indices: Their indices, ascending.
        axes: Inputs that the points span as a grid: (), one or two of them.
        shape: Points along these axes.
        words: What was selected, for people.
    """

    indices: NDArray[np.int64]
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    words: str


def select(results: Results) -> Selection:
    """Choose the points of a picture: the grid itself where it is a plane, a slice, or a sample.

    Args:
        results: Open results.

    Returns:
        The selection.
    """
    widest = max(results[name].row_bytes for name in drawn_names(results))
    most = max(min(MOST_POINTS, MOST_BYTES // widest), 100)
    lengths = tuple(len(axis) for axis in results.axes)
    varied = [axis for axis, length in enumerate(lengths) if length > 1][:2]
    if not varied or results.missing():
        return _sample(results, most)
    per_axis = max(int(most ** (1 / len(varied))), 2)
    chosen = [
        _spread(length, per_axis) if axis in varied else np.array([length // 2])
        for axis, length in enumerate(lengths)
    ]
    indices = np.ravel_multi_index(np.ix_(*chosen), lengths).ravel()
    shape = tuple(len(chosen[axis]) for axis in varied)
    return Selection(indices, tuple(varied), shape, _words(len(indices), results, lengths, varied))


def drawn_names(results: Results) -> list[str]:
    """Find the datasets that are drawn: sparse matrices in full, unless they are too large for it.

    Args:
        results: Open results.

    Returns:
        Their names.
    """
    wholes = {name: name.removesuffix(SPARSE) for name in results.names}
    return [
        whole if math.prod(results[whole].shape[1:]) <= MOST_CELLS else name
        for name, whole in wholes.items()
    ]


def read(results: Results, name: str, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
    """Read rows anywhere in a dataset; near ones together.

    Args:
        results: Open results.
        name: Dataset.
        indices: Ascending.

    Returns:
        (len(indices), …).
    """
    array = results[name]
    rows = np.asarray(indices, dtype=np.int64)
    gap = max(NEAR // max(array.row_bytes, 1), 1)
    gaps = np.searchsorted([start for start, _ in results.missing()], rows, side="right")
    apart = (np.diff(rows) > gap) | (np.diff(gaps) > 0)
    groups = np.split(rows, np.flatnonzero(apart) + 1)
    parts = [array.read(int(group[0]), int(group[-1]) + 1)[group - group[0]] for group in groups]
    return np.concatenate(parts)


def _sample(results: Results, most: int) -> Selection:
    missing = results.missing()
    there = results.points - sum(stop - start for start, stop in missing)
    ordinals = _spread(there, most)
    indices = ordinals.copy()
    for start, stop in missing:
        indices[indices >= start] += stop - start
    words = (
        f"all {there} points"
        if len(ordinals) == there
        else f"{most} of {there} points, evenly spaced"
    )
    return Selection(indices, (), (), words)


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Up to `most` of `count` indices, evenly spaced, both ends included."""
    spread: NDArray[np.int64] = np.unique(
        np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
    )
    return spread


def _words(count: int, results: Results, lengths: tuple[int, ...], varied: list[int]) -> str:
    words = (
        f"{count} of {results.points} points of the grid"
        if count < results.points
        else f"all {count} points of the grid"
    )
    fixed = [axis for axis, length in enumerate(lengths) if axis not in varied and length > 1]
    if fixed:
        labels = results.names_along("input")
        places = ", ".join(
            f"{labels[axis]} = {results.axes[axis][lengths[axis] // 2]:.4g}" for axis in fixed
        )
        words += f": the slice at {places}"
    return words
