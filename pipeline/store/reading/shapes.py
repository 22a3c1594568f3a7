"""Datasets in the shapes of the tensors that the function takes and returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipeline.functions.structure import Structure, unflatten

if TYPE_CHECKING:
    from pipeline.store.reading.results import Results


def unflattened(results: Results, name: str, rows: Any = slice(None)) -> Any:
    """Read a dataset in the shapes of the tensors that the function takes and returns.

    Args:
        results: Where it is.
        name: The dataset.
        rows: Which points; all of them by default.

    Returns:
        (N, …) with the dimensions of the tensors in place of flat ones; a mapping of these by
        name where there are several tensors, by (output, input, …) where both have names.
    """
    array = results[name]
    said = json.loads(results.provenance.get("structure_json", "{}"))
    kinds = enumerate(dim.partition("_")[0] for dim in array.dims)
    axes = {axis: Structure.from_record(said[kind]) for axis, kind in kinds if kind in said}
    return unflatten(array[rows], axes)
