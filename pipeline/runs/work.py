"""What a run is about: a job with its function and grid, and the identity that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from pipeline.autograd.definitions.spectra import spread
from pipeline.autograd.functions.half_precision import Precision, resolve_precision
from pipeline.autograd.functions.probe import probe_indices, resolve_device
from pipeline.autograd.functions.variable import WHOLE, Variable
from pipeline.autograd.operators import CONTRACTED, Operator, resolve_operators
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.planning.asked import Asked, Wanted, ask, resolve
from pipeline.autograd.planning.formats import Form, mark_sparse, may_pay
from pipeline.autograd.routes import FiniteDifferenceRoute
from pipeline.functions.bound import BoundFunction
from pipeline.grids.base import Grid
from pipeline.job import Job, Storage
from pipeline.runs.directions import direction_of
from pipeline.store.files.run_directory import RunDirectory
from pipeline.store.layout import SCHEMA


@dataclass(frozen=True)
class Work:
    """A job with its function and grid: what a run is about.

    Attributes:
        job: What the user asked for.
        function: What is differentiated.
        grid: Where.
    """

    job: Job
    function: BoundFunction
    grid: Grid

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """What is evaluated."""
        shape = self.function.output_shape
        symmetric = self.job.storage.symmetric
        named = resolve_operators(self.job.operators, self.job.order, shape, symmetric)
        sums = any(operator.name in CONTRACTED for operator in named)  # which have no pattern
        return named if sums else mark_sparse(named, self.pattern)

    @cached_property
    def asked(self) -> Asked:
        """What is to be differentiated, and how it is kept, built once."""
        kept = "dense" if self.pattern is None else "sparse"
        return replace(self._wanted, form=Form(kept, known=self.pattern))

    @cached_property
    def _wanted(self) -> Asked:
        job, storage, direction = self.job, self.job.storage, direction_of(self.grid)
        wanted = Wanted(
            job.operators,
            job.order,
            job.wrt,
            storage.symmetric,
            storage.format,
            direction,
            job.masses,
            job.pattern,
            self.precision,
        )
        return ask(self.function, wanted)

    @property
    def precision(self) -> Precision:
        """In which precision the function is evaluated, and its results are kept."""
        return resolve_precision(self.job.options.dtype)

    @cached_property
    def pattern(self) -> Pattern | None:
        """Entries of the highest derivative that are stored; None for all.

        It follows from the structure of the function, so that it is the same in every process of
        a run; the point at which it is looked at is one where the function does not raise.
        """
        form, d, shape = self.job.storage.format, self.function.n, self.function.output_shape
        n = d if self.job.wrt in (None, "inputs") else self._wanted.variable.size(d)
        sums = any(name in CONTRACTED for name in self.job.operators)
        if (form == "auto" and sums) or not may_pay(form, (shape[0] if shape else n, n)):
            return None
        example = self._example()
        return None if example is None else resolve(self._wanted, example, shape)[0].pattern

    def _example(self) -> torch.Tensor | None:
        """A point of the grid at which the function can be evaluated."""
        device = resolve_device(self.job.options.device)
        for index in probe_indices(len(self.grid)):
            point = self.precision.points(self.grid[index : index + 1], device)[0]
            try:
                self._wanted.f(point.clone())
            except Exception:  # the function may raise anything at a point of its own choice
                continue
            return point
        return None

    @cached_property
    def variable(self) -> Variable:
        """With respect to what; nothing is built for what is usual."""
        return WHOLE if self.job.wrt in (None, "inputs") else self._wanted.variable

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the numbers, and nothing of how they are computed."""
        spec = self.variable.spec()
        packed = any(operator.packed for operator in self.operators)
        chosen = self.function.chosen
        return {
            "schema": SCHEMA,
            "function": self.function.function.name,
            "parameters": dict(self.function.parameters),
            "source": self.function.source_digest,
            "grid": dict(self.grid.spec),
            "operators": [[operator.name, operator.order] for operator in self.operators],
            "dtype": self.job.options.dtype,
            **({} if spec is None else {"wrt": spec}),
            **({"outputs": list(chosen.indices), "outputs_of": chosen.size} if chosen else {}),
            **({"structure": self.function.structure} if self.function.structure else {}),
            **({"symmetric": "packed"} if packed else {}),
            **({} if self.pattern is None else {"format": "sparse"}),
            **({"masses": list(self.masses)} if self.masses else {}),
            **({} if self.job.pattern is None else {"pattern": self.job.pattern.digest}),
            **({"finite_differences": True} if self._may_differ else {}),
        }

    @property
    def _may_differ(self) -> bool:
        """Whether numbers that are less accurate than all others are let pass."""
        options = self.job.options
        return options.finite_differences or options.route == FiniteDifferenceRoute.name

    @property
    def masses(self) -> tuple[float, ...]:
        """Mass of every variable; nothing where none are given."""
        return spread(self.job.masses, self.variable.size(self.function.n))

    @cached_property
    def run_id(self) -> str:
        """Digest of the identity: the same numbers, the same run."""
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def directory(self) -> RunDirectory:
        """Where the run lives."""
        folder = self.job.output_dir / self.job.name / self.function.function.name
        return RunDirectory(folder / self.run_id)

    def stored_as(self, storage: Storage) -> Work:
        """Give the same work, whose files lie in another way on disk."""
        if storage == self.job.storage:
            return self  # with the pattern that it has found
        return replace(self, job=replace(self.job, storage=storage))
