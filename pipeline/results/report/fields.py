"""The numbers of a result that have one value per point, each with its name and its scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.results.report.quantities import condition_numbers, eigenvalues, norms
from pipeline.results.report.selection import drawn_names, read
from pipeline.store.reading.reader import Results

MOST_OUTPUTS = 4  # that are drawn one by one
LONGEST_UNIT = 24  # that fits beside a picture


@dataclass(frozen=True)
class Field:
    """One number per point.

    Attributes:
        name: What it is.
        values: (B,).
        unit: Of the values, or nothing.
        signed: It has a sign, and zero is a place of its own.
        ratio: It is a ratio, which belongs on a logarithmic scale.
    """

    name: str
    values: NDArray[np.float64]
    unit: str = ""
    signed: bool = False
    ratio: bool = False


def fields(results: Results, indices: NDArray[np.int64]) -> list[Field]:
    """Everything that is drawn over points.

    Args:
        results: Open results.
        indices: Of points, ascending.

    Returns:
        In the order of the derivatives.
    """
    found: list[Field] = []
    for name in drawn_names(results):
        if name in ("x", "status"):
            continue
        rows = read(results, name, indices)
        unit = str(results[name].attrs.get("units", "1"))
        short = unit != "1" and len(unit) <= LONGEST_UNIT
        found += _fields_of(results, name, rows, unit if short else "")
    order = ("value", "gradient", "jacobian", "hessian")
    return sorted(found, key=lambda field: _rank(field.name, order))


def _fields_of(results: Results, name: str, rows: NDArray[Any], unit: str) -> Iterator[Field]:
    vector = "output" in results[name].dims
    if name == "value":
        yield from _values(results, rows, unit)
    elif name == "hessian" and not vector:
        yield from _spectrum(rows, unit)
    elif name == "eigenvalues" and not vector:
        yield from _extremes("eigenvalues", rows.astype(np.float64), unit)
    elif rows[0].size == 1:
        yield Field(name, rows.reshape(-1).astype(np.float64), unit, signed=True)
    else:
        yield Field(f"{name}: norm", norms(rows), unit)


def _values(results: Results, rows: NDArray[Any], unit: str) -> Iterator[Field]:
    if rows.ndim == 1:
        yield Field("value", rows.astype(np.float64), unit)
    elif rows.shape[1] > MOST_OUTPUTS:
        yield Field("value: norm over outputs", norms(rows), unit)
    else:
        for column, label in enumerate(results.names_along("output")):
            yield Field(f"value of output {label}", rows[:, column].astype(np.float64), unit)


def _spectrum(rows: NDArray[Any], unit: str) -> Iterator[Field]:
    yield from _extremes("hessian", eigenvalues(rows), unit)


def _extremes(name: str, spectrum: NDArray[np.float64], unit: str) -> Iterator[Field]:
    """What a spectrum (B, n), ascending, says in one number per point."""
    if spectrum.shape[1] == 1:
        yield Field(name, spectrum[:, 0], unit, signed=True)
        return
    yield Field(f"{name}: smallest eigenvalue", spectrum[:, 0], unit, signed=True)
    yield Field(f"{name}: largest eigenvalue", spectrum[:, -1], unit, signed=True)
    yield Field(f"{name}: condition number", condition_numbers(spectrum), ratio=True)


def _rank(name: str, order: tuple[str, ...]) -> tuple[int, str]:
    first = name.partition(":")[0].partition(" ")[0]
    return (order.index(first) if first in order else len(order), "")
