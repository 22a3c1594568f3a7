"""What a program hands over, a function, points and keywords, as the records that a run is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.functions.border import at_border, flat_points, going_on, returned
from pipeline.autograd.functions.half_precision import resolve_precision
from pipeline.autograd.functions.module_function import as_function
from pipeline.autograd.functions.probe import probe, probe_indices, resolve_device
from pipeline.autograd.planning.asked import Asked, Wanted, ask
from pipeline.autograd.planning.option_faults import check_options
from pipeline.autograd.surroundings import as_outside
from pipeline.errors import ConfigurationError, PipelineError, nearest
from pipeline.functions.bound import BoundFunction, bind_function
from pipeline.functions.fingerprint import callable_digest
from pipeline.functions.outputs import choose_outputs
from pipeline.functions.parameters import bind
from pipeline.functions.record import Function
from pipeline.functions.structure import Structure
from pipeline.grids.base import Grid
from pipeline.grids.directed import Directed, rows_of
from pipeline.grids.points import PointsGrid
from pipeline.job import Format, Options
from pipeline.keywords import (
    Keywords,
    masses,
    operator_names,
    pattern,
    plugin_files,
)
from pipeline.registry import build_registry
from pipeline.runs.directions import direction_of
from pipeline.runs.patterns import sparse_format

LONGEST_NAME = 80  # of a directory of results: file systems take 255 bytes
OPTIONS = {field.name for field in fields(Options)}
Differentiable = str | Function | Callable[[Tensor], Tensor]


def ask_given(
    function: Differentiable, points: Any, operators: str | Sequence[str], keywords: Keywords
) -> tuple[Grid, Options, Asked]:
    """Say what a program asks for without storing it.

    Args:
        function: What is differentiated.
        points: (N, n), tensors of any shape by name, or a grid.
        operators: Names of what is evaluated.
        keywords: Of `pipeline.prepare` and `pipeline.evaluate`.

    Returns:
        The points with their directions, how they are evaluated, and what is asked.

    Raises:
        ConfigurationError: A keyword cannot be used.
    """
    bound, grid, options = bind_given(function, points, keywords)
    grid = directed(grid, keywords)
    wanted = Wanted(
        operator_names(operators),
        keywords.get("order"),
        keywords.get("wrt"),
        keywords.get("symmetric", "full"),
        _format(keywords),
        direction_of(grid),
        masses(keywords),
        pattern(keywords),
        resolve_precision(options.dtype),
    )
    asked = ask(bound, wanted)
    if faults := asked.form.faults():
        raise ConfigurationError(faults)
    return grid, options, asked


def _format(keywords: Keywords) -> Format:
    given = keywords.get("pattern")
    return sparse_format(keywords.get("format", "dense" if given is None else "sparse"), given)


def directed(grid: Grid, keywords: Keywords) -> Grid:
    """Put the directions beside the points: one vector, one for each point, or a grid of them."""
    given = keywords.get("directions")
    if given is None:
        return grid
    if not isinstance(given, Grid):
        vectors = _vectors(given)
        given = PointsGrid(vectors[None] if vectors.ndim == 1 else vectors)
    return Directed(grid, given)


def _vectors(given: Any) -> Tensor:
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            [
                f"directions: expected one vector, one for each point, or a grid, got {given!r}; "
                "for random ones give torch.randn(n), or torch.randn(N, n) for another at each point"
            ]
        ) from error


def bind_given(
    function: Differentiable, points: Any, keywords: Keywords, known: type = Keywords
) -> tuple[BoundFunction, Grid, Options]:
    """Bind a function to points.

    Args:
        function: What is differentiated.
        points: (N, n), tensors of any shape by name, or a grid.
        keywords: What else was given.
        known: The keywords that there are: `Keywords` or `RunKeywords`.

    Returns:
        The function, without a digest where it is a bare callable; the points; how they are evaluated.
    """
    points, inputs = flat_points(points)
    grid, options = _grid(points), _options(points, keywords, known)
    bound = _bound(function, grid, inputs, options, keywords)
    return choose_outputs(bound, keywords.get("outputs")), grid, options


def _bound(
    function: Differentiable,
    grid: Grid,
    inputs: Structure | None,
    options: Options,
    keywords: Keywords,
) -> BoundFunction:
    if isinstance(function, str):
        function, loadable = build_registry(plugin_files(keywords)).function(function), True
    else:
        loadable = False
    given = keywords.get("parameters", {})
    if isinstance(function, Function):
        parameters, faults = bind(function.parameters, given, "parameters")
        if faults:
            raise ConfigurationError(faults)
        return bind_function(function, parameters, grid.n, loadable)
    if not callable(function):
        raise PipelineError(
            f"function: expected a torch function, a name or a Function record, got {type(function).__name__}"
        )
    if given:
        raise ConfigurationError(
            ["parameters belong to a plugin's function; bind your own with functools.partial"]
        )
    return _bind_callable(as_outside(function), grid, options, inputs)


def _bind_callable(
    f: Callable[..., Any],
    grid: Grid,
    options: Options,
    inputs: Structure | None,
) -> BoundFunction:
    """A record for a bare callable."""
    f = as_function(f)
    name = re.sub(r"\W", "_", str(getattr(f, "__name__", type(f).__name__)).strip("<>"))[
        :LONGEST_NAME
    ]
    points = probe_points(grid, options)
    precision = resolve_precision(options.dtype)
    outputs = returned(f, points.to(precision.evaluated), inputs)
    flat = partial(going_on, f) if inputs is None and outputs is None else at_border(f, inputs)
    seen = probe(precision.function(flat), points, None, name)
    record = Function(
        name,
        partial(_given, f),
        n=grid.n,
        output_shape=seen.output_shape if outputs is None else outputs.shapes,
        inputs=None if inputs is None else inputs.shapes,
    )
    return BoundFunction(record, {}, grid.n, seen.output_shape, "", loadable=False)


def digested(bound: BoundFunction) -> BoundFunction:
    """Give a function with the digest of what determines it: of a bare callable, all that it refers to."""
    return bound if bound.source_digest else replace(bound, source_digest=callable_digest(bound.f))


def _given(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return f


def _grid(points: Any) -> Grid:
    return points if isinstance(points, Grid) else PointsGrid(points)


def _options(points: Any, keywords: Keywords, known: type) -> Options:
    words = list(known.__annotations__)
    unknown = set(keywords) - set(words)
    if unknown:
        raise ConfigurationError(
            [f"keyword {name!r} is unknown. {nearest(name, words)}" for name in sorted(unknown)]
        )
    given: dict[str, Any] = {name: value for name, value in keywords.items() if name in OPTIONS}
    is_float = isinstance(points, Tensor) and points.is_floating_point()
    dtype = given.get("dtype") or (points.dtype if is_float else "float64")
    device = given.get("device") or (points.device if isinstance(points, Tensor) else "cpu")
    given.update(dtype=str(dtype).removeprefix("torch."), device=str(device))
    options = Options(**given)
    resolve_precision(options.dtype)
    resolve_device(options.device)
    faults = check_options(options)
    if faults:
        raise ConfigurationError(faults)
    return options


def probe_points(grid: Grid, options: Options) -> Tensor:
    """Some points of a grid, (P, d), as they will be evaluated: for planning."""
    points = torch.cat([rows_of(grid, index, index + 1) for index in probe_indices(len(grid))])
    return resolve_precision(options.dtype).points(points, resolve_device(options.device))
