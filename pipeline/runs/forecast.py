"""What a job would take, before it is run: the dry run. Evaluates one batch, writes nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.autograd.evaluator import Evaluator
from pipeline.autograd.memory import available_bytes
from pipeline.autograd.routes import ROUTES
from pipeline.display import aligned, evidence, spell_bytes, spell_points, spell_rate, spell_seconds
from pipeline.errors import StoreError
from pipeline.executors import build_executor
from pipeline.executors.base import Limits
from pipeline.functions.bound import BoundFunction
from pipeline.grids.base import Grid
from pipeline.grids.directed import rows_of
from pipeline.job import Job
from pipeline.runs.contents import layout_of
from pipeline.runs.distribution import as_worker
from pipeline.runs.execution import prepare_run, threads
from pipeline.runs.plan import RunPlan, existing_plan, shard_rows
from pipeline.runs.work import Work
from pipeline.store.files.run_directory import shard_ranges
from pipeline.store.writing.assembly import SMALL

ENOUGH_SECONDS = 0.3  # of evaluating, to know how long it takes
DISK_SPEED = 400e6  # bytes per second of an ordinary disk; the run itself shows the real one


@dataclass(frozen=True)
class Forecast:
    """What a job would take.

    Attributes:
        work: What the job is about.
        evaluator: How it would be evaluated.
        plan: The plan of a run that has begun, or None.
        workers: Processes that would compute.
        cores: Threads of each of them.
        planning: Seconds that planning took.
        computing: Predicted seconds of evaluating what is missing, in one process.
        shard_rows: Points per shard.
        points_left: Points that are not there yet.
    """

    work: Work
    evaluator: Evaluator
    plan: RunPlan | None
    workers: int
    cores: int
    planning: float
    computing: float
    shard_rows: int
    points_left: int

    @property
    def bytes_left(self) -> int:
        """Bytes of the shards still to be written, and of the result where it is a file of its own."""
        row = layout_of(self.work).row_bytes()
        whole = len(self.work.grid) * row
        return self.points_left * row + (whole if whole <= SMALL and self.points_left else 0)

    @property
    def seconds(self) -> float:
        """Predicted wall time: planning, then computing and writing side by side."""
        shards = -(-self.points_left // self.shard_rows)
        abreast = max(min(self.workers, shards), 1)
        return self.planning + max(self.computing / abreast, self.bytes_left / DISK_SPEED)

    @property
    def shortage(self) -> str:
        """Why the results cannot be written, or nothing."""
        place = _existing(self.work.directory.path)
        free = shutil.disk_usage(place).free
        if self.points_left and not os.access(place, os.W_OK | os.X_OK):
            return f"{place} cannot be written to; choose another output_dir="
        if self.bytes_left > free:
            return (
                f"the results take {spell_bytes(self.bytes_left)}, {place} has {spell_bytes(free)} free; "
                "make room, choose output_dir=, or ask for fewer points"
            )
        return ""

    def require_room(self) -> None:
        """Refuse what the run itself would refuse.

        Raises:
            StoreError: There is no room for the results, or no right to write them.
        """
        if self.shortage:
            raise StoreError(self.shortage)

    def describe(self) -> str:
        """Say everything to a user.

        Returns:
            One line per matter, the routes that were considered, the certificate.
        """
        matters = {
            "job": self._job(),
            "plan": self._plan(),
            "memory": self._memory(),
            "on disk": self._disk(),
            "time": self._time(),
            "cost": self._cost(),
            "where": self._where(),
        }
        certificate = self.evaluator.certificate.record()
        return "\n".join(
            [
                *(f"{name:8} {text}" for name, text in matters.items()),
                "",
                "routes, the one in use first:",
                self.evaluator.plan.explain(),
                "",
                "evidence",
                *aligned(list(evidence(certificate))),
                "",
                "dry run: nothing was written",
            ]
        )

    def _job(self) -> str:
        layout = layout_of(self.work)
        return f"{layout.title}, n = {layout.n}, {layout.dtype}"

    def _plan(self) -> str:
        plan = self.evaluator.plan
        kept = ", as this run was begun" if self.plan else ""
        return (
            f"route {plan.route} {plan.mode}, batches of {spell_points(plan.batch)}, "
            f"{plan.chunk} directions at once, on {plan.device}{kept}"
        )

    def _memory(self) -> str:
        plan = self.evaluator.plan
        held = plan.cost.fixed_bytes + plan.batch * plan.cost.point_bytes
        asked, free = self.work.job.options.memory, available_bytes(plan.device)
        budget = "as memory= says" if asked else "half of what is free"
        return f"{spell_bytes(held)} per batch in each process; budget {spell_bytes(asked or free // 2)} ({budget})"

    def _disk(self) -> str:
        points, row = len(self.work.grid), layout_of(self.work).row_bytes()
        shards = len(shard_ranges(points, self.shard_rows))
        copy = ", and once more in result.h5" if points * row <= SMALL else ""
        files = "1 shard" if shards == 1 else f"{shards} shards of {self.shard_rows} points"
        free = shutil.disk_usage(_existing(self.work.directory.path)).free
        return f"{spell_bytes(points * row)} in {files}{copy}; {spell_bytes(free)} free"

    def _time(self) -> str:
        if not self.points_left:
            return "none: everything is there"
        by = "one process" if self.workers == 1 else f"{self.workers} workers"
        rate = self.points_left / max(self.computing, 1e-12)
        return (
            f"about {spell_seconds(self.seconds)} by {by}: planning {spell_seconds(self.planning)}, computing "
            f"{spell_seconds(self.computing)} in all ({spell_rate(rate)} in a process, measured here), writing "
            f"{spell_seconds(self.bytes_left / DISK_SPEED)} at {DISK_SPEED / 1e6:.0f} MB/s meanwhile"
        )

    def _cost(self) -> str:
        hours = self.workers * self.seconds / 3600 if self.points_left else 0.0
        if self.evaluator.plan.device.type == "cuda":
            return f"{hours:.3g} GPU-hours"
        return f"{hours * self.cores:.3g} core-hours ({self.cores} threads in each process)"

    def _where(self) -> str:
        path, points = self.work.directory.path, len(self.work.grid)
        if not self.points_left:
            return f"{path}: complete already"
        done = f": {points - self.points_left} of {points} points are there" if self.plan else ""
        return f"{path}{done}"


def forecast(job: Job, function: BoundFunction, grid: Grid) -> Forecast:
    """Plan a job and evaluate one batch of it; nothing is written.

    Args:
        job: What is asked.
        function: What is differentiated.
        grid: Where.

    Returns:
        What the job would take here.
    """
    began = time.monotonic()
    work = Work(job, function, grid)
    plan = existing_plan(work)
    limits, workers = _workers(work)
    with ExitStack() as stack:
        stack.enter_context(threads(plan.threads if plan else limits.threads))
        evaluator = prepare_run(as_worker(work, limits), plan)
        planning = time.monotonic() - began
        point_seconds = _measured(evaluator, grid)
        cores = torch.get_num_threads()
    left = _points_left(work, plan)
    return Forecast(
        work=work,
        evaluator=evaluator,
        plan=plan,
        workers=workers,
        cores=cores,
        planning=planning,
        computing=left * point_seconds,
        shard_rows=plan.shard_rows if plan else shard_rows(work, evaluator),
        points_left=left,
    )


def _workers(work: Work) -> tuple[Limits, int]:
    asked = work.job.executor
    if asked.name == "none":
        return Limits(), 1
    limits = build_executor(asked.name, asked.options, work.directory.path / "executor").limits
    return limits, int(asked.options.get("workers") or limits.sharing)


def _points_left(work: Work, plan: RunPlan | None) -> int:
    points = len(work.grid)
    if plan is None:
        return points
    if work.directory.result.is_file():
        return 0
    done = work.directory.finished_shards()
    return sum(b - a for index, (a, b) in enumerate(plan.ranges) if index not in done)


def _measured(evaluator: Evaluator, grid: Grid) -> float:
    """Seconds per point of the job's own points, from the second of two batches where they are short."""
    batch = min(evaluator.plan.batch, len(grid))
    rows = 1 if ROUTES[evaluator.plan.route].pointwise else batch
    while True:
        call = _timed(evaluator, grid, rows)
        seconds = call()
        if seconds < ENOUGH_SECONDS:
            seconds = min(seconds, call())
        if rows == batch or seconds > ENOUGH_SECONDS:
            return seconds / rows
        rows = min(8 * rows, batch)


def _timed(evaluator: Evaluator, grid: Grid, rows: int) -> Callable[[], float]:
    plan = evaluator.plan

    def call() -> float:
        began = time.perf_counter()
        found = evaluator.guarded(rows_of(grid, 0, rows).to(plan.device, plan.dtype))
        found.status.sum().item()  # a GPU has then done its work
        return time.perf_counter() - began

    return call


def _existing(path: Path) -> Path:
    """The nearest directory that is there: on the disk that would be written to."""
    path = path.resolve()
    return next(place for place in (path, *path.parents) if place.exists())
