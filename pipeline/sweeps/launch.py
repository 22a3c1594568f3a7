"""Launchers of sweeps: every job is a row, whatever becomes of it, and none of them ends the sweep.

Hydra imports this for every command: what takes time is imported where it is used.
"""

from __future__ import annotations

import logging
import os
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, run_job, setup_globals
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import ExecutorError, PipelineError, told
from pipeline.sweeps.composing import Composer
from pipeline.sweeps.table import COMPLETE, DONE, FAILED, LOST, Row, sweep_in

if TYPE_CHECKING:
    from pipeline.executors.base import Executor, Future
    from pipeline.registry import Registry

log = logging.getLogger("pipeline.sweep")
POLL_SECONDS = 0.5
LARGEST_BATCH = 1000  # jobs that are given out at once: what Slurm takes as an array


@dataclass(frozen=True)
class Composed:
    """A job of a sweep with its configuration."""

    row: Row
    config: DictConfig


Series = tuple[Composed, ...]  # the jobs of one task, in the order in which they are run


@dataclass(frozen=True)
class Call:
    """What runs composed jobs, one after the other, here or in another process.

    Attributes:
        task: The application.
        context: Hydra's, for its callbacks.
    """

    task: TaskFunction
    context: HydraContext

    def __call__(self, configs: Sequence[DictConfig]) -> list[JobReturn]:
        """Run them; what one raises comes back in its return."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        if cores:
            os.environ.setdefault("OMP_NUM_THREADS", cores)  # torch takes all of the node's else
        setup_globals()
        return [self._run(config, marked=len(configs) > 1) for config in configs]

    def _run(self, config: DictConfig, *, marked: bool) -> JobReturn:
        if marked:
            _mark(config).parent.mkdir(parents=True, exist_ok=True)
            _mark(config).touch()
        config = deepcopy(
            config
        )  # Hydra makes it read-only, and a job may be started again with it
        with open_dict(config.hydra.job):
            config.hydra.job.id = os.environ.get("SLURM_JOB_ID", str(config.hydra.job.num))
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def _mark(config: DictConfig) -> Path:
    """What is there once a process that runs several jobs has come to this one."""
    return Path(str(config.hydra.sweep.dir), ".begun", str(config.hydra.job.num))


class RestartableCall(Call):
    """A call that submitit starts again by itself when a task is out of time."""

    def checkpoint(self, configs: Sequence[DictConfig]) -> Any:
        """Say to submitit what has to be done then: the same, and finished shards are there."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, configs)


class Quiet(JobReturn):
    """What Hydra's own sweeper gets: it asks for the value of a failed job only in order to stop."""

    @property
    def return_value(self) -> Any:
        """The value, NaN where there is none."""
        return self._return_value if self.status == JobStatus.COMPLETED else float("nan")

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class Hush(Callback):
    """The last callback of a single run: it leaves an error whose words are ours to the command line."""

    def on_run_end(self, config: DictConfig, **others: Any) -> None:
        """Keep Hydra from printing what failed, once every callback has been told."""
        done: JobReturn = others["job_return"]
        if isinstance(done._return_value, PipelineError | OmegaConfBaseException):
            done.__class__ = Quiet


class SweepLauncher(Launcher):
    """Runs what is missing of a sweep; a run that is complete is known by its identity.

    Attributes:
        call: How a job is run.
    """

    call: type[Call] = Call

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra composed."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run jobs, and keep the table of the sweep.

        Args:
            job_overrides: What is set for each.
            initial_job_idx: Number of the first one.

        Returns:
            What they returned, in the same order.
        """
        setup_globals()
        composer = Composer(self.hydra_context.config_loader, self.config)
        jobs = [
            _composed(composer, words, number)
            for number, words in enumerate(job_overrides, initial_job_idx)
        ]
        sweep = sweep_in(Path(str(self.config.hydra.sweep.dir)))
        known = [self._announced(job, done) for job, done in recall(jobs)]
        returns = {job.row.job: done for job, done in known if done is not None}
        missing = [job for job, done in known if done is None]
        sweep.put([_told(job, done, COMPLETE) for job, done in known if done is not None])
        sweep.put([job.row for job in missing])
        log.info("jobs: %d, to run: %d", len(jobs), len(missing))
        for job, done in self._run(missing, self.call(self.task_function, self.hydra_context)):
            returns[job.row.job] = done
            row = _told(job, done, DONE)
            sweep.put([row])
            log.info(
                "#%d %s %s: %s", row.job, sweep.own_words(row), row.outcome, row.reason or row.run
            )
        return [self._passed_on(returns[job.row.job]) for job in jobs]

    @abstractmethod
    def _run(self, jobs: Sequence[Composed], call: Call) -> Iterator[tuple[Composed, JobReturn]]:
        """Run jobs, and give each with what it returned as soon as it ends."""

    def _announced(
        self, job: Composed, done: JobReturn | None
    ) -> tuple[Composed, JobReturn | None]:
        """Let a job that is refused fail here and now, as Hydra's callbacks expect."""
        if done is None or done.status == JobStatus.COMPLETED:
            return job, done
        refuse = partial(_refuse, done._return_value)
        return job, Call(refuse, self.hydra_context)([job.config])[0]

    def _passed_on(self, done: JobReturn) -> JobReturn:
        if not str(self.config.hydra.sweeper._target_).endswith((".BasicSweeper", ".EverySweeper")):
            return done
        quiet = Quiet()
        vars(quiet).update(vars(done))
        return quiet


def _composed(composer: Composer, words: Sequence[str], number: int) -> Composed:
    config = composer.compose(words)
    with open_dict(config.hydra.job):
        config.hydra.job.num = number
    return Composed(Row(number, " ".join(filter_overrides(words))), config)


class InOrderLauncher(SweepLauncher):
    """One job after the other, in this process."""

    def _run(self, jobs: Sequence[Composed], call: Call) -> Iterator[tuple[Composed, JobReturn]]:
        for job in jobs:
            yield job, call([job.config])[0]


class ProcessesLauncher(SweepLauncher):
    """Jobs in other processes, by an executor of the pipeline.

    Attributes:
        jobs_per_task: How many a process runs one after the other, once it has started.
    """

    jobs_per_task: int = 1

    @abstractmethod
    def executor(self) -> Executor:
        """Who runs them."""

    def _run(self, jobs: Sequence[Composed], call: Call) -> Iterator[tuple[Composed, JobReturn]]:
        from pipeline.executors.base import stopped_with

        with self.executor() as executor, stopped_with(executor):
            running, jobs = _at_work(executor, jobs)
            size = self.jobs_per_task
            waiting = deque(tuple(jobs[at : at + size]) for at in range(0, len(jobs), size))
            while waiting or running:
                if waiting and len(running) < LARGEST_BATCH:
                    running |= _given_out(executor, call, waiting, patient=bool(running))
                ended = [future for future in running if future.done()]
                for future in ended:
                    outcomes, left = _outcomes(future, running.pop(future))
                    waiting.extend([left] if left else [])
                    yield from outcomes
                time.sleep(0 if ended else POLL_SECONDS)


def _given_out(
    executor: Executor, call: Call, waiting: deque[Series], *, patient: bool
) -> dict[Future, Series]:
    """Give out the next jobs; where others still run, those that are refused wait for these."""
    batch = [waiting.popleft() for _ in range(min(len(waiting), LARGEST_BATCH))]
    try:
        futures = executor.submit(call, [[job.config for job in series] for series in batch])
    except ExecutorError as error:
        if not patient:
            raise
        log.warning("%s; trying again later", error)
        waiting.extendleft(reversed(batch))
        return {}
    executor.remember([_places(series) for series in batch], futures)
    return dict(zip(futures, batch, strict=True))


@dataclass(frozen=True, eq=False)
class Earlier:
    """A task that an earlier command has given out.

    Attributes:
        future: The task.
        asked: Which of its jobs are asked for now, by their positions.
    """

    future: Future
    asked: tuple[int, ...]

    def done(self) -> bool:
        """Whether it has ended."""
        return self.future.done()

    def result(self) -> list[JobReturn]:
        """What these jobs returned."""
        returned = self.future.result()
        return [returned[position] for position in self.asked]


def _at_work(
    executor: Executor, jobs: Sequence[Composed]
) -> tuple[dict[Future, Series], list[Composed]]:
    """Find the jobs that an earlier command has given out and that still wait or run; and the others."""
    left = {_places([job])[0]: job for job in jobs if job.row.run}
    running: dict[Future, Series] = {}
    for places, future in executor.recover():
        asked = {at: left.pop(place) for at, place in enumerate(places) if place in left}
        if asked:
            running[Earlier(future, tuple(asked))] = tuple(asked.values())
    found = {job.row.job for series in running.values() for job in series}
    if found:
        log.info("%d jobs wait or run already, given out by an earlier command", len(found))
    return running, [job for job in jobs if job.row.job not in found]


def _places(jobs: Sequence[Composed]) -> tuple[str, ...]:
    """The directories of their runs, which name them whatever command they belong to."""
    return tuple(job.row.run and str(Path(job.row.run).resolve()) for job in jobs)


def _outcomes(future: Future, series: Series) -> tuple[list[tuple[Composed, JobReturn]], Series]:
    """Say what has become of the jobs of a task: when it is gone, the one that it was at is lost.

    Of a task of an earlier command nobody knows at which it was: what is missing is given out again.

    Returns:
        The jobs that have ended, and those that have to be given out again.
    """
    try:
        return list(zip(series, future.result(), strict=True)), ()
    except Exception as error:  # each engine has its own errors for a process that is gone
        reason = _Lost(str(error))
    begun = [job.row.job for job in series if _mark(job.config).exists()]
    first = None if isinstance(future, Earlier) else series[0].row.job
    lost = begun[-1] if begun else first
    known = [
        (job, _failed(job, reason) if done is None and job.row.job == lost else done)
        for job, done in recall(series)  # what had been finished is on disk
    ]
    ended = [(job, done) for job, done in known if done is not None]
    return ended, tuple(job for job, done in known if done is None)


def _refuse(error: Exception, config: DictConfig) -> NoReturn:
    raise error


class _Lost(Exception):  # noqa: N818 - it is what happened to the job
    """The process of a job is gone."""


def _failed(job: Composed, error: Exception) -> JobReturn:
    failed = JobReturn(overrides=job.row.overrides.split(), status=JobStatus.FAILED)
    failed.return_value = error
    return failed


def _told(job: Composed, done: JobReturn, good: str) -> Row:
    if done.status == JobStatus.COMPLETED:
        return replace(job.row, outcome=good, value=done.return_value)
    error = done._return_value
    reason = f"{error}" if isinstance(error, PipelineError | _Lost) else told(error)
    return replace(job.row, outcome=LOST if isinstance(error, _Lost) else FAILED, reason=reason)


def recall(jobs: Sequence[Composed]) -> list[tuple[Composed, JobReturn | None]]:
    """Look what is known of jobs before they run.

    Args:
        jobs: Composed.

    Returns:
        Each with the directory of its run, and with its outcome: of a run that is complete, or of
        a configuration that cannot be used; None where it has to run.
    """
    registries: dict[tuple[str, ...], Registry] = {}
    return [_recall(job, registries) for job in jobs]


def _recall(
    job: Composed, registries: dict[tuple[str, ...], Registry]
) -> tuple[Composed, JobReturn | None]:
    from pipeline.registry import build_registry
    from pipeline.runner import recall as recall_run
    from pipeline.runs.binding import bind_job
    from pipeline.settings import to_job

    try:
        asked = to_job(
            OmegaConf.masked_copy(job.config, [str(key) for key in job.config if key != "hydra"])
        )
        if asked.dry_run:
            return job, None
        if asked.plugins not in registries:
            registries[asked.plugins] = build_registry(asked.plugins)
        # which device a job asks for may be found where it runs only
        asked = replace(asked, options=replace(asked.options, device="cpu"))
        function, grid = bind_job(asked, registries[asked.plugins])
        place, found = recall_run(asked, function, grid)
        job = replace(job, row=replace(job.row, run=str(place)))
    except PipelineError as error:
        return job, _failed(job, error)
    if found is None:
        return job, None
    done = JobReturn(overrides=job.row.overrides.split(), status=JobStatus.COMPLETED)
    done.return_value = found.value
    return job, done
