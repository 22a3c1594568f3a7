"""What a file says of itself: attributes, datasets, names along the dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from pipeline.store.arrays.filled_array import Whole
from pipeline.store.arrays.filled_array import whole as sparse_whole
from pipeline.store.arrays.unpacked_array import whole
from pipeline.store.files.trust import is_rows
from pipeline.store.layout import Dataset
from pipeline.store.packed import packed_index, packed_size
from pipeline.store.parts.part import Content, read_content

INTERNAL = ("CLASS", "DIMENSION_LIST", "NAME", "REFERENCE_LIST")  # of HDF5 dimension scales


@dataclass(frozen=True)
class Header:
    """All that is known of a file before its values are read.

    Attributes:
        attrs: Attributes of the root group.
        content: Which points it holds.
        datasets: Datasets with a row per point, by name, as they are stored.
        wholes: Name of a dataset that is stored without its repetitions -> the whole.
        labels: Dimension -> names along it, where the function's author has given some.
        sparse: Name of a dataset that holds the entries of a pattern -> the whole.
    """

    attrs: Mapping[str, Any]
    content: Content
    datasets: Mapping[str, Dataset]
    wholes: Mapping[str, Dataset]
    labels: Mapping[str, tuple[str, ...]]
    sparse: Mapping[str, Whole] = field(default_factory=dict)


def read_header(file: h5py.File) -> Header:
    """Read what a file says of itself.

    Args:
        file: An open, checked file.

    Returns:
        Its header.
    """
    content = read_content(file.id)
    rows = content.stop - content.start
    stored = {name: file[name] for name in file}
    datasets = {
        name: _describe(name, item)
        for name, item in stored.items()
        if is_rows(item) and item.shape[0] == rows
    }
    labels = {
        name.removesuffix("_name"): tuple(str(label) for label in item.asstr()[()])
        for name, item in stored.items()
        if name in ("input_name", "output_name", "variable_name")
    }
    wholes = {
        name: _whole(file, dataset)
        for name, dataset in datasets.items()
        if dataset.attrs.get("layout") == "packed"
    }
    sparse = {
        name: _sparse(file, dataset)
        for name, dataset in datasets.items()
        if dataset.attrs.get("layout") == "sparse"
    }
    return Header(dict(file.attrs), content, datasets, wholes, labels, sparse)


def _sparse(file: h5py.File, dataset: Dataset) -> Whole:
    axes = str(dataset.attrs["axes"]).split()
    entries = file[dataset.dims[-1]]
    if len(dataset.shape) != 1 or entries.shape != dataset.shape:  # before anything is read
        raise ValueError(
            f"{dataset.name} has {dataset.shape} entries, {entries.shape} are described"
        )
    return sparse_whole(dataset, tuple(len(file[axis]) for axis in axes), entries[()])


def _whole(file: h5py.File, dataset: Dataset) -> Dataset:
    axes = str(dataset.attrs["symmetric"]).split()
    n, order = len(file[axes[0]]), len(axes)
    if dataset.shape[-1:] != (packed_size(n, order),) or not np.array_equal(
        file[dataset.dims[-1]][()], packed_index(n, order)
    ):
        raise ValueError(
            f"{dataset.name} does not hold the distinct entries of {' x '.join(axes)} in order"
        )
    return whole(dataset, n)


def _describe(name: str, stored: h5py.Dataset) -> Dataset:
    dims = tuple(
        scales[0].name.lstrip("/") if len(scales) else ("point" if axis == 0 else f"{name}_{axis}")
        for axis, scales in enumerate(stored.dims)
    )
    attrs = {key: value for key, value in stored.attrs.items() if key not in INTERNAL}
    return Dataset(name, stored.shape[1:], stored.dtype, dims, attrs)
