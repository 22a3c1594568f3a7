"""Batch derivative jobs: derivatives of PyTorch functions over large sets of points.

The public names below are imported on first use, so that ``import pipeline`` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import evaluate, prepare, run
    from pipeline.autograd.functions.module_function import module_function
    from pipeline.autograd.reference import flat_grad, hessian, jacobian
    from pipeline.errors import PipelineError
    from pipeline.functions.record import AnySize, Function, Scenario
    from pipeline.grids.base import Grid
    from pipeline.grids.kind import GridKind, Space
    from pipeline.hookspecs import hookimpl
    from pipeline.results.verification import verify
    from pipeline.store.reading.reader import open_results
    from pipeline.store.sweeps.join import open_sweep

__version__ = "0.1.0"

__all__ = [
    "AnySize",
    "Function",
    "Grid",
    "GridKind",
    "PipelineError",
    "Scenario",
    "Space",
    "evaluate",
    "flat_grad",
    "hessian",
    "hookimpl",
    "jacobian",
    "module_function",
    "open_results",
    "open_sweep",
    "prepare",
    "run",
    "verify",
]

_HOMES = {
    "pipeline.api": ("evaluate", "prepare", "run"),
    "pipeline.autograd.functions.module_function": ("module_function",),
    "pipeline.autograd.reference": ("flat_grad", "hessian", "jacobian"),
    "pipeline.errors": ("PipelineError",),
    "pipeline.functions.record": ("AnySize", "Function", "Scenario"),
    "pipeline.grids.base": ("Grid",),
    "pipeline.grids.kind": ("GridKind", "Space"),
    "pipeline.hookspecs": ("hookimpl",),
    "pipeline.store.reading.reader": ("open_results",),
    "pipeline.store.sweeps.join": ("open_sweep",),
    "pipeline.results.verification": ("verify",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
