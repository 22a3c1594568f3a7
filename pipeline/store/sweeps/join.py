"""Joins the runs of a sweep into one xarray dataset along what was swept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import StoreError
from pipeline.store.files.run_directory import RunDirectory
from pipeline.store.reading.labelled import Chunks, labelled
from pipeline.store.reading.reader import open_results
from pipeline.store.reading.results import Results
from pipeline.store.sweeps.box import Opened, Sweep
from pipeline.store.sweeps.runs import Run, choose, find_runs, follows, swept, values_of

if TYPE_CHECKING:
    import xarray

log = logging.getLogger(__name__)


def open_sweep(
    directory: str | Path,
    /,
    *,
    grid: bool | None = None,
    chunks: Chunks = None,
    **select: Any,
) -> xarray.Dataset:
    """Join the runs below a directory into one dataset along the swept parameters, lazily.

    What differs between the runs becomes dimensions, what is the same becomes attributes. Where a
    combination was not run, or points are still missing, there is NaN, and status 0; the attributes
    `missing` and `unfinished` list them.

    Args:
        directory: Such as ``outputs``; every ``run.json`` below it is a run.
        grid: Whether the points lie along the axes of a product grid; None: where they are known
            and common to all runs.
        chunks: For dask, as in ``Dataset.chunk``; None: without dask.
        **select: Only the runs with these facts: function, job, dtype, source, a parameter, or
            ``grid.<option>``.

    Returns:
        The dataset.

    Raises:
        StoreError: There is no such run, or the runs have nothing in common that could be joined.
    """
    place = Path(directory)
    runs = choose(find_runs(place), select, place)
    dims = swept(runs, place)
    opened, unfinished = _open(runs, place)
    _require_same_shapes(opened, dims, place)
    sweep = Sweep.of(opened, {name: values_of(name, runs) for name in [*dims, "job"]}, grid)
    attrs = {**_common(opened), "missing": sweep.missing(), "unfinished": unfinished}
    for what in ("missing", "unfinished"):
        if attrs[what]:
            log.warning("%s: %d %s: %s", place, len(attrs[what]), what, "; ".join(attrs[what][:3]))
    variables = {name: sweep.variable(name) for name in sweep.names}
    return labelled(variables, sweep.coordinates(), attrs, partial(_close, opened), chunks)


def _close(opened: Opened) -> None:
    for results in opened.values():
        results.close()


def _open(runs: Sequence[Run], place: Path) -> tuple[dict[Run, Results], list[str]]:
    opened: dict[Run, Results] = {}
    unfinished = []
    for run in runs:
        directory = RunDirectory(run.path)
        if not directory.result.is_file() and not directory.finished_shards():
            unfinished.append(f"{run.path}: no shard is there yet")
            continue
        results = opened[run] = open_results(run.path)
        lost = sum(stop - start for start, stop in results.missing())
        if lost:
            unfinished.append(f"{run.path}: {lost} of {results.points} points are missing")
    if not opened:
        raise StoreError(
            f"none of the {len(runs)} runs below {place} has a shard yet; wait, or run them again"
        )
    return opened, unfinished


def _require_same_shapes(opened: Opened, dims: Sequence[str], place: Path) -> None:
    """Refuse runs whose datasets cannot lie beside each other."""
    first: dict[str, tuple[Run, tuple[int, ...]]] = {}
    for run, results in opened.items():
        for name in results.names:
            other, shape = first.setdefault(name, (run, results[name].shape))
            if shape != results[name].shape:
                differ = [dim for dim in dims if run.facts.get(dim) != other.facts.get(dim)]
                said = " and ".join(
                    f"{each} for " + ", ".join(f"{dim}={of.facts.get(dim)!r}" for dim in differ)
                    for each, of in ((shape, other), (results[name].shape, run))
                )
                raise StoreError(
                    f"the runs below {place} cannot be joined, {name} has shape {said}; select some of them, "
                    f"e.g. open_sweep({str(place)!r}, **{{{differ[0]!r}: {run.facts.get(differ[0])!r}}})"
                )


def _common(opened: Opened) -> dict[str, Any]:
    """What is the same in all runs."""
    runs = list(opened)
    facts = dict.fromkeys(fact for run in runs for fact in run.facts)
    same = {fact: runs[0].facts[fact] for fact in facts if follows(fact, (), runs)}
    first, *others = (results.attrs for results in opened.values())
    shared = {
        key: value
        for key, value in first.items()
        if all(other.get(key) == value for other in others)
    }
    return {**shared, **same}
