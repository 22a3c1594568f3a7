"""The one place with names, shapes, attributes and the schema version of the files."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.job import Storage
from pipeline.store.packed import PACKED, packed_dimension, packed_index, packed_size

SCHEMA = "pipeline-derivatives/1"
STATUS = {"missing": 0, "ok": 1, "nonfinite": 2, "failed": 3, "nonsmooth": 4}
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable. %10d"
KNOWN = "shards"  # group of a result with what it knows of them
GROUPS = ("provenance", "certificate", "grid", "checksums", KNOWN)
SPARSE = "_sparse"  # at the end of the name of a dataset
ORDINALS = {1: "first", 2: "second", 3: "third"}


@dataclass(frozen=True)
class Contracted:
    """How a sum over entries of a derivative looks.

    Attributes:
        outputs: Whether it has the outputs of the function.
        axes: Number of its axes along the variables.
        words: What it is.
        dimension: Name of its last axis, as long as these, where that does not run along them.
    """

    outputs: bool
    axes: int
    words: str
    dimension: str = ""


WEIGHTED = "M^-1/2 H M^-1/2 with M = diag(masses)"
CONTRACTED = {
    "jvp": Contracted(True, 0, "jvp: derivative along the tangent"),
    "vjp": Contracted(False, 1, "vjp: first derivative of the outputs weighted by the cotangent"),
    "hvp": Contracted(True, 1, "hvp: second derivative along the tangent"),
    "hessian_diagonal": Contracted(True, 1, "hessian_diagonal: second derivative by each variable"),
    "laplacian": Contracted(True, 0, "laplacian: sum of the second derivatives by each variable"),
    "divergence": Contracted(False, 0, "divergence: sum of output i by variable i"),
    "eigenvalues": Contracted(True, 0, "eigenvalues of the second derivative, ascending", "mode"),
    "eigenvectors": Contracted(
        True, 1, "eigenvectors of the second derivative, orthonormal, in columns", "mode"
    ),
}


@dataclass(frozen=True)
class Dataset:
    """One dataset with a row per point.

    Attributes:
        name: Its name in the file.
        shape: Shape of one row.
        dtype: NumPy dtype.
        dims: Names of all dimensions, `point` first.
        attrs: Its attributes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    attrs: Mapping[str, Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which entries of derivatives are stored.

    Attributes:
        order: Of the derivatives.
        shape: (m, n), or more indices.
        entries: Where each entry lies in the flattened derivative, ascending, (nnz,).
    """

    order: int
    shape: tuple[int, ...]
    entries: NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """What a file of derivatives holds.

    Attributes:
        n: Number of variables of the derivatives: the columns of x, unless `columns` says otherwise.
        output_shape: () or (m,).
        operators: (name, order) of each dataset of derivatives.
        dtype: float64 or float32, of points and derivatives.
        evaluated: In which precision the function was evaluated, where that is less than dtype.
        title: What the file is, for people.
        input_names: Name of each input, or empty.
        output_names: Name of each output, or empty.
        input_units: Unit of the inputs.
        output_units: Unit of the value.
        storage: How the datasets lie on disk.
        directions: Entries of the direction of each point, and whether they belong to the outputs
            (output) or to what is differentiated (variable); None where no point has its own.
        columns: Number of columns of x, where these are not what is differentiated; the derivatives
            then have dimensions `variable`, `variable_2`, … in place of `input`, `input_2`, …
        variable_names: Name of each variable, or empty.
        pattern: Entries that are stored of the highest derivatives; None for all.
        masses: What weights the Hessian of the eigenvalues, one for each variable, or nothing.
    """

    n: int
    output_shape: tuple[int, ...]
    operators: tuple[tuple[str, int], ...]
    dtype: str
    title: str
    input_names: Sequence[str] = ()
    output_names: Sequence[str] = ()
    input_units: str = "1"
    output_units: str = "1"
    storage: Storage = field(default_factory=Storage)
    columns: int | None = None
    variable_names: Sequence[str] = ()
    directions: tuple[int, str] | None = None
    pattern: Pattern | None = None
    masses: Sequence[float] = ()
    evaluated: str = ""

    @property
    def dimensions(self) -> dict[str, int]:
        """Length of every dimension but `point`."""
        inputs = {"input": self.columns} if self.columns is not None else {}
        inputs |= dict.fromkeys(self.axes(self._longest), self.n)
        forms = (CONTRACTED.get(name) for name, _ in self.operators)
        inputs |= {form.dimension: self.n for form in forms if form and form.dimension}
        return {**inputs, **({"output": self.output_shape[0]} if self.output_shape else {})}

    @property
    def packed_orders(self) -> tuple[int, ...]:
        """Orders of the derivatives that are stored without their repetitions."""
        if self.storage.symmetric != "packed":
            return ()
        sparse = None if self.pattern is None else self.pattern.order
        wholes = {order for name, order in self.operators if name not in CONTRACTED} - {sparse}
        return tuple(sorted(order for order in wholes if order > 1))

    def datasets(self) -> tuple[Dataset, ...]:
        """All datasets with a row per point: x, the derivatives, status."""
        x_attrs = {"units": self.input_units, "long_name": "points", "layout": "dense"}
        length = self.n if self.columns is None else self.columns
        x = Dataset("x", (length,), np.dtype(self.dtype), ("point", "input"), x_attrs)
        derivatives = [self._derivative(name, order) for name, order in self.operators]
        status = Dataset("status", (), np.dtype("u1"), ("point",), _status_attrs())
        numbers = (x, *self._direction(), *derivatives)
        if self.evaluated:
            numbers = tuple(
                replace(each, attrs={**each.attrs, "evaluated_in": self.evaluated})
                for each in numbers
            )
        return (*numbers, status)

    def _direction(self) -> tuple[Dataset, ...]:
        if self.directions is None:
            return ()
        size, belongs = self.directions
        along = "output" if belongs == "output" else self._along
        attrs = {"units": "1", "long_name": "direction of each point", "layout": "dense"}
        return (Dataset("direction", (size,), np.dtype(self.dtype), ("point", along), attrs),)

    def row_bytes(self) -> int:
        """Bytes of one point in all datasets."""
        return sum(dataset.row_bytes for dataset in self.datasets())

    def _derivative(self, name: str, order: int) -> Dataset:
        form = CONTRACTED.get(name) or Contracted(True, order, _words(name, order, self._along))
        inputs = (*self.axes(form.axes), *([form.dimension] if form.dimension else []))
        outputs = self.output_shape if form.outputs else ()
        attrs = self._described(name, form, order)
        if form.axes > 1:
            attrs["symmetric"] = " ".join(inputs)
        dtype, dims = np.dtype(self.dtype), ("point", *["output"] * len(outputs))
        if self.pattern is not None and form.axes == order == self.pattern.order:
            attrs |= {"layout": "sparse", "whole": name, "axes": " ".join((*dims[1:], *inputs))}
            count = (len(self.pattern.entries),)
            return Dataset(
                f"{name}{SPARSE}", count, dtype, ("point", sparse_dimension(order)), attrs
            )
        if form.axes not in self.packed_orders:
            shape = outputs + (self.n,) * len(inputs)
            return Dataset(name, shape, dtype, (*dims, *inputs), attrs)
        attrs["layout"], shape = "packed", (*outputs, packed_size(self.n, order))
        return Dataset(f"{name}{PACKED}", shape, dtype, (*dims, packed_dimension(order)), attrs)

    def _described(self, name: str, form: Contracted, order: int) -> dict[str, Any]:
        """What is said of a derivative, however it is stored."""
        attrs: dict[str, Any] = {
            "units": _units(self.output_units, self.input_units, order),
            "long_name": form.words,
            "layout": "dense",
        }
        if name == "eigenvectors":
            attrs["units"] = "1"
        if form.dimension and self.masses:
            attrs["long_name"] = form.words.replace("the second derivative", WEIGHTED)
            attrs["masses"] = np.asarray(self.masses, dtype="f8")
        if name == "eigenvalues" and self.masses:
            attrs["units"] = f"{attrs['units']} (mass)-1".removeprefix("1 ")
        return attrs

    @property
    def _longest(self) -> int:
        """Most axes along the variables that a dataset has, at least one."""
        forms = ((CONTRACTED.get(name), order) for name, order in self.operators)
        return max(1, *(order if form is None else form.axes for form, order in forms))

    @property
    def _along(self) -> str:
        return "input" if self.columns is None else "variable"

    def axes(self, order: int) -> tuple[str, ...]:
        """Dimensions along the variables of a derivative of this order."""
        more = (f"{self._along}_{axis}" for axis in range(2, order + 1))
        return (self._along, *more)[:order]


def sparse_dimension(order: int) -> str:
    """Name of the dimension along the entries of a pattern of derivatives of an order."""
    return f"sparse_{order}"


def _units(output: str, inputs: str, order: int) -> str:
    if order == 0 or inputs == "1":
        return output
    return f"{output} ({inputs})-{order}" if output != "1" else f"({inputs})-{order}"


def _words(name: str, order: int, along: str) -> str:
    if order == 0:
        return "value of the function"
    ordinal = ORDINALS.get(order, f"{order}th")
    return f"{string.capwords(name.split('_')[0]).lower()}: {ordinal} derivative with respect to the {along}s"


def _status_attrs() -> dict[str, Any]:
    return {
        "long_name": "status of the point",
        "flag_values": np.array(list(STATUS.values()), dtype="u1"),
        "flag_meanings": " ".join(STATUS),
    }


def create_dimensions(file: h5py.File, layout: Layout, points: int) -> None:
    """Write the dimension scales and the names along them.

    Args:
        file: A file that is open for writing.
        layout: What the file will hold.
        points: Length of the dimension `point`.
    """
    # never written, so it takes no storage
    scale = file.create_dataset("point", shape=(points,), dtype=">f4")
    scale.make_scale(NO_VARIABLE % points)
    for name, length in layout.dimensions.items():
        axis = file.create_dataset(name, data=np.arange(length, dtype="i4"))
        axis.attrs["long_name"] = f"index of the {name.split('_')[0]}"
        axis.make_scale(name)
    for order in layout.packed_orders:
        name, entries = packed_dimension(order), packed_index(layout.n, order)
        axis = file.create_dataset(name, data=entries)
        # CF, section 8.2, lossless compression by gathering
        axis.attrs["compress"] = " ".join(layout.axes(order))
        axis.attrs["long_name"] = "entries with ascending indices: where they lie in the whole"
        axis.make_scale(name)
    if layout.pattern is not None:
        _describe_pattern(file, layout, layout.pattern)
    for kind, names in (
        ("input", layout.input_names), ("output", layout.output_names), ("variable", layout.variable_names),
    ):  # fmt: skip
        if names:
            labels = file.create_dataset(
                f"{kind}_name", data=list(names), dtype=h5py.string_dtype()
            )
            labels.attrs["long_name"] = f"name of the {kind}"
            labels.dims[0].attach_scale(file[kind])


def _describe_pattern(file: h5py.File, layout: Layout, pattern: Pattern) -> None:
    axes = layout.axes(pattern.order)
    name, n = sparse_dimension(pattern.order), pattern.shape[-1]
    axis = file.create_dataset(name, data=pattern.entries)
    # CF, section 8.2, lossless compression by gathering
    axis.attrs["compress"] = " ".join(axes if layout.output_shape == () else ("output", *axes))
    axis.attrs["long_name"] = "entries that can be other than zero: where they lie in the whole"
    axis.make_scale(name)
    where = {"shape": np.array(pattern.shape)}
    if len(pattern.shape) > 2:
        where["coordinates"] = np.stack(np.unravel_index(pattern.entries, pattern.shape))
    else:
        where["indptr"] = np.searchsorted(pattern.entries, np.arange(pattern.shape[0] + 1) * n)
        where["indices"] = pattern.entries % n
    write_group(file, "sparsity", where)


def describe_dataset(file: h5py.File, dataset: Dataset) -> None:
    """Attach dimensions and attributes to a dataset that has been created.

    Args:
        file: A file that is open for writing, with its dimensions.
        dataset: Which dataset.
    """
    stored = file[dataset.name]
    for axis, dimension in enumerate(dataset.dims):
        stored.dims[axis].attach_scale(file[dimension])
    stored.attrs.update(dataset.attrs)


def write_root(file: h5py.File, layout: Layout, attrs: Mapping[str, Any]) -> None:
    """Write the attributes of the root group.

    Args:
        file: A file that is open for writing.
        layout: What the file holds.
        attrs: Further attributes: run_id, start, stop, created, history.
    """
    file.attrs.update({"Conventions": "CF-1.11", "title": layout.title, "schema": SCHEMA, **attrs})


def write_group(file: h5py.File, name: str, entries: Mapping[str, Any]) -> None:
    """Write named values: texts as string datasets, since attributes hold 64 KB at most.

    Args:
        file: A file that is open for writing.
        name: Name of the group.
        entries: Texts, numbers and arrays.
    """
    group = file.require_group(name)
    for key, value in entries.items():
        if isinstance(value, str):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        else:
            group.create_dataset(key, data=value)


def read_group(file: h5py.File, name: str, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """Read what `write_group` wrote.

    Args:
        file: An open file.
        name: Name of the group.
        keys: Which entries; None for all.

    Returns:
        Texts, numbers and arrays by name; nothing where there is no such group.
    """
    entries: dict[str, Any] = {}
    group = file.get(name, {})
    for key in group if keys is None else keys:
        value = group[key][()]
        entries[key] = (
            value.decode()
            if isinstance(value, bytes)
            else value.item()
            if value.ndim == 0
            else value
        )
    return entries
