"""The page: an account of the result in words, and its pictures. Needs the extra `report`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray

from pipeline.results.account import facts, sections
from pipeline.results.report.fields import MOST_OUTPUTS, Field, fields
from pipeline.results.report.pictures import (
    Picture,
    curve,
    histogram,
    map_of,
    matrix,
    pattern,
    scatter,
    structure,
)
from pipeline.results.report.quantities import norms, zero_fractions
from pipeline.results.report.selection import MOST_CELLS, Selection, drawn_names, read, select
from pipeline.store.files.commit import committed
from pipeline.store.layout import SPARSE, STATUS
from pipeline.store.reading.reader import Results

FEW = 6  # points that are a table rather than a picture
MOST_LISTED = 100  # points that were not ok
VISIBLE = 0.05  # share of the points at which an entry is zero: less is drawn as black


@dataclass(frozen=True)
class Chapter:
    """A part of the page.

    Attributes:
        title: Its heading.
        words: What is drawn.
        pictures: The pictures.
    """

    title: str
    words: str
    pictures: Sequence[Picture]


def write_report(results: Results, target: Path, points: Sequence[int] = ()) -> None:
    """Write one page that needs nothing else, and no network.

    Args:
        results: Open results.
        target: The file; one that is there is replaced.
        points: Where matrices are drawn; by default at three points with finite derivatives.

    Raises:
        StoreError: The page cannot be written.
    """
    selection = select(results)
    account = facts(results)
    found = fields(results, selection.indices)
    few = len(selection.indices) < FEW
    text = _template().render(
        title=account["result"]["title"],
        sections=sections(account),
        indices=selection.indices.tolist(),
        numbers=found if few else (),
        chapters=list(_chapters(results, selection, () if few else found, points)),
        flagged=list(_flagged(results, selection, account)),
        most=MOST_LISTED,
    )
    target.unlink(missing_ok=True)
    with committed(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _template() -> Any:
    text = files("pipeline.results.report").joinpath("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


def _chapters(
    results: Results, selection: Selection, found: Sequence[Field], points: Sequence[int]
) -> Iterator[Chapter]:
    finite = [field for field in found if np.isfinite(field.values).any()]
    if finite:
        drawn = list(_over_inputs(results, selection, finite))
        yield Chapter("Over the inputs", f"Drawn: {selection.words}.", drawn)
        spread = [histogram(field) for field in finite]
        yield Chapter("Distributions", f"Counted: {selection.words}.", spread)
    where = list(points) or _typical(results, selection)
    yield Chapter("Matrices", "At single points.", list(_matrices(results, where)))
    structures = [
        structure(f"{name.removesuffix(SPARSE)}: pattern", results.sparse(name))
        for name in results.names
        if name.endswith(SPARSE)
    ]
    yield Chapter("Structure", "Of the function, whatever the inputs.", structures)
    patterns = list(_patterns(results, selection))
    if patterns:
        yield Chapter("Zeros", f"Seen at {selection.words}; structure may be sparser.", patterns)


def _over_inputs(
    results: Results, selection: Selection, found: Sequence[Field]
) -> Iterator[Picture]:
    labels, axes = _axis_names(results), selection.axes
    points = read(results, "x", selection.indices)
    if len(axes) == 2:
        first, second = (np.unique(points[:, axis]) for axis in axes)
        names = [labels[axis] for axis in axes]
        if (len(first), len(second)) == selection.shape:
            yield from (map_of(first, second, field, names) for field in found)
            return
    if points.shape[1] == 1 or len(axes) == 1:
        axis = axes[0] if axes else 0
        yield from (curve(points[:, axis], field, labels[axis]) for field in found)
        return
    yield from (scatter(points, field, labels) for field in found)


def _axis_names(results: Results) -> list[str]:
    unit = str(results["x"].attrs.get("units", "1"))
    names = [f"input {name}" if name.isdigit() else name for name in results.names_along("input")]
    units = unit.split(", ")
    units = units if len(units) == len(names) else [unit] * len(names)
    return [
        name if own == "1" else f"{name} ({own})" for name, own in zip(names, units, strict=True)
    ]


def _typical(results: Results, selection: Selection) -> list[int]:
    """The first, the middle and the last of the points with finite derivatives."""
    status = read(results, "status", selection.indices)
    usable = selection.indices[status == STATUS["ok"]]
    if not len(usable):
        usable = selection.indices
    return sorted({int(usable[place]) for place in (0, len(usable) // 2, -1)})


def _matrices(results: Results, points: Sequence[int]) -> Iterator[Picture]:
    for name, labels in _drawable(results):
        for point in points:
            values = results[name][point]
            for title, part in _slices(results, name, values):
                yield matrix(f"{title} at point {point}", part, *labels)


def _patterns(results: Results, selection: Selection) -> Iterator[Picture]:
    for name, labels in _drawable(results):
        fractions = zero_fractions(read(results, name, selection.indices))
        if fractions.ndim == 3:
            fractions = fractions.min(axis=0)
        if fractions.max() > VISIBLE:
            yield pattern(f"{name}: exact zeros", fractions, *labels)


def _drawable(results: Results) -> Iterator[tuple[str, tuple[list[str], list[str]]]]:
    """Datasets whose last two dimensions make a matrix, with the names along these."""
    drawn = drawn_names(results)
    for name in ("jacobian", "hessian"):
        if name not in drawn:
            continue
        array = results[name]
        if len(array.dims) >= 3 and 1 < np.prod(array.shape[-2:]) <= MOST_CELLS:
            rows, columns = (results.names_along(dimension) for dimension in array.dims[-2:])
            yield name, (rows, columns)


def _slices(
    results: Results, name: str, values: NDArray[Any]
) -> Iterator[tuple[str, NDArray[Any]]]:
    if values.ndim == 2:
        yield name, values
    elif len(values) <= MOST_OUTPUTS:
        for label, part in zip(results.names_along("output"), values, strict=True):
            yield f"{name} of output {label}", part
    else:
        over = norms(np.moveaxis(values, 0, -1).reshape(-1, len(values)))
        yield f"{name}: norm over {len(values)} outputs", over.reshape(values.shape[1:])


def _flagged(results: Results, selection: Selection, account: Any) -> Iterator[tuple[Any, ...]]:
    """Points that are not ok, with their place and what is known of them."""
    meanings = {code: word for word, code in STATUS.items()}
    reasons = account["failures"]
    status = read(results, "status", selection.indices)
    known = {int(index) for index in reasons}
    seen = set(selection.indices[status != STATUS["ok"]].tolist())
    for index in sorted(known | seen)[: MOST_LISTED + 1]:
        place = ", ".join(f"{value:.6g}" for value in results["x"][index].tolist()[:8])
        yield index, meanings[int(results["status"][index])], place, reasons.get(str(index), "")
