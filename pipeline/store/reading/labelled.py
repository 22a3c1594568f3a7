"""Results as xarray datasets: named dimensions, coordinates, nothing read before it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.arrays.selection import flat_entries, select_outer, take_outer

try:
    import xarray
    from xarray.backends import BackendArray
    from xarray.core import indexing
except ImportError as error:
    raise StoreError(
        f"xarray is needed and not installed ({error}); pip install 'pipeline-derivatives[xarray]'"
    ) from error

if TYPE_CHECKING:
    from pipeline.store.arrays.row_array import RowArray
    from pipeline.store.arrays.sparse_values import SparseValues
    from pipeline.store.reading.results import Results

Axes = Mapping[str, NDArray[Any]]  # dimension -> its coordinates
Labels = Mapping[str, tuple[str, ...]]
Chunks = Mapping[str, int] | str | None


class Readable(Protocol):
    """Something on disk of which xarray can have parts.

    Attributes:
        shape: Of the whole.
        dtype: NumPy dtype.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def outer(self, key: Sequence[Any], fill: Any = None) -> NDArray[Any]:
        """Read what a key asks for whose arrays each select along their own axis."""
        ...


class OnGrid:
    """A stored array whose points lie along the axes of a product grid, the first one slowest.

    Args:
        array: (N, …).
        lengths: Of the axes; N is their product.
    """

    def __init__(self, array: RowArray, lengths: tuple[int, ...]) -> None:
        self.shape, self.dtype = (*lengths, *array.shape[1:]), array.dtype
        self._array, self._lengths = array, lengths

    def outer(self, key: Sequence[Any], fill: Any = None) -> NDArray[Any]:
        """Read what a key asks for whose arrays each select along their own axis.

        Args:
            key: An int, a slice or ints (k,) for every axis.
            fill: Value of points that have not been computed; None: they are an error.

        Returns:
            A new array.
        """
        axes = len(self._lengths)
        along = select_outer(key[:axes], self._lengths)
        rows = flat_entries(along.box, self._lengths)
        found = self._array.outer((slice(None) if rows is None else rows, *key[axes:]), fill)
        box = found.reshape(*map(len, along.box), *found.shape[1:])
        return take_outer(box, along.inner)


class _Lazy(BackendArray):
    """Reads when xarray needs values."""

    def __init__(self, source: Readable, fill: Any) -> None:
        self.shape, self.dtype = source.shape, source.dtype
        self._source, self._fill = source, fill

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self._read(key.tuple)  # the adapter fails at empty slices with a negative step
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return self._source.outer(key, self._fill)


def lazy(dims: Sequence[str], source: Readable, attrs: Mapping[str, Any], fill: Any) -> Any:
    """Make a variable whose values are read when they are needed.

    Args:
        dims: Its dimensions.
        source: Where the values are.
        attrs: Its attributes.
        fill: Value of what has not been computed; None: it is an error.

    Returns:
        An ``xarray.Variable``.
    """
    return xarray.Variable(dims, indexing.LazilyIndexedArray(_Lazy(source, fill)), dict(attrs))


def missing_value(dtype: np.dtype[Any]) -> Any:
    """What stands where nothing has been computed: NaN, or 0, which is the status `missing`."""
    return np.nan if dtype.kind == "f" else 0


def open_labelled(
    results: Results, grid: bool | None, chunks: Chunks, fill_missing: bool
) -> xarray.Dataset:
    """Open results as an xarray dataset.

    Args:
        results: Which.
        grid: Whether the points lie along the axes of the grid; None: where they are known.
        chunks: For dask; None: without.
        fill_missing: Whether points that have not been computed are NaN.

    Returns:
        The dataset; nothing but coordinates has been read.

    Raises:
        StoreError: Points are missing.
    """
    if results.missing() and not fill_missing:
        raise StoreError(
            f"{results.path} is not finished; run the same command again, then open it, or give "
            "fill_missing=True"
        )
    axes = grid_axes(results, grid, results.labels)
    variables = {}
    for name in [name for name in results.names if not (axes and name == "x")]:
        array = results[name]
        fill = missing_value(array.dtype) if fill_missing else None
        variables[name] = lazy(dims_of(array, axes), on_axes(array, axes), array.attrs, fill)
    coords = coordinates(results, axes, results.labels)
    return labelled(variables, coords, results.attrs, results.close, chunks)


def labelled(
    variables: Mapping[str, Any],
    coords: Mapping[Any, Any],
    attrs: Mapping[str, Any],
    close: Callable[[], None],
    chunks: Chunks,
) -> xarray.Dataset:
    """Put variables together.

    Args:
        variables: By name.
        coords: Of their dimensions.
        attrs: Of the whole.
        close: Closes the files behind them.
        chunks: As in ``Dataset.chunk``; None: no dask.

    Returns:
        The dataset.
    """
    dataset = xarray.Dataset(variables, coords, attrs)
    dataset.set_close(close)
    return chunked(dataset, chunks)


def chunked(dataset: xarray.Dataset, chunks: Chunks) -> xarray.Dataset:
    """Give a dataset to dask.

    Args:
        dataset: Any.
        chunks: As in ``Dataset.chunk``; None: not.

    Returns:
        The dataset, of dask arrays.

    Raises:
        StoreError: dask is not there.
    """
    if chunks is None:
        return dataset
    try:
        return dataset.chunk(chunks)
    except ImportError as error:
        raise StoreError(f"chunks= needs dask ({error}); pip install dask") from error


def grid_axes(results: Results, wanted: bool | None, labels: Labels) -> Axes:
    """Name the axes of a product grid after the inputs.

    Args:
        results: Which.
        wanted: Whether there have to be some; None: where they are known.
        labels: Dimension -> names along it.

    Returns:
        Dimension -> its coordinates, of the dtype of the points; none where the grid has no axes.

    Raises:
        StoreError: There are none, or they do not make the points.
    """
    found = results.axes if wanted is not False else ()
    if wanted and not found:
        raise StoreError(
            f"{results.path}: the axes of the grid {results.grid.get('name')!r} are not known; leave grid= out"
        )
    lengths = [len(axis) for axis in found]
    count = results["x"].shape[1]
    if found and (math.prod(lengths) != results.points or len(found) != count):
        raise StoreError(
            f"{results.path}: axes of {lengths} points do not make {results.points} points of {count} "
            "inputs; give grid=False"
        )
    axes = [axis.astype(results["x"].dtype) for axis in found]
    return dict(zip(_axis_names(results, len(axes), labels), axes, strict=True))


def _axis_names(results: Results, count: int, labels: Labels) -> list[str]:
    given = labels.get("input", ())
    names = given if len(set(given)) == count else [f"x{i}" for i in range(1, count + 1)]
    taken = {*results.names, *(dim for name in results.names for dim in results[name].dims)}
    return [f"{name}_axis" if name in taken else name for name in names]


def dims_of(array: RowArray, axes: Axes) -> tuple[str, ...]:
    """Dimensions of a dataset, those of the grid in place of the points."""
    return (*axes, *array.dims[1:]) if axes else array.dims


def on_axes(array: RowArray, axes: Axes) -> Readable:
    """See a dataset along the axes of the grid, where there are some."""
    return OnGrid(array, tuple(len(axis) for axis in axes.values())) if axes else array


def coordinates(results: Results, axes: Axes, labels: Labels) -> dict[str, Any]:
    """Coordinates along all dimensions but `point`.

    Args:
        results: Which.
        axes: Of the grid.
        labels: Dimension -> names along it.

    Returns:
        Name -> coordinate: values of the axes, names of inputs and outputs, or their numbers.
    """
    attrs = {"units": results["x"].attrs.get("units", "1"), "long_name": "axis of the grid"}
    found: dict[str, Any] = {name: (name, axis, attrs) for name, axis in axes.items()}
    for name in results.names:
        array = results[name]
        for dim, length in zip(array.dims[1:], array.shape[1:], strict=True):
            if array.attrs.get("layout") == "sparse":
                along = str(array.attrs["axes"]).split()
                found |= _of_entries(results.sparse(name), dim, along)
                continue
            names = labels.get(dim.split("_")[0], ())
            found[dim] = (dim, np.asarray(names) if len(names) == length else np.arange(length))
    return found


def _of_entries(sparse: SparseValues, dim: str, axes: list[str]) -> dict[str, Any]:
    """Indices of each entry of a pattern, and where it lies in the flattened derivative."""
    places = sparse.coordinates
    flat = np.ravel_multi_index(places, sparse.shape[1:])
    names = ["row", "column"] if len(places) == 2 else [f"{axis}_index" for axis in axes]
    return {dim: (dim, flat), **{name: (dim, at) for name, at in zip(names, places, strict=True)}}
