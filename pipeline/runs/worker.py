"""What a worker does: take up a run by its plan and compute shards that are not there yet."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ExecutorError, PipelineError, StoreError
from pipeline.executors.base import Chunk, Share
from pipeline.functions.bound import BoundFunction, bind_function
from pipeline.functions.outputs import choose_outputs
from pipeline.grids.base import Grid
from pipeline.job import Job
from pipeline.registry import Registry, build_registry
from pipeline.runs.binding import bind_job
from pipeline.runs.execution import Execution, prepare_run, run_info, threads
from pipeline.runs.plan import begin, existing_plan, keeping
from pipeline.runs.work import Work

_PREPARED: dict[tuple[Any, ...], Execution] = {}
ONE_AT_A_TIME = threading.Lock()  # forward mode is not safe in threads, and neither is `chdir`


@dataclass(frozen=True)
class Task:
    """A run as it is sent to workers.

    Attributes:
        job: What is asked.
        directory: Where relative paths of the job start.
        run_id: Digest that the worker has to arrive at.
        function: What is differentiated, where the worker cannot find it by its name.
        grid: Where, likewise.
        threads: Of torch, with which the run is planned; None leaves them as they are.
    """

    job: Job
    directory: Path
    run_id: str
    function: BoundFunction | None = None
    grid: Grid | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Report:
    """What a worker has done.

    Attributes:
        points: Points that it evaluated.
        where: Node and process.
        error: Why it stopped, if it did.
        elsewhere: Whether it may go well in another place: a disk may be full on one node alone.
    """

    points: int
    where: str
    error: str = ""
    elsewhere: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.error or f'{self.points} points'}"

    @property
    def node(self) -> str:
        """The node alone."""
        return self.where.partition(" ")[0]


def compute_chunk(task: Task, chunk: Chunk | Share) -> Report:
    """Compute those shards of a chunk that are not there yet.

    Args:
        task: The run.
        chunk: Indices of shards, or a share of a run that this worker plans if no other one has.

    Returns:
        What was done. An error that is raised on purpose comes back in the report; any other one
        comes through, and the shards are given out again.
    """
    with _at_work(task):
        try:
            execution = _execution(task, begins=isinstance(chunk, Share))
            plan = execution.plan
            shards = chunk.of(len(plan.ranges)) if isinstance(chunk, Share) else chunk
            with threads(plan.threads):
                return Report(execution.compute(shards), _here())
        except PipelineError as error:
            return Report(0, _here(), str(error), isinstance(error, StoreError))


@contextmanager
def _at_work(task: Task) -> Iterator[None]:
    with ONE_AT_A_TIME, chdir(task.directory):
        yield


def _here() -> str:
    return f"{_node()} {os.getpid()}"


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _bound(task: Task) -> Work:
    work = Work(task.job, *_objects(task, build_registry(task.job.plugins)))
    if work.run_id != task.run_id:
        raise ExecutorError(
            f"a worker on {_node()} arrives at run {work.run_id}, expected {task.run_id}: it "
            "sees other files or another source than the process that started it; give both the same "
            "file system and the same packages"
        )
    return work


def _execution(task: Task, *, begins: bool) -> Execution:
    """Take up a run; kept for further chunks of the same run, as long as its plan is the same."""
    job = task.job
    key = (task.run_id, task.directory / job.output_dir, job.name, job.options)
    known = _PREPARED.get(key)
    if known is None or known.work.directory.plan() != asdict(known.plan):
        _PREPARED.clear()  # one run at a time: its evaluator may hold much memory
        known = _PREPARED[key] = _take_up(task, begins=begins)
    return known


def _take_up(task: Task, *, begins: bool) -> Execution:
    work = _bound(task)
    plan = existing_plan(work)
    if plan is None and not (begins and work.directory.is_made()):
        raise ExecutorError(
            f"a worker on {_node()} finds no {'directory' if begins else 'run.json in'} "
            f"{work.directory.path.resolve()}: it sees another file system than the process that "
            "started it; give both the same"
        )
    work = work if plan is None else keeping(work, plan)
    with threads(plan.threads if plan else task.threads):
        evaluator = prepare_run(work, plan)
        plan = plan or begin(work, evaluator)  # the plan of the worker that was first
    work = keeping(work, plan)
    observers = Registry.of({}).hook  # those of the run are with the process that started it
    with threads(plan.threads):
        return Execution.of(work, plan, evaluator, observers, run_info(work, plan, set()))


def _objects(task: Task, registry: Registry) -> tuple[BoundFunction, Grid]:
    if task.grid is None:
        return bind_job(task.job, registry)
    if task.function is not None:
        return task.function, task.grid
    record = registry.function(task.job.function)
    function = bind_function(record, task.job.parameters, task.grid.n)
    return choose_outputs(function, task.job.outputs), task.grid
