"""The hooks of the plugin system `pipeline`: two that contribute, five that observe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pipeline.functions.record import Function
    from pipeline.grids.kind import GridKind
    from pipeline.job import RunInfo, ShardInfo, Summary

hookspec = pluggy.HookspecMarker("pipeline")
hookimpl = pluggy.HookimplMarker("pipeline")


@hookspec
def pipeline_functions() -> Sequence[Function]:  # type: ignore[empty-body]
    """Contribute functions.

    Examples:
        >>> from pipeline import Function, hookimpl
        >>> def build(scale: float = 1.0):
        ...     return lambda x: scale * (x**2).sum()
        >>> class Plugin:
        ...     @hookimpl
        ...     def pipeline_functions(self):
        ...         return [Function("bowl", build, domain=(-1.0, 1.0))]
        >>> from pipeline.registry import Registry
        >>> Registry.of({"example": Plugin()}).function("bowl").name
        'bowl'
    """


@hookspec
def pipeline_grids() -> Sequence[GridKind]:  # type: ignore[empty-body]
    """Contribute kinds of grids.

    Examples:
        >>> import torch
        >>> from pipeline import GridKind, hookimpl
        >>> from pipeline.grids.points import PointsGrid
        >>> def build(space, /, count: int = 8):
        ...     angle = torch.linspace(0, 2 * torch.pi, count, dtype=torch.float64)
        ...     return PointsGrid(torch.stack([angle.cos(), angle.sin()], dim=1))
        >>> class Plugin:
        ...     @hookimpl
        ...     def pipeline_grids(self):
        ...         return [GridKind("circle", build)]
        >>> from pipeline.registry import Registry
        >>> Registry.of({"example": Plugin()}).grid("circle").name
        'circle'
    """


@hookspec
def pipeline_run_started(run: RunInfo) -> None:
    """Observe that a run starts or goes on; nothing has been computed yet.

    Examples:
        >>> from pipeline import hookimpl
        >>> class Plugin:
        ...     @hookimpl
        ...     def pipeline_run_started(self, run):
        ...         print(run.function, run.points)
    """


@hookspec
def pipeline_batch_evaluated(run: RunInfo, points: int) -> None:
    """Observe that `points` more points were evaluated; they are not durable yet.

    Examples:
        >>> from pipeline import hookimpl
        >>> class Plugin:
        ...     @hookimpl
        ...     def pipeline_batch_evaluated(self, run, points):
        ...         print(points)
    """


@hookspec
def pipeline_shard_finished(run: RunInfo, shard: ShardInfo) -> None:
    """Observe that a shard is durable on disk.

    Examples:
        >>> from pipeline import hookimpl
        >>> class Plugin:
        ...     @hookimpl
        ...     def pipeline_shard_finished(self, run, shard):
        ...         print(shard.start, shard.stop)
    """


@hookspec
def pipeline_point_failed(run: RunInfo, index: int, reason: str) -> None:
    """Observe that the function raised at one point; its status is `failed`.

    Examples:
        >>> from pipeline import hookimpl
        >>> class Plugin:
        ...     @hookimpl
        ...     def pipeline_point_failed(self, run, index, reason):
        ...         print(index, reason)
    """


@hookspec
def pipeline_run_finished(run: RunInfo, summary: Summary) -> None:
    """Observe that every shard is durable and `result.h5` exists.

    Examples:
        >>> from pipeline import hookimpl
        >>> class Plugin:
        ...     @hookimpl
        ...     def pipeline_run_finished(self, run, summary):
        ...         print(summary.path)
    """
