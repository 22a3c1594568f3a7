"""Runs in a box whose dimensions are what was swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.arrays.selection import take_outer
from pipeline.store.reading.labelled import (
    Axes,
    Labels,
    Readable,
    coordinates,
    dims_of,
    grid_axes,
    lazy,
    missing_value,
    on_axes,
)
from pipeline.store.reading.results import Results
from pipeline.store.sweeps.runs import Run, follows, needed, place

Opened = Mapping[Run, Results]


class Cells:
    """The same dataset of several runs, one beside the other.

    Args:
        cells: Readables of one shape; None where there is no such run.
    """

    def __init__(self, cells: NDArray[Any]) -> None:
        there: list[Readable] = [cell for cell in cells.reshape(-1).tolist() if cell is not None]
        self.shape = (*cells.shape, *there[0].shape)
        self.dtype = np.result_type(*(cell.dtype for cell in there))
        self._cells = cells

    def outer(self, key: Sequence[Any], fill: Any = None) -> NDArray[Any]:
        """Read what a key asks for whose arrays each select along their own axis.

        Args:
            key: An int, a slice or ints (k,) for every axis.
            fill: What stands where there is no run or no point.

        Returns:
            A new array.
        """
        count = self._cells.ndim
        numbers = np.arange(self._cells.size).reshape(self._cells.shape)
        picked = np.asarray(take_outer(numbers, key[:count]))
        row = take_outer(np.broadcast_to(np.True_, self.shape[count:]), key[count:]).shape
        found = np.full((*picked.shape, *row), fill, self.dtype)
        for index in np.ndindex(picked.shape):
            cell: Readable | None = self._cells.item(int(picked[index]))
            if cell is not None:
                found[index] = cell.outer(key[count:], fill)
        return found


@dataclass(frozen=True)
class Sweep:
    """Runs in a box whose dimensions are what was swept.

    Attributes:
        opened: The runs and their results.
        values: Fact -> its values: what was swept, then `job`.
        axes: Of the grid, where all runs have the same.
        labels: Dimension -> names along it, where all runs have the same.
    """

    opened: Opened
    values: Mapping[str, list[Any]]
    axes: Axes
    labels: Labels

    @classmethod
    def of(cls, opened: Opened, values: Mapping[str, list[Any]], grid: bool | None) -> Sweep:
        """Arrange runs by the values of what was swept."""
        # where precisions differ, the coordinates are those of the finest
        first = max(opened.values(), key=lambda results: results["x"].dtype.itemsize)
        same = all(results.labels == first.labels for results in opened.values())
        labels = first.labels if same else {}
        common = all(follows(name, (), list(opened)) for name in _grid_facts(opened))
        return cls(opened, values, grid_axes(first, grid if common else False, labels), labels)

    @property
    def dims(self) -> list[str]:
        """What was swept, without `job`."""
        return [name for name in self.values if name != "job"]

    @property
    def names(self) -> list[str]:
        """All datasets of all runs."""
        names = dict.fromkeys(name for results in self.opened.values() for name in results.names)
        return [name for name in names if not (self.axes and name == "x")]

    def dims_of(self, name: str) -> list[str]:
        """What was swept and matters for a dataset."""
        having = self._having(name)
        if name == "x":
            return needed([*_grid_facts(self.opened), "dtype"], self.dims, list(self.opened))
        return self.dims if follows("job", self.dims, having) else list(self.values)

    def variable(self, name: str) -> Any:
        """Join a dataset of all runs."""
        dims, having = self.dims_of(name), self._having(name)
        cells = np.full(self._lengths(dims), None, object)
        for run in having:
            cells[self._at(run, dims)] = on_axes(self.opened[run][name], self.axes)
        array, joined = self.opened[having[0]][name], Cells(cells)
        titles = [*map(self.title, dims), *dims_of(array, self.axes)]
        return lazy(titles, joined, array.attrs, missing_value(joined.dtype))

    def missing(self) -> list[str]:
        """Combinations that were not run, in words."""
        found = []
        for name in [name for name in self.names if name not in ("x", "status")]:
            dims = self.dims_of(name)
            there = {place(run, dims) for run in self._having(name)}
            for values in product(*(self.values[dim] for dim in dims)):
                if values not in there:
                    at = ", ".join(
                        f"{dim}={value}" for dim, value in zip(dims, values, strict=True)
                    )
                    found.append(f"{name} of {at}")
        return found

    def coordinates(self) -> dict[str, Any]:
        """Coordinates along what was swept, and along the dimensions of the datasets."""
        found: dict[str, Any] = {}
        for results in self.opened.values():
            found |= coordinates(results, self.axes, self.labels)
        for dim in dict.fromkeys(dim for name in self.names for dim in self.dims_of(name)):
            found[self.title(dim)] = (self.title(dim), np.asarray(self.values[dim]))
        runs = list(self.opened)
        for fact in dict.fromkeys(fact for run in runs for fact in run.facts):
            dims = needed([fact], self.dims, runs)
            if dims and fact not in self.values and not fact.startswith("grid."):
                values = {run: run.facts[fact] for run in runs if fact in run.facts}
                found[self.title(fact)] = self._along(dims, values)
        several = not follows("job", (), runs)
        ids = {run: run.run_id for run in runs}
        return found | {"run_id": self._along(list(self.values) if several else self.dims, ids)}

    def title(self, fact: str) -> str:
        """Name of the dimension of a fact, where datasets and axes leave it free."""
        taken = {*self.axes, "point", "run_id"}
        for results in self.opened.values():
            taken |= {
                *results.names,
                *(dim for name in results.names for dim in results[name].dims),
            }
        return f"{fact}_parameter" if fact in taken else fact

    def _along(self, dims: Sequence[str], values: Mapping[Run, Any]) -> tuple[list[str], Any]:
        numbers = all(isinstance(value, int | float) for value in values.values())
        cells = np.full(self._lengths(dims), np.nan if numbers else "", object)
        for run, value in values.items():
            cells[self._at(run, dims)] = value
        return [self.title(dim) for dim in dims], np.array(cells.tolist())

    def _lengths(self, dims: Sequence[str]) -> list[int]:
        return [len(self.values[dim]) for dim in dims]

    def _at(self, run: Run, dims: Sequence[str]) -> tuple[int, ...]:
        found = zip(dims, place(run, dims), strict=True)
        return tuple(self.values[dim].index(value) for dim, value in found)

    def _having(self, name: str) -> list[Run]:
        return [run for run, results in self.opened.items() if name in results.names]


def _grid_facts(opened: Opened) -> list[str]:
    facts = dict.fromkeys(fact for run in opened for fact in run.facts)
    return [fact for fact in facts if fact.startswith("grid.")]
