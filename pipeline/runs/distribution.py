"""One run over many workers: gives out the shards that are not there, and again those that are lost."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.autograd.functions.probe import resolve_device
from pipeline.autograd.memory import available_bytes
from pipeline.errors import ExecutorError, told
from pipeline.executors import build_executor
from pipeline.executors.base import Chunk, Executor, Future, Limits, Share, stopped_with
from pipeline.job import RunInfo, ShardInfo
from pipeline.runs.contents import layout_of
from pipeline.runs.execution import notify, prepare_run, take_up, threads
from pipeline.runs.plan import RunPlan, begin, existing_plan, keeping
from pipeline.runs.work import Work
from pipeline.runs.worker import Report, Task, compute_chunk
from pipeline.store.reading.reader import open_results

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
Running = list[tuple[Chunk | Share, Future]]


def distribute(work: Work, plan: RunPlan | None, hook: Any) -> tuple[RunPlan, int]:
    """Compute what is missing of a run by the workers of an executor.

    Nothing but the shards on disk says what is done: this process may die and be started again,
    and two of them may work on the same run.

    Args:
        work: What the run is about.
        plan: The plan of a run that has begun, or None.
        hook: Caller of the observing hooks.

    Returns:
        The plan that counts, and the number of points evaluated.

    Raises:
        ExecutorError: Shards are still missing after the last retry.
    """
    asked = work.job.executor
    executor = build_executor(asked.name, asked.options, work.directory.path / "executor")
    with executor, stopped_with(executor):
        there = work.directory.finished_shards() if plan else set()
        plan, running = (plan, executor.recover()) if plan else _begin(work, executor)
        work = keeping(work, plan)
        watch = Watch(work, plan, take_up(work, plan, there, hook), hook, there)
        for attempt in range(asked.retries + 1):
            if attempt:
                log.warning("%d shards were lost and are given out again", len(watch.missing()))
                executor.avoid(sorted(watch.bad))
                running = executor.recover()
            running += _given_out(work, executor, watch.chunks(executor, running))
            watch.until_done(running)
            if not watch.missing():
                return plan, watch.points
    raise ExecutorError(_lament(watch, asked.retries))


@dataclass
class Watch:
    """Looks at the shards of a run while others compute them, and tells the observers.

    Attributes:
        work: What the run is about.
        plan: Its plan.
        info: The run as observers see it.
        hook: Caller of the observing hooks.
        seen: Shards of which the observers know.
        points: Points that have become durable since the watch began.
        lost: What was last said of a worker that has not done its shards.
        bad: Nodes on which shards cannot be written.
        suspects: Shards at which a worker may have been lost.
    """

    work: Work
    plan: RunPlan
    info: RunInfo
    hook: Any
    seen: set[int]
    points: int = 0
    lost: str = ""
    bad: set[str] = field(default_factory=set)
    suspects: set[int] = field(default_factory=set)

    def missing(self) -> list[int]:
        """Indices of the shards that are not there."""
        there = self.work.directory.finished_shards()
        return [index for index in range(len(self.plan.ranges)) if index not in there]

    def chunks(self, executor: Executor, running: Running) -> list[Chunk]:
        """Distribute those that nobody has in hand; one at which a worker was lost costs no other one."""
        taken = {shard for chunk, _ in running for shard in self._shards(chunk)}
        left = [index for index in self.missing() if index not in taken]
        alone = [(index,) for index in left if index in self.suspects]
        return executor.split([index for index in left if index not in self.suspects]) + alone

    def _shards(self, chunk: Chunk | Share) -> Chunk:
        return chunk.of(len(self.plan.ranges)) if isinstance(chunk, Share) else chunk

    def until_done(self, running: Running) -> None:
        """Wait until all that runs has ended, and announce shards as they appear.

        Raises:
            ExecutorError: A worker stopped for a reason that would come again.
        """
        waiting = list(running)
        while waiting:
            time.sleep(POLL_SECONDS)
            ended = [(chunk, future) for chunk, future in waiting if future.done()]
            self._announce()
            for chunk, future in ended:
                waiting.remove((chunk, future))
                self._take(chunk, future)

    def _take(self, chunk: Chunk | Share, future: Future) -> None:
        try:
            report: Report = future.result()
        except Exception as error:  # each engine has its own errors for a process that is gone
            self._note(f"a worker was lost: {told(error)}")
            there = self.work.directory.finished_shards()
            left = [shard for shard in self._shards(chunk) if shard not in there]
            self.suspects.update(left[:2])  # one is computed while the one before it is written
            return
        if report.error and not report.elsewhere:
            raise ExecutorError(f"a worker on {report.where} stopped: {report.error}")
        if report.error:
            self.bad.add(report.node)
            self._note(f"a worker on {report.where} stopped: {report.error}")

    def _note(self, reason: str) -> None:
        if reason != self.lost:
            log.warning("%s", reason)
        self.lost = reason

    def _announce(self) -> None:
        new = self.work.directory.finished_shards() - self.seen
        self.seen |= new
        for index in sorted(new):
            start, stop = self.plan.ranges[index]
            self.points += stop - start
            path = self.work.directory.shard(index)
            seconds, failures = _account(path)
            shard = ShardInfo(index, start, stop, path, seconds)
            notify(self.hook.pipeline_shard_finished, run=self.info, shard=shard)
            for position, reason in failures.items():
                notify(
                    self.hook.pipeline_point_failed, run=self.info, index=position, reason=reason
                )


def _account(shard: Path) -> tuple[float, dict[int, str]]:
    """How long a shard took, to the second, and at which points the function raised."""
    with open_results(shard) as results:
        facts = results.provenance
    took = datetime.fromisoformat(facts["finished"]) - datetime.fromisoformat(facts["started"])
    failures = json.loads(facts["failures_json"])
    return took.total_seconds(), {int(index): reason for index, reason in failures.items()}


def as_worker(work: Work, limits: Limits) -> Work:
    """See a run as one of its workers does, with its share of the memory.

    Args:
        work: What the run is about.
        limits: What one worker has.

    Returns:
        The same run.
    """
    options = work.job.options
    memory = options.memory or limits.memory
    if memory is None and limits.sharing > 1:
        memory = available_bytes(resolve_device("cpu")) // 2 // limits.sharing
    return replace(work, job=replace(work.job, options=replace(options, memory=memory)))


def _begin(work: Work, executor: Executor) -> tuple[RunPlan, Running]:
    """Have a run planned where it will be computed: by the cores, memory and devices of a worker."""
    if not executor.limits.elsewhere:
        seen = as_worker(work, executor.limits)
        with threads(executor.limits.threads):
            return begin(seen, prepare_run(seen, None)), []
    log.info("a worker plans the run")  # and goes on at once, else it would wait and start twice
    work.directory.require_space(len(work.grid) * layout_of(work).row_bytes())
    most = -(-len(work.grid) // (work.job.shard_rows or 1))
    for _ in range(work.job.executor.retries + 1):
        running = executor.recover() or _given_out(work, executor, executor.shares(most))
        plan, lost = _first_plan(work, [future for _, future in running])
        if plan is not None:
            return plan, running
        executor.avoid(sorted({report.node for report in lost if isinstance(report, Report)}))
    raise ExecutorError(f"every worker that was to plan the run was lost; the last one: {lost[-1]}")


def _first_plan(
    work: Work, futures: Sequence[Future]
) -> tuple[RunPlan | None, list[Report | Exception]]:
    """Wait for the plan of the first worker that has one, or until all are lost, and how."""
    waiting = list(futures)
    lost: list[Report | Exception] = []
    while waiting:
        time.sleep(POLL_SECONDS)
        ended = [future for future in waiting if future.done()]
        plan = existing_plan(work)  # looked for afterwards: who has ended has written it
        if plan is not None:
            return plan, lost
        for future in ended:
            waiting.remove(future)
            lost.append(_unplanned(work, future))
            log.warning("a worker that was to plan the run was lost: %s", lost[-1])
    return None, lost


def _unplanned(work: Work, future: Future) -> Report | Exception:
    """How a worker was lost that may do better elsewhere; else raises."""
    try:
        report: Report = future.result()
    except Exception as error:  # each engine has its own errors for a process that is gone
        return error
    if report.elsewhere:
        return report
    unseen = f"what it wrote to {work.directory.path} is not seen here"
    raise ExecutorError(f"a worker on {report.where} cannot plan the run: {report.error or unseen}")


def _given_out(work: Work, executor: Executor, chunks: Sequence[Chunk | Share]) -> Running:
    if not chunks:
        return []
    futures = executor.submit(partial(compute_chunk, _task(work, executor.limits)), chunks)
    executor.remember(chunks, futures)
    return list(zip(chunks, futures, strict=True))


def _task(work: Work, limits: Limits) -> Task:
    """A run with everything that a worker cannot find by name."""
    function = None if work.function.loadable else work.function
    grid = None if work.job.grid else work.grid
    job = as_worker(work, limits).job
    return Task(job, Path.cwd(), work.run_id, function, grid, limits.threads)


def _lament(watch: Watch, retries: int) -> str:
    missing, place = watch.missing(), watch.work.directory.path
    start, stop = watch.plan.ranges[missing[0]]
    return (
        f"{len(missing)} of {len(watch.plan.ranges)} shards are still missing after {retries} retries, "
        f"the first one of points {start} to {stop - 1}; last loss: {watch.lost or 'none was said'}. What is "
        f"finished is safe in {place}: mend the cause, then run the same command again"
    )
