"""What an index asks for, as NumPy understands it: the rows to read, and the entries of a row."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = range | NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """The smallest box that holds what an index asks for, and the way from the box to the answer.

    Law of `select`: ``array[index]`` equals ``array[numpy.ix_(*box)][inner]``.

    Attributes:
        box: Ascending positions along each axis, the points first.
        inner: Index into the box.
    """

    box: tuple[Positions, ...]
    inner: tuple[Any, ...]


def select(index: Any, shape: tuple[int, ...]) -> Selection:
    """Take an index apart, as NumPy understands it.

    Args:
        index: Anything that NumPy takes; what does not fit raises what NumPy raises.
        shape: Of what is indexed.

    Returns:
        The selection.
    """
    np.broadcast_to(np.True_, shape)[index]  # slices of it take no memory
    parts = [_normal(part) for part in (index if isinstance(index, tuple) else (index,))]
    box: list[Positions] = []
    inner: list[Any] = []
    for part in _spelled_out(parts, len(shape)):
        if part is None or part is Ellipsis or isinstance(part, bool):
            inner.append(part)
        else:
            positions, within = _along(part, shape[len(box)])
            box.append(positions)
            inner.append(within)
    return Selection(tuple(box), tuple(inner))


def select_outer(key: Sequence[Any], shape: tuple[int, ...]) -> Selection:
    """Take a key apart whose arrays each select along their own axis, as in ``numpy.ix_``.

    Args:
        key: An int, a slice or ints (k,) for every axis.
        shape: Of what is indexed.

    Returns:
        The selection, for `take_outer`.
    """
    parts = [_along(_normal(part), length) for part, length in zip(key, shape, strict=True)]
    return Selection(tuple(part[0] for part in parts), tuple(part[1] for part in parts))


def take_outer(box: NDArray[Any], inner: Sequence[Any]) -> NDArray[Any]:
    """Index each axis of a box by itself.

    Args:
        box: Of any shape.
        inner: An int, a slice or ints (k,) for every axis.

    Returns:
        What is left; an int removes its axis.
    """
    for axis in reversed(range(len(inner))):
        box = box[(slice(None),) * axis + (inner[axis],)]
    return box


def _normal(part: Any) -> Any:
    """An int, a slice, None, Ellipsis, a bool, or an array of some dimensions."""
    if part is None or part is Ellipsis or isinstance(part, slice | bool):
        return part
    array = np.asarray(part)
    if array.ndim == 0:
        return bool(array) if array.dtype == bool else operator.index(part)
    return array.astype(np.intp) if array.size == 0 and not isinstance(part, np.ndarray) else array


def _spelled_out(parts: Sequence[Any], axes: int) -> list[Any]:
    """One part for every axis, beside those that use none; masks become the indices that they hold."""
    wide: list[Any] = []
    for part in parts:
        masks = isinstance(part, np.ndarray) and part.dtype == bool
        wide += part.nonzero() if masks else [part]
    used = sum(
        part is not None and part is not Ellipsis and not isinstance(part, bool) for part in wide
    )
    rest = [slice(None)] * (axes - used)
    places = [place for place, part in enumerate(wide) if part is Ellipsis]
    at = places[0] if places else len(wide)
    # an ellipsis stays: it makes arrays of what would be scalars
    return [*wide[:at], *rest, *wide[at:]]


def _along(part: Any, length: int) -> tuple[Positions, Any]:
    """The ascending positions that are needed of an axis, and the index among them."""
    if isinstance(part, int):
        return range(part % length, part % length + 1), 0
    if isinstance(part, slice):
        positions = range(*part.indices(length))
        if positions.step > 0:
            return positions, slice(None)
        return positions[::-1], slice(None, None, -1)
    wrapped = np.where(part < 0, part + length, part).astype(np.int64)
    unique, inverse = np.unique(wrapped.reshape(-1), return_inverse=True)
    return unique, inverse.reshape(part.shape)


def flat_entries(box: Sequence[Positions], shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """Where the entries of a box lie in a row.

    Args:
        box: Positions along each axis of a row.
        shape: Shape of a row.

    Returns:
        Their indices in the flattened row, in the order of the box; None for the whole row.
    """
    if all(len(positions) == length for positions, length in zip(box, shape, strict=True)):
        return None
    flat = np.zeros((), np.int64)
    for axis, positions in enumerate(box):
        flat = np.add.outer(flat, np.asarray(positions, np.int64) * math.prod(shape[axis + 1 :]))
    return flat.reshape(-1)
