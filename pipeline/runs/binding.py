"""Turns the names and values of a job into a function and a grid, all faults at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline.autograd.functions.half_precision import resolve_precision
from pipeline.autograd.functions.probe import resolve_device
from pipeline.autograd.operators import contract, resolve_operators
from pipeline.autograd.planning.asked import Wanted, ask
from pipeline.autograd.planning.option_faults import check_options
from pipeline.errors import ConfigurationError, GridError
from pipeline.functions.bound import BoundFunction, bind_function
from pipeline.functions.outputs import choose_outputs
from pipeline.functions.parameters import bind
from pipeline.functions.record import Function
from pipeline.grids.base import Grid
from pipeline.grids.kind import Space
from pipeline.grids.making import make_grid
from pipeline.job import Job
from pipeline.registry import Registry
from pipeline.runs.directions import direction_of, with_directions
from pipeline.store.files.compression import storage_faults

ELSEWHERE = ("slurm", "dask")  # executors whose workers may run on other machines


def bind_job(job: Job, registry: Registry) -> tuple[BoundFunction, Grid]:
    """Find and check everything that a job names, before any work starts.

    Args:
        job: Names and values.
        registry: What the plugins contribute.

    Returns:
        The function and the grid.

    Raises:
        ConfigurationError: Something cannot be used; lists every fault.
    """
    faults = _option_faults(job)
    record = _attempt(faults, lambda: registry.function(job.function))
    kind = _attempt(faults, lambda: registry.grid(job.grid))
    if record is None or kind is None:
        raise ConfigurationError(faults)
    parameters, wrong = bind(record.parameters, job.parameters, "function_params")
    options, wrong_too = bind(kind.options, job.grid_options, "grid")
    faults += wrong + wrong_too
    if faults:
        raise ConfigurationError(faults)
    space = _space(record, parameters, job.seed)
    grid = _attempt(faults, lambda: make_grid(kind, space, options))
    if grid is None:
        _operator_faults(job, record, parameters, space.n, faults)
        raise ConfigurationError(faults)
    function = _attempt(faults, lambda: bind_function(record, parameters, grid.n))
    _operator_faults(job, record, parameters, grid.n, faults)
    if function is not None:
        function = _attempt(faults, partial(choose_outputs, function, job.outputs))
    if faults or function is None:
        raise ConfigurationError(faults)
    variables = function.n
    if job.wrt not in (None, "inputs"):
        asked = ask(function, Wanted(job.operators, job.order, job.wrt))
        variables = asked.variable.size(function.n)
    if job.directions:
        grid = _directed(job, registry, grid, function, variables)
    named = resolve_operators(job.operators, job.order, function.output_shape)
    contract(named, direction_of(grid), variables, function.output_shape, job.masses)
    return function, grid


def _directed(
    job: Job, registry: Registry, grid: Grid, function: BoundFunction, variables: int
) -> Grid:
    options = dict(job.directions)
    try:
        kind = registry.grid(str(options.pop("name")))
    except ConfigurationError as error:
        raise ConfigurationError([f"directions: {fault}" for fault in error.faults]) from error
    outputs = function.output_shape[0] if function.output_shape else 1
    size = outputs if job.operators == ("vjp",) else variables
    return with_directions(grid, kind, options, size, job.seed)


def _option_faults(job: Job) -> list[str]:
    faults = [*check_options(job.options), *storage_faults(job.storage)]
    _attempt(faults, lambda: resolve_precision(job.options.dtype))
    if (
        job.executor.name not in ELSEWHERE
    ):  # a node with GPUs is told from one without by its workers
        _attempt(faults, lambda: resolve_device(job.options.device))
    if job.shard_rows is not None and job.shard_rows < 1:
        faults.append(f"shard_rows: expected a positive number or null, got {job.shard_rows}")
    return faults


def _attempt(faults: list[str], resolve: Callable[[], Any]) -> Any:
    try:
        return resolve()
    except ConfigurationError as error:
        faults += error.faults
    except GridError as error:
        faults.append(str(error))
    return None


def _space(record: Function, parameters: dict[str, Any], seed: int) -> Space:
    lower, upper = record.domain
    return Space(record.sizes(**parameters), lower, upper, seed)


def _operator_faults(
    job: Job, record: Function, parameters: dict[str, Any], n: Any, faults: list[str]
) -> None:
    size = n if isinstance(n, int) else n.default
    shape = record.shape(size, **parameters)
    operators = _attempt(faults, lambda: resolve_operators(job.operators, job.order, shape))
    if operators is not None:
        faults += check_options(job.options, max(operator.order for operator in operators))
