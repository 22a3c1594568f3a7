"""What a run is: the identity that names it, and the frozen plan it can be resumed from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from pipeline.autograd.definitions.spectra import spread
from pipeline.autograd.evaluator import Evaluator
from pipeline.autograd.functions.narrow import Precision, resolve_precision
from pipeline.autograd.functions.probe import probe_indices, resolve_device
from pipeline.autograd.functions.variable import WHOLE, Variable
from pipeline.autograd.operators import CONTRACTED, Operator, resolve_operators
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.planning.asked import Asked, Wanted, ask, resolve, structures
from pipeline.autograd.planning.formats import Form, mark_sparse, may_pay
from pipeline.autograd.routes import FiniteDifferenceRoute
from pipeline.display import spell_points
from pipeline.errors import StoreError
from pipeline.functions.record import BoundFunction
from pipeline.functions.structure import Structure
from pipeline.grids.base import Grid
from pipeline.grids.directed import Directed
from pipeline.job import Job, Storage
from pipeline.runs.directions import direction_of
from pipeline.runs.provenance import now
from pipeline.store import layout as store_layout
from pipeline.store.files.run_directory import PLAN, RunDirectory, shard_ranges
from pipeline.store.layout import SCHEMA, Layout

log = logging.getLogger(__name__)
SHARD_BYTES, SHARD_SECONDS = 128 << 20, 300.0
LONGEST_AXES = 100_000  # points on all axes together that a file still holds
MOST_NAMES = 10_000  # of variables that a file still holds, one by one


@dataclass(frozen=True)
class RunPlan:
    """The content of run.json: written once, kept by every execution of the run.

    Attributes:
        schema: Schema of the files.
        run_id: Digest of `identity`.
        identity: Everything that determines the numbers.
        points: N.
        shard_rows: Points per shard.
        route: Route of every batch.
        mode: Mode of every batch.
        batch: Points per call.
        chunk: Directions evaluated together.
        threads: Threads of torch in each process: they decide how sums are cut.
        certificate: Evidence found when the run began.
        refused: Route and mode -> why it is not used.
        created: When the run began.
        storage: How its files lie on disk.
    """

    schema: str
    run_id: str
    identity: Mapping[str, Any]
    points: int
    shard_rows: int
    route: str
    mode: str
    batch: int
    chunk: int
    threads: int
    certificate: Mapping[str, Any]
    refused: Mapping[str, str]
    created: str
    storage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """start, stop of the points of every shard."""
        return shard_ranges(self.points, self.shard_rows)


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

    @cached_property
    def structures(self) -> dict[str, Structure]:
        """Dimension -> the tensors whose entries lie along it, where they are not flat."""
        return structures(self.function, self.variable)

    @cached_property
    def layout(self) -> Layout:
        """What the files of the run hold."""
        function, record = self.function, self.function.function
        wanted = ", ".join(operator.name for operator in self.operators)
        n, is_whole = self.variable.size(function.n), self.variable is WHOLE
        names = () if is_whole or n > MOST_NAMES else self.variable.names(function.input_names)
        return Layout(
            n=n,
            columns=None if is_whole else function.n,
            output_shape=function.output_shape,
            operators=tuple((operator.name, operator.order) for operator in self.operators),
            dtype=self.precision.kept_name,
            evaluated=self.precision.name if self.precision.is_half else "",
            title=f"{wanted} of {record.name} at {spell_points(len(self.grid))}",
            input_names=function.input_names,
            variable_names=names,
            output_names=function.output_names,
            input_units=record.input_units,
            output_units=record.output_units,
            storage=self.job.storage,
            directions=self._directions(),
            masses=self.masses,
            pattern=_stored(self.pattern, 1 if function.output_shape else 2),
        )

    def _directions(self) -> tuple[int, str] | None:
        """Size of the directions that are stored with the points, and what they run along."""
        if not isinstance(self.grid, Directed) or self.grid.common is not None:
            return None
        across = any(operator.name == "vjp" for operator in self.operators)
        return self.grid.directions.n, "output" if across else "variable"

    def attrs(self, start: int, stop: int) -> dict[str, Any]:
        """Root attributes of a file with the points start … stop - 1."""
        time = now()
        command = self.job.config.get("command", "pipeline.run")
        return {
            "run_id": self.run_id,
            "start": start,
            "stop": stop,
            "created": time,
            "history": f"{time} {command}",
        }

    def described_grid(self) -> dict[str, Any]:
        """What a file says of the grid: its spec, and the axes of a product grid."""
        axes = (self.grid.axes if sum(self.grid.shape) <= LONGEST_AXES else None) or ()
        spec: dict[str, Any] = {"spec_json": json.dumps(dict(self.grid.spec), sort_keys=True)}
        common = self.grid.common if isinstance(self.grid, Directed) else None
        if common is not None:
            spec["direction"] = common.numpy()
        return spec | {f"axis_{column}": axis.numpy() for column, axis in enumerate(axes, 1)}

    def existing_plan(self) -> RunPlan | None:
        """Read the plan of this run, if it has begun.

        Returns:
            The plan.

        Raises:
            StoreError: Something else is in the way, or the run was begun differently.
        """
        content = self.directory.plan()
        if content is None:
            if self.directory.result.exists():
                raise StoreError(
                    f"{self.directory.result} is in the way: it has no run.json beside it; "
                    "move it away or choose another output_dir="
                )
            return None
        try:
            plan = RunPlan(**content)
        except TypeError as error:
            raise StoreError(
                f"{self.directory.path}/run.json is in the way: it is no complete plan ({error}); "
                "move it away or choose another output_dir="
            ) from error
        self._require_same(plan)
        return plan

    def keeping(self, plan: RunPlan) -> Work:
        """Give the same work, to be stored as the run was begun, whatever is asked for now."""
        storage = Storage.of(plan.storage)
        if storage == self.job.storage:
            return self  # with the pattern that it has found
        return replace(self, job=replace(self.job, storage=storage))

    def same_but_for_the_source(self) -> list[str]:
        """Ids of runs beside this one that asked the same of another source of the function."""
        found = []
        for path in sorted(self.directory.path.parent.glob(f"*/{PLAN}")):
            try:
                identity = json.loads(path.read_text())["identity"]
                same = {**identity, "source": self.identity["source"]} == self.identity
            except (OSError, ValueError, KeyError, TypeError):
                continue  # no plan of this project: it is nobody's business here
            if same and path.parent != self.directory.path:
                found.append(path.parent.name)
        return found

    def _require_same(self, plan: RunPlan) -> None:
        place = self.directory.path
        if plan.run_id != self.run_id:
            raise StoreError(
                f"{place} is in the way: expected run {self.run_id}, got the plan of run "
                f"{plan.run_id}; move it away or choose another output_dir="
            )
        options = self.job.options
        for name in ("route", "mode"):
            asked, kept = getattr(options, name), getattr(plan, name)
            if asked not in ("auto", kept):
                raise StoreError(
                    f"{place} was begun with {name}={kept} and keeps it, got {name}={asked}; "
                    f"leave {name}= out to go on, or compute anew with another output_dir="
                )
        storage, stored = self.job.storage, Storage.of(plan.storage)
        for name, asked, kept in (
            ("batch", options.batch, plan.batch),
            ("chunk", options.chunk, plan.chunk),
            ("shard_rows", self.job.shard_rows, plan.shard_rows),
            ("store", None if storage == Storage() else storage, stored),
        ):
            if asked not in (None, kept):
                log.warning(
                    "%s was begun with %s=%s and keeps it; %s=%s is not used",
                    place, name, kept, name, asked,
                )  # fmt: skip

    def begin(self, evaluator: Evaluator) -> RunPlan:
        """Write the plan of a new run, unless another process was first.

        Args:
            evaluator: How the derivatives are evaluated.

        Returns:
            The plan that counts.
        """
        chosen = evaluator.plan
        plan = RunPlan(
            schema=SCHEMA,
            run_id=self.run_id,
            identity=self.identity,
            points=len(self.grid),
            shard_rows=self.shard_rows(evaluator),
            route=chosen.route,
            mode=chosen.mode,
            batch=chosen.batch,
            chunk=chosen.chunk,
            threads=torch.get_num_threads(),
            certificate=evaluator.certificate.record(),
            refused=chosen.refused,
            created=now(),
            storage=asdict(self.job.storage),
        )
        return RunPlan(**self.directory.begin(asdict(plan)))

    def shard_rows(self, evaluator: Evaluator) -> int:
        """Whole batches, up to SHARD_BYTES on disk and SHARD_SECONDS of computing: points per shard.

        Args:
            evaluator: How the derivatives are evaluated.

        Returns:
            Points per shard.
        """
        # Batches start at the same points whatever the size of a shard, so that a measured time
        # may take part in the choice without any influence on the numbers.
        if self.job.shard_rows is not None:
            return self.job.shard_rows
        batch, seconds = evaluator.plan.batch, max(evaluator.plan.point_seconds, 1e-12)
        rows = min(SHARD_BYTES // self.layout.row_bytes(), int(SHARD_SECONDS / seconds))
        return max(rows // batch, 1) * batch


def _stored(pattern: Pattern | None, order: int) -> store_layout.Pattern | None:
    if pattern is None:
        return None
    return store_layout.Pattern(order, pattern.shape, pattern.flat.numpy())
