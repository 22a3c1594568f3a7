"""What the files of a run hold: names and shapes, attributes, the grid."""

from __future__ import annotations

import json
from typing import Any

from pipeline.autograd.functions.variable import WHOLE
from pipeline.autograd.pattern import Pattern
from pipeline.display import spell_points
from pipeline.grids.directed import Directed
from pipeline.runs.provenance import now
from pipeline.runs.work import Work
from pipeline.store import layout

LONGEST_AXES = 100_000  # points on all axes together that a file still holds
MOST_NAMES = 10_000  # of variables that a file still holds, one by one


def layout_of(work: Work) -> layout.Layout:
    """Names, shapes and dtypes of the files of a run."""
    function, record = work.function, work.function.function
    wanted = ", ".join(operator.name for operator in work.operators)
    n, is_whole = work.variable.size(function.n), work.variable is WHOLE
    names = () if is_whole or n > MOST_NAMES else work.variable.names(function.input_names)
    return layout.Layout(
        n=n,
        columns=None if is_whole else function.n,
        output_shape=function.output_shape,
        operators=tuple((operator.name, operator.order) for operator in work.operators),
        dtype=work.precision.kept_name,
        evaluated=work.precision.name if work.precision.is_half else "",
        title=f"{wanted} of {record.name} at {spell_points(len(work.grid))}",
        input_names=function.input_names,
        variable_names=names,
        output_names=function.output_names,
        input_units=record.input_units,
        output_units=record.output_units,
        storage=work.job.storage,
        directions=_directions(work),
        masses=work.masses,
        pattern=_stored(work.pattern, len(function.output_shape)),
    )


def _directions(work: Work) -> tuple[int, str] | None:
    """Size of the directions that are stored with the points, and what they run along."""
    if not isinstance(work.grid, Directed) or work.grid.common is not None:
        return None
    across = any(operator.name == "vjp" for operator in work.operators)
    return work.grid.directions.n, "output" if across else "variable"


def attrs_of(work: Work, start: int, stop: int) -> dict[str, Any]:
    """Root attributes of a file with the points start … stop - 1."""
    time = now()
    command = work.job.config.get("command", "pipeline.run")
    return {
        "run_id": work.run_id,
        "start": start,
        "stop": stop,
        "created": time,
        "history": f"{time} {command}",
    }


def grid_of(work: Work) -> dict[str, Any]:
    """What a file says of the grid: its spec, and the axes of a product grid."""
    axes = (work.grid.axes if sum(work.grid.shape) <= LONGEST_AXES else None) or ()
    spec: dict[str, Any] = {"spec_json": json.dumps(dict(work.grid.spec), sort_keys=True)}
    common = work.grid.common if isinstance(work.grid, Directed) else None
    if common is not None:
        spec["direction"] = common.numpy()
    return spec | {f"axis_{column}": axis.numpy() for column, axis in enumerate(axes, 1)}


def _stored(pattern: Pattern | None, outputs: int) -> layout.Pattern | None:
    if pattern is None:
        return None
    return layout.Pattern(len(pattern.shape) - outputs, pattern.shape, pattern.flat.numpy())
