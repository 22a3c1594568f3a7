"""The Python door: prepare, evaluate and run, for notebooks and programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Unpack

import torch
from torch import Tensor

from pipeline.autograd.batches import Batches
from pipeline.autograd.evaluator import Evaluator
from pipeline.autograd.functions.border import at_border, flat_points, going_on, returned
from pipeline.autograd.functions.half_precision import resolve_precision
from pipeline.autograd.functions.module_function import as_function
from pipeline.autograd.functions.probe import probe, probe_indices, resolve_device
from pipeline.autograd.memory import available_bytes
from pipeline.autograd.planning.asked import Asked, Wanted, ask
from pipeline.autograd.planning.option_faults import check_options
from pipeline.autograd.planning.planner import prepare as plan_evaluator
from pipeline.autograd.surroundings import as_outside, own_surroundings
from pipeline.errors import ConfigurationError, MemoryBudgetError, PipelineError, nearest
from pipeline.functions.bound import BoundFunction, bind_function
from pipeline.functions.fingerprint import callable_digest
from pipeline.functions.outputs import choose_outputs
from pipeline.functions.parameters import bind
from pipeline.functions.record import Function
from pipeline.functions.structure import Structure
from pipeline.grids.base import Grid
from pipeline.grids.directed import Directed, rows_of
from pipeline.grids.points import PointsGrid
from pipeline.job import Format, Job, Options
from pipeline.keywords import (
    Keywords,
    RunKeywords,
    masses,
    operator_names,
    pattern,
    plain,
    plugin_files,
    storage,
    workers,
)
from pipeline.registry import build_registry
from pipeline.results.evaluation import Evaluation
from pipeline.runner import run as run_job
from pipeline.runs.directions import direction_of
from pipeline.runs.patterns import sparse_format
from pipeline.runs.progress import Progress
from pipeline.store.reading.reader import Results, open_results

LONGEST_NAME = 80  # of a directory of results: file systems take 255 bytes
Differentiable = str | Function | Callable[[Tensor], Tensor]


@own_surroundings()
def prepare(
    function: Differentiable,
    example_points: Tensor | Grid | Any,
    operators: str | Sequence[str] = "hessian",
    count: int | None = None,
    **keywords: Unpack[Keywords],
) -> Evaluator:
    """Do all costly work once; then evaluate by bare calls.

    Args:
        function: A torch function of one point (n,) -> () or (m,), a torch.nn.Module, or the name
            or record of a plugin's.
        example_points: (P, n): points like those that will be evaluated; they decide n, dtype and
            device, and the routes are compared on some of them.
        operators: value, gradient, jacobian, hessian, derivative (with ``order=``), jvp, vjp, hvp (with
            ``directions=``), hessian_diagonal, laplacian, divergence, eigenvalues, eigenvectors, all, or several.
        count: How many points will be evaluated in all; a small number waits for no compiler.
            None: about a million.
        **keywords: order, parameters, plugins, wrt (what is differentiated: see
            `pipeline.job.Job`), outputs (which rows of a vector function, by index or name),
            masses (of eigenvalues: one per variable, or per group of as many),
            symmetric (full or packed), format (dense, sparse or auto), pattern (of a sparse result: a
            file or a matrix, see `pipeline.runs.patterns.read_pattern`),
            directions (of jvp, vjp, hvp: one vector, one per point, or a grid of them), and the
            fields of `pipeline.job.Options`.

    Returns:
        An evaluator: ``evaluator(points)`` with points (B, n) gives (B, …), or a dict by dataset name
        where several operators were asked for. It evaluates nothing else: a derivative can be
        finite where the function has no value, which `evaluate` and `run` flag.

    Examples:
        >>> import torch
        >>> evaluator = prepare(lambda x: (x**3).sum(), torch.ones(4, 2).double(), "hessian")
        >>> evaluator(torch.ones(1, 2).double())
        tensor([[[6., 0.],
                 [0., 6.]]], dtype=torch.float64)
    """
    grid, options, asked = _ask(function, example_points, operators, keywords)
    bare = replace(asked, judged=False)  # by what comes out nobody is told where f has no value
    return plan_evaluator(bare, _probe_points(grid, options), options, count)


@own_surroundings()
def evaluate(
    function: Differentiable,
    points: Tensor | Grid | Any,
    operators: str | Sequence[str] = "hessian",
    **keywords: Unpack[Keywords],
) -> Evaluation:
    """Evaluate derivatives at points and keep them in memory.

    Args:
        function: A torch function of one point (n,) -> () or (m,), a torch.nn.Module, or the name
            or record of a plugin's.
        points: (N, n), or a grid; their dtype and device are those of the evaluation unless
            ``dtype=`` and ``device=`` say otherwise.
        operators: value, gradient, jacobian, hessian, derivative (with ``order=``), jvp, vjp, hvp (with
            ``directions=``), hessian_diagonal, laplacian, divergence, eigenvalues, eigenvectors, all, or several.
        **keywords: order, parameters, plugins, wrt (what is differentiated: see
            `pipeline.job.Job`), outputs (which rows of a vector function, by index or name),
            masses (of eigenvalues: one per variable, or per group of as many),
            symmetric (full or packed), format (dense, sparse or auto), pattern (of a sparse result: a
            file or a matrix, see `pipeline.runs.patterns.read_pattern`),
            directions (of jvp, vjp, hvp: one vector, one per point, or a grid of them), and the
            fields of `pipeline.job.Options`.

    Returns:
        The derivatives, with the names of the datasets as attributes.

    Raises:
        MemoryBudgetError: The result does not fit into memory.

    Examples:
        >>> import torch
        >>> evaluate(lambda x: (x**3).sum(), torch.ones(1, 2).double(), "gradient").gradient
        tensor([[3., 3.]], dtype=torch.float64)
    """
    grid, options, asked = _ask(function, points, operators, keywords)
    evaluator = plan_evaluator(asked, _probe_points(grid, options), options, len(grid))
    _require_memory(evaluator, len(grid))
    plan, precision = evaluator.plan, resolve_precision(options.dtype)
    datasets = evaluator.empty(len(grid))
    x = torch.empty(len(grid), grid.n, dtype=plan.dtype, device=plan.device)
    status = torch.empty(len(grid), dtype=torch.uint8, device=plan.device)

    def rows(start: int, stop: int) -> Tensor:
        return precision.points(rows_of(grid, start, stop), plan.device)

    batches, checked = Batches(evaluator, options), Random(len(grid)).randrange(len(grid))
    for place, batch, found in batches.over(rows, 0, len(grid), checked):
        x[place], status[place] = batch[:, : grid.n], found.status
        for name, part in found.datasets.items():
            datasets[name][place] = part
    failures, certificate = batches.failures, batches.certificate
    kept = (evaluator.operators, evaluator.pattern, asked.structures)
    return Evaluation(x, datasets, status, failures, certificate, plan, *kept)


@own_surroundings()
def run(
    function: Differentiable,
    points: Tensor | Grid | Any,
    operators: str | Sequence[str] = "hessian",
    *,
    output_dir: str | Path = "outputs",
    shard_rows: int | None = None,
    executor: str | Mapping[str, Any] = "none",
    **keywords: Unpack[RunKeywords],
) -> Results:
    """Evaluate derivatives at points into a store on disk; go on where an earlier call stopped.

    The run is found again by what determines its numbers: the code of the function and all values
    that it refers to, the points, the operators, the precision.

    Args:
        function: A torch function of one point (n,) -> () or (m,), a torch.nn.Module, or the name
            or record of a plugin's.
        points: (N, n), or a grid.
        operators: value, gradient, jacobian, hessian, derivative (with ``order=``), jvp, vjp, hvp (with
            ``directions=``), hessian_diagonal, laplacian, divergence, eigenvalues, eigenvectors, all, or several.
        output_dir: Results go to ``<output_dir>/<operators>/<function>/<run id>/``.
        shard_rows: Points per file; None lets the planner choose.
        executor: Who computes: none for this process, local, slurm or dask; with options as
            ``{"name": "local", "workers": 4}``, which conf/executor/ describes.
        **keywords: order, parameters, plugins, wrt (what is differentiated: see
            `pipeline.job.Job`), outputs, masses, symmetric, format, pattern, directions, the fields of
            `pipeline.job.Options`, ``store``: how the results lie on disk, as in
            ``{"compression": "gzip"}``, which conf/store/ describes, and ``progress``: False shows no
            bar on a terminal or in a notebook.

    Returns:
        The results, opened.
    """
    names = operator_names(operators)
    bound, grid, options = _bind(function, points, keywords, stored=True)
    job = Job(
        name="_".join(names),
        operators=names,
        order=keywords.get("order"),
        function=bound.function.name,
        parameters=bound.parameters,
        wrt=plain(keywords.get("wrt")),
        outputs=plain(keywords.get("outputs")),
        masses=masses(keywords),
        pattern=pattern(keywords),
        plugins=plugin_files(keywords),
        options=options,
        output_dir=Path(output_dir),
        shard_rows=shard_rows,
        executor=workers(executor),
        storage=storage(keywords),
    )
    observer = {"progress": Progress()} if keywords.get("progress", True) else {}
    registry = build_registry(job.plugins, own=observer)
    where = _directed(grid, keywords)
    return open_results(run_job(job, bound, where, registry.hook).path)


def _ask(
    function: Differentiable, points: Any, operators: str | Sequence[str], keywords: Keywords
) -> tuple[Grid, Options, Asked]:
    bound, grid, options = _bind(function, points, keywords)
    grid = _directed(grid, keywords)
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


def _directed(grid: Grid, keywords: Keywords) -> Grid:
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


def _bind(
    function: Differentiable, points: Any, keywords: Keywords, stored: bool = False
) -> tuple[BoundFunction, Grid, Options]:
    points, inputs = flat_points(points)
    grid, options = _grid(points), _options(points, keywords, stored)
    bound = _bound(function, grid, inputs, options, keywords, stored)
    return choose_outputs(bound, keywords.get("outputs")), grid, options


def _bound(
    function: Differentiable,
    grid: Grid,
    inputs: Structure | None,
    options: Options,
    keywords: Keywords,
    stored: bool,
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
    return _bind_callable(as_outside(function), grid, options, stored, inputs)


def _bind_callable(
    f: Callable[..., Any],
    grid: Grid,
    options: Options,
    stored: bool,
    inputs: Structure | None,
) -> BoundFunction:
    """A record for a bare callable; where it is stored, a digest of all that it refers to."""
    f = as_function(f)
    name = re.sub(r"\W", "_", str(getattr(f, "__name__", type(f).__name__)).strip("<>"))[
        :LONGEST_NAME
    ]
    points = _probe_points(grid, options)
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
    digest = callable_digest(f) if stored else ""
    return BoundFunction(record, {}, grid.n, seen.output_shape, digest, loadable=False)


def _given(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return f


def _grid(points: Any) -> Grid:
    return points if isinstance(points, Grid) else PointsGrid(points)


def _options(points: Any, keywords: Keywords, stored: bool) -> Options:
    known = {field.name for field in fields(Options)}
    words = list((RunKeywords if stored else Keywords).__annotations__)
    unknown = set(keywords) - set(words)
    if unknown:
        raise ConfigurationError(
            [f"keyword {name!r} is unknown. {nearest(name, words)}" for name in sorted(unknown)]
        )
    given: dict[str, Any] = {name: value for name, value in keywords.items() if name in known}
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


def _probe_points(grid: Grid, options: Options) -> Tensor:
    points = torch.cat([rows_of(grid, index, index + 1) for index in probe_indices(len(grid))])
    return resolve_precision(options.dtype).points(points, resolve_device(options.device))


def _require_memory(evaluator: Evaluator, points: int) -> None:
    needed = points * evaluator.row_bytes
    free = available_bytes(evaluator.plan.device)
    if needed > free:
        raise MemoryBudgetError(
            f"the result takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of memory are free; "
            "write it to disk with pipeline.run(...), or evaluate fewer points at a time"
        )
