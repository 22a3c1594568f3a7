"""Results as AnnData: points are observations, the entries of one derivative are variables.

The package anndata writes all that is small; the arrays are copied block by block, with the attributes
of its format (https://anndata.readthedocs.io/en/stable/fileformat-prose.html).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import StoreError
from pipeline.store.layout import STATUS
from pipeline.store.reader import Results
from pipeline.store.row_array import RowArray

ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
TEXTS = ("title", "run_id", "created", "history", "schema")


def write_h5ad(results: Results, arrays: Sequence[RowArray], target: Path) -> None:
    """Write an .h5ad file.

    `X` holds the chosen derivative of the most axes, as it is named (a sparse one by its entries);
    `var` says which entry each column is; what has one number per point is in `obs`, the rest in
    `obsm`; of a sparse one, `uns["pattern"]` is the pattern (m, n).

    Args:
        results: Open results.
        arrays: What to write.
        target: The file; made here.

    Raises:
        StoreError: The package anndata is not installed.
    """
    try:
        from anndata import AnnData
        from pandas import DataFrame
    except ImportError as error:
        raise StoreError(
            "AnnData is not installed; install pipeline-derivatives[anndata]"
        ) from error
    matrix = _matrix(arrays)
    single = {array.name: _column(array) for array in arrays if array.ndim == 1}
    points = [str(point) for point in range(len(results))]
    obs = DataFrame(single, index=points)
    var = DataFrame(_indices(results, matrix), index=list(results.entries_of(matrix.name)))
    AnnData(obs=obs, var=var, uns=_unstructured(results, matrix)).write_h5ad(target)
    with h5py.File(target, "r+") as file:
        file.pop("X", None)
        _copy(matrix, file, "X", (len(matrix), len(var)))
        for array in arrays:
            if array.ndim > 1 and array is not matrix:
                _copy(array, file, f"obsm/{array.name}", array.shape)


def _matrix(arrays: Sequence[RowArray]) -> RowArray:
    derivatives = [array for array in arrays if array.name not in ("x", "status")] or arrays
    return max(reversed(derivatives), key=lambda array: len(_axes(array)))


def _axes(array: RowArray) -> Sequence[str]:
    return str(array.attrs["axes"]).split() if _is_sparse(array) else array.dims[1:]


def _is_sparse(array: RowArray) -> bool:
    return array.attrs.get("layout") == "sparse"
