"""Results as AnnData: points are observations, the entries of one derivative are variables.

The package anndata writes what is small; arrays are copied block by block, with the attributes that its
format asks for (https://anndata.readthedocs.io/en/stable/fileformat-prose.html).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.arrays.gathered_array import GatheredArray
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.layout import STATUS
from pipeline.store.packed import PACKED
from pipeline.store.reading.reader import Results

ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
BLOCK = 16 << 20  # bytes copied at a time


def write_h5ad(results: Results, arrays: Sequence[RowArray], target: Path) -> None:
    """Write an .h5ad file.

    Args:
        results: Open results.
        arrays: What to write. The derivative of the highest order becomes X (N, entries), as it is
            named, with a row of var for each entry; other datasets go to obs where they have one
            number per point, else to obsm. Of sparse matrices uns has the pattern.
        target: The file; made here.

    Raises:
        StoreError: The package anndata is not installed.
    """
    try:
        from anndata import AnnData
        from pandas import Categorical, DataFrame
    except ImportError as error:
        raise StoreError(
            "AnnData is not installed; pip install 'pipeline-derivatives[anndata]'"
        ) from error
    matrix = _highest(results, arrays)
    words = sorted(STATUS, key=STATUS.__getitem__)
    single = {
        array.name: Categorical.from_codes(array[:], words) if array.name == "status" else array[:]
        for array in arrays
        if array.ndim == 1 and array is not matrix
    }
    indices = _indices(results, matrix)
    var = DataFrame(indices, index=_names(results, matrix, indices))
    obs = DataFrame(single, index=[str(point) for point in range(len(results))])
    AnnData(obs=obs, var=var, uns=_unstructured(results, matrix)).write_h5ad(target)
    with h5py.File(target, "r+") as file:
        file.pop("X", None)
        _copy(matrix, file, "X", (len(obs), len(var)))
        for array in arrays:
            if array.ndim > 1 and array is not matrix:
                _copy(array, file, f"obsm/{array.name}", array.shape)


def _highest(results: Results, arrays: Sequence[RowArray]) -> RowArray:
    derivatives = [array for array in arrays if array.name not in ("x", "status")] or arrays
    return max(derivatives, key=lambda array: _order(_whole(results, array)))


def _order(array: RowArray) -> int:
    return sum(dimension != "output" for dimension in array.dims[1:])


def _whole(results: Results, array: RowArray) -> RowArray:
    return results[str(array.attrs.get("whole", array.name.removesuffix(PACKED)))]


def _indices(results: Results, array: RowArray) -> dict[str, NDArray[np.integer[Any]]]:
    """Where the entries of a row lie along each dimension of the whole: dimension -> (entries,)."""
    whole = _whole(results, array)
    if not isinstance(whole, GatheredArray) or whole is array:
        flat, shape, dims = np.arange(math.prod(array.shape[1:])), array.shape[1:], array.dims[1:]
    else:
        shape, dims = whole.shape[1:], whole.dims[1:]
        gathered = math.prod(shape[len(shape) - whole.gathered :])
        leads = np.arange(math.prod(shape) // gathered)[:, None] * gathered
        flat = (leads + whole.entries).ravel()
    return dict(zip(dims, np.unravel_index(flat, shape) if shape else (), strict=True))


def _names(
    results: Results, array: RowArray, indices: Mapping[str, NDArray[np.integer[Any]]]
) -> list[str]:
    name = _whole(results, array).name
    if not indices:
        return [name]
    labels = [results.names_along(dimension) for dimension in indices]
    rows = zip(*(index.tolist() for index in indices.values()), strict=True)
    return [
        f"{name}[{','.join(names[at] for names, at in zip(labels, row, strict=True))}]"
        for row in rows
    ]


def _unstructured(results: Results, array: RowArray) -> dict[str, Any]:
    known: dict[str, Any] = {
        "attrs": {key: str(results.attrs[key]) for key in sorted(results.attrs)},
        "units": {name: str(results[name].attrs.get("units", "1")) for name in results.names},
        "certificate": results.certificate,
        "provenance": results.provenance,
    }
    if array.attrs.get("layout") == "sparse":
        rows = results.sparse(array.name)
        known["pattern"] = rows.pattern()
    return known


def _copy(array: RowArray, file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    made = file.create_dataset(name, shape, array.dtype)
    made.attrs.update(ARRAY)
    rows = max(BLOCK // max(array.row_bytes, 1), 1)
    for start in range(0, len(array), rows):
        stop = min(start + rows, len(array))
        made[start:stop] = array.read(start, stop).reshape(stop - start, *shape[1:])
