"""Several tensors, of any shape, in one flat row: how it is made and how it is taken apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
Shapes = Shape | Mapping[str, Shape]


@dataclass(frozen=True)
class Structure:
    """Tensors whose entries follow each other in a row.

    Attributes:
        parts: Name and shape of each; one tensor alone needs no name, "".
    """

    parts: tuple[tuple[str, Shape], ...]

    @classmethod
    def of(cls, shapes: Shapes) -> Structure:
        """Make it of a shape, or of names and their shapes."""
        if isinstance(shapes, Mapping):
            return cls(tuple((str(name), tuple(shape)) for name, shape in shapes.items()))
        return cls((("", tuple(shapes)),))

    @property
    def size(self) -> int:
        """Entries of a row."""
        return sum(math.prod(shape) for _, shape in self.parts)

    @property
    def shapes(self) -> Shapes:
        """What `of` makes it of again."""
        return self.parts[0][1] if self.parts[0][0] == "" else dict(self.parts)

    @property
    def is_flat(self) -> bool:
        """A row is what it stands for: one tensor of at most one dimension."""
        return self.parts[0][0] == "" and len(self.parts[0][1]) < 2

    def labels(self, unnamed: str) -> tuple[str, ...]:
        """Name every entry: ``positions[0,1]``, last index fastest.

        Args:
            unnamed: Name of a tensor that has none.

        Returns:
            As many names as the row has entries.

        Examples:
            >>> Structure.of({"r": (1, 2), "q": ()}).labels("x")
            ('r[0,0]', 'r[0,1]', 'q')
        """
        return tuple(
            name for part, shape in self.parts for name in _entries(part or unnamed, shape)
        )

    def split(self, row: Any, axis: int = 0) -> dict[str, Any]:
        """Take an axis of an array or a tensor apart.

        Args:
            row: Of any dimensions; `axis` has the length of a row.
            axis: Which; not negative.

        Returns:
            Name -> part, with the dimensions of the part in place of the axis.
        """
        found = {}
        for (name, shape), place in zip(self.parts, self.places().values(), strict=True):
            piece = row[(slice(None),) * axis + (place,)]
            shapes = (tuple(row.shape[:axis]), shape, tuple(row.shape[axis + 1 :]))
            found[name] = piece.reshape(sum(shapes, ()))
        return found

    def places(self) -> dict[str, slice]:
        """Where the entries of each tensor are in a row."""
        sizes = [math.prod(shape) for _, shape in self.parts]
        ends = list(itertools.accumulate(sizes, initial=0))
        return {
            name: slice(start, stop)
            for (name, _), (start, stop) in zip(self.parts, itertools.pairwise(ends), strict=True)
        }

    def record(self) -> list[list[Any]]:
        """What `from_record` makes it of again: plain values."""
        return [[name, list(shape)] for name, shape in self.parts]

    @classmethod
    def from_record(cls, record: Sequence[Sequence[Any]]) -> Structure:
        """Make it of plain values."""
        return cls(tuple((str(name), tuple(map(int, shape))) for name, shape in record))


def _entries(name: str, shape: Shape) -> list[str]:
    if not shape:
        return [name]
    index = itertools.product(*(range(length) for length in shape))
    return [f"{name}[{','.join(map(str, entry))}]" for entry in index]


def unflatten(array: Any, axes: Mapping[int, Structure]) -> Any:
    """Take several axes of an array or a tensor apart.

    Args:
        array: Of any dimensions.
        axes: Axis -> what lies along it.

    Returns:
        The array in its own dimensions, where every axis holds one tensor without a name; else a
        mapping from names to parts, by a tuple of names where several axes have names.
    """
    parts: dict[tuple[str, ...], Any] = {(): array}
    for axis in sorted(axes, reverse=True):  # the last first: those before keep their places
        parts = {
            (*((name,) if name else ()), *key): piece
            for key, part in parts.items()
            for name, piece in axes[axis].split(part, axis).items()
        }
    if list(parts) == [()]:
        return parts[()]
    return {key[0] if len(key) == 1 else key: part for key, part in parts.items()}
