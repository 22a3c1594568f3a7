"""Names along the dimensions of a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.store.arrays.gathered_array import GatheredArray
from pipeline.store.arrays.row_array import RowArray


def names_along(
    dimension: str, labels: Mapping[str, Sequence[str]], arrays: Mapping[str, RowArray]
) -> list[str]:
    """Name the positions along a dimension.

    Args:
        dimension: E.g. input_2, which has the names of input.
        labels: Dimension -> names along it, where they are known.
        arrays: The datasets of a result.

    Returns:
        Names where there are some, else numbers; both axes, ``i,j``, along the entries of matrices.
    """
    for array in arrays.values():
        if isinstance(array, GatheredArray) and array.stored.dims[-1] == dimension:
            axes = [names_along(name, labels, arrays) for name in array.dims[-array.gathered :]]
            return [",".join(names) for names in _at(axes, array)]
    known = labels.get(dimension) or labels.get(dimension.partition("_")[0])
    if known:
        return list(known)
    lengths = (
        array.shape[array.dims.index(dimension)]
        for array in arrays.values()
        if dimension in array.dims
    )
    return [str(index) for index in range(next(lengths, 0))]


def _at(axes: Sequence[Sequence[str]], array: GatheredArray) -> Iterator[tuple[str, ...]]:
    indices = np.unravel_index(array.entries, array.shape[-array.gathered :])
    columns = ([names[at] for at in index] for names, index in zip(axes, indices, strict=True))
    return zip(*columns, strict=True)
