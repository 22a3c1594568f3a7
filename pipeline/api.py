"""The Python door: prepare, evaluate and run, for notebooks and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Unpack

import torch
from torch import Tensor

from pipeline.autograd.batches import Batches
from pipeline.autograd.evaluator import Evaluator
from pipeline.autograd.functions.half_precision import resolve_precision
from pipeline.autograd.memory import available_bytes
from pipeline.autograd.planning.planner import prepare as plan_evaluator
from pipeline.autograd.surroundings import own_surroundings
from pipeline.errors import MemoryBudgetError
from pipeline.given import Differentiable, ask_given, bind_given, digested, directed, probe_points
from pipeline.grids.base import Grid
from pipeline.grids.directed import rows_of
from pipeline.job import Job
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
from pipeline.runs.progress import Progress
from pipeline.store.reading.reader import Results, open_results


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
    grid, options, asked = ask_given(function, example_points, operators, keywords)
    bare = replace(asked, judged=False)  # by what comes out nobody is told where f has no value
    return plan_evaluator(bare, probe_points(grid, options), options, count)


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
    grid, options, asked = ask_given(function, points, operators, keywords)
    evaluator = plan_evaluator(asked, probe_points(grid, options), options, len(grid))
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
    bound, grid, options = bind_given(function, points, keywords, RunKeywords)
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
    where = directed(grid, keywords)
    return open_results(run_job(job, digested(bound), where, registry.hook).path)


def _require_memory(evaluator: Evaluator, points: int) -> None:
    needed = points * evaluator.row_bytes
    free = available_bytes(evaluator.plan.device)
    if needed > free:
        raise MemoryBudgetError(
            f"the result takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of memory are free; "
            "write it to disk with pipeline.run(...), or evaluate fewer points at a time"
        )
