"""The runs of a sweep: what each is about, and in what they differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError, nearest
from pipeline.store.files.run_directory import PLAN, RunDirectory

LEAD = ("function", "source", "dtype", "job")  # facts that are no parameters
ABSENT = "not a parameter"


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a sweep.

    Attributes:
        path: Its directory.
        run_id: Digest of what determines the numbers.
        created: When it began.
        facts: What it is about: function, each parameter, each option of the grid as
            ``grid.<option>``, dtype, source, job; lists as JSON.
    """

    path: Path
    run_id: str
    created: str
    facts: Mapping[str, Any]


def find_runs(directory: Path) -> list[Run]:
    """Find the runs below a directory.

    Args:
        directory: Such as ``outputs``.

    Returns:
        The runs in the order in which they began, each once.

    Raises:
        StoreError: There is none.
    """
    runs = {run.run_id: run for run in map(_read_run, _directories(directory))}
    if not runs:
        raise StoreError(f"{directory}: expected runs below it, found no {PLAN}")
    return sorted(runs.values(), key=lambda run: (run.created, run.run_id))


def _directories(directory: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(directory):
        if PLAN in files:
            folders.clear()  # there may be thousands of shards
            yield Path(path)


def _read_run(path: Path) -> Run:
    plan = RunDirectory(path).plan() or {}
    try:
        identity = plan["identity"]
        parameters, grid = identity["parameters"], identity["grid"]
        names = {name: f"{name}_parameter" if name in LEAD else name for name in parameters}
        facts = {
            "function": identity["function"],
            **{names[name]: value for name, value in parameters.items()},
            **{f"grid.{name}": value for name, value in grid.items()},
            "dtype": identity["dtype"],
            "source": identity["source"],
            "job": path.absolute().parent.parent.name,
        }
        return Run(path, plan["run_id"], plan["created"], {k: plain(v) for k, v in facts.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path / PLAN} is not the plan of a run: {error!r}; move it away"
        ) from error


def plain(value: Any) -> Any:
    """A value that can be compared and be a coordinate: lists and objects become JSON."""
    return value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)


def choose(runs: Sequence[Run], wanted: Mapping[str, Any], directory: Path) -> list[Run]:
    """Keep the runs that are asked for.

    Args:
        runs: All.
        wanted: Fact -> its value.
        directory: Where they are.

    Returns:
        Those with these values.

    Raises:
        StoreError: There is no such fact or value.
    """
    chosen = list(runs)
    for name, value in wanted.items():
        if not any(name in run.facts for run in runs):
            known = {fact for run in runs for fact in run.facts}
            raise StoreError(f"no run below {directory} has {name!r}. {nearest(name, known)}")
        there = list(dict.fromkeys(run.facts.get(name) for run in chosen))
        chosen = [run for run in chosen if run.facts.get(name) == plain(value)]
        if not chosen:
            raise StoreError(
                f"no run below {directory} has {name}={value!r}; expected one of {there}"
            )
    return chosen


def swept(runs: Sequence[Run], directory: Path) -> list[str]:
    """Find what tells the runs apart: the fewest facts, so that a sweep is a box with few holes.

    A fact that follows from those before it, as the bounds of a grid from the function, is none of
    them. Runs may still differ in `job`, which each give datasets of their own.

    Args:
        runs: Some.
        directory: Where they are.

    Returns:
        Names of facts.

    Raises:
        StoreError: Something differs that no dimension can stand for.
    """
    names = dict.fromkeys(fact for run in runs for fact in run.facts)
    dims: list[str] = []
    for name in names:
        if name != "job" and not follows(name, dims, runs):
            _require_scalar(name, runs, directory)
            dims.append(name)
    return dims


def follows(name: str, dims: Sequence[str], runs: Sequence[Run]) -> bool:
    """Tell whether some facts determine another one."""
    seen: dict[tuple[Any, ...], Any] = {}
    return all(
        seen.setdefault(place(run, dims), run.facts.get(name)) == run.facts.get(name)
        for run in runs
    )


def values_of(name: str, runs: Sequence[Run]) -> list[Any]:
    """Values of a fact: numbers ascending, others in the order of the runs."""
    values = list(dict.fromkeys(run.facts.get(name, ABSENT) for run in runs))
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numbers else values


def place(run: Run, dims: Sequence[str]) -> tuple[Any, ...]:
    """Where a run is in the box of the sweep."""
    return tuple(run.facts.get(name, ABSENT) for name in dims)


def needed(names: Sequence[str], dims: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """The dimensions without which some facts are not determined."""
    kept = list(dims)
    for dim in dims:
        rest = [other for other in kept if other != dim]
        kept = rest if all(follows(name, rest, runs) for name in names) else kept
    return kept


def _require_scalar(name: str, runs: Sequence[Run], directory: Path) -> None:
    values = list(dict.fromkeys(run.facts.get(name, ABSENT) for run in runs))
    whole = name.startswith("grid.") and any(isinstance(value, str) for value in values)
    if name == "source" or whole or ABSENT in values:
        lines = "\n".join(f"  {name} = {value}" for value in values)
        example = next(run for run in runs if name in run.facts)
        function, value = example.facts["function"], example.facts[name]
        raise StoreError(
            f"the runs below {directory} cannot be joined, they differ in {name}:\n{lines}\n"
            f"select some of them, e.g. open_sweep({str(directory)!r}, function={function!r}) or "
            f"open_sweep({str(directory)!r}, **{{{name!r}: {value!r}}})"
        )
