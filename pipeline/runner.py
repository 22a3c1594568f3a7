"""Runs a job: function + grid -> prepare -> batches -> shards -> result -> observers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import DisagreementError, MissingShardsError, StoreError
from pipeline.functions.bound import BoundFunction
from pipeline.grids.base import Grid
from pipeline.job import Job, Summary
from pipeline.runs.contents import attrs_of, layout_of
from pipeline.runs.distribution import distribute
from pipeline.runs.execution import execute, notify, run_info
from pipeline.runs.plan import existing_plan, keeping, same_but_for_the_source
from pipeline.runs.work import Work
from pipeline.store.reading.reader import Results, open_results
from pipeline.store.writing.assembly import assemble

log = logging.getLogger(__name__)


def run(job: Job, function: BoundFunction, grid: Grid, hook: Any) -> Summary:
    """Evaluate a function's derivatives on a grid and store them; go on where it stopped.

    Args:
        job: What is asked.
        function: What is differentiated.
        grid: Where.
        hook: Caller of the observing hooks.

    Returns:
        What was computed and where it is.

    Raises:
        PipelineError: The job cannot be done; finished shards stay.
    """
    began = time.monotonic()
    work = Work(job, function, grid)
    plan = existing_plan(work)
    if plan is not None and (complete := _complete(work, began)):
        return complete
    if plan is None:
        _tell_of_other_sources(work)
    work.directory.make()
    compute = distribute if job.executor.name != "none" else execute
    with _logged(work.directory.path / "pipeline.log"), _told_what_is_safe(work):
        plan, computed = compute(work, plan, hook)
        layout = layout_of(keeping(work, plan))
        assemble(work.directory, layout, plan.ranges, attrs_of(work, 0, len(grid)))
        work.directory.tidy()
        with open_results(work.directory.result) as results:
            summary = _summary(results, work, computed, began)
        done = run_info(work, plan, set(range(len(plan.ranges))))
        notify(hook.pipeline_run_finished, run=done, summary=summary)
    return summary


def recall(job: Job, function: BoundFunction, grid: Grid) -> tuple[Path, Summary | None]:
    """Look whether a run is complete; computes nothing.

    Args:
        job: What is asked.
        function: What is differentiated.
        grid: Where.

    Returns:
        The directory of the run, and what it has come to if it is complete.
    """
    began = time.monotonic()
    work = Work(job, function, grid)
    begun = existing_plan(work) is not None
    return work.directory.path, _complete(work, began) if begun else None


def _tell_of_other_sources(work: Work) -> None:
    others = same_but_for_the_source(work)
    if others:
        log.warning(
            "function %r, or what it refers to, has changed since run %s: this is a new run, %s",
            work.function.function.name, ", ".join(others[-3:]), work.run_id,
        )  # fmt: skip


def _complete(work: Work, began: float) -> Summary | None:
    """Sum up a run with nothing left to do, None for others; a result that has lost shards is taken apart."""
    if not work.directory.result.is_file():
        return None
    try:
        with open_results(work.directory.result) as results:
            disagreements = json.loads(str(results.certificate.get("disagreements", "[]")))
            summary = _summary(results, work, 0, began)
    except MissingShardsError as error:
        log.warning("%s: what is missing is computed again", error)
        work.directory.result.unlink(missing_ok=True)  # another process may have been first
        return None
    if disagreements and work.job.options.on_disagreement == "error":
        listed = "\n".join(f"  - {reason}" for reason in disagreements)
        raise DisagreementError(
            f"{work.directory.result} was computed with on_disagreement=warn although its oracles "
            f"disagree:\n{listed}\non_disagreement=warn accepts it"
        )
    return summary


def _summary(results: Results, work: Work, computed: int, began: float) -> Summary:
    path = work.directory.result
    counts, size = results.counts(), results.provenance.get("shard_bytes")
    return Summary(
        path=path,
        points=len(work.grid),
        computed=computed,
        **{name: counts[name] for name in ("nonfinite", "nonsmooth", "failed")},
        seconds=time.monotonic() - began,
        bytes=path.stat().st_size + (work.directory.shard_bytes() if size is None else size),
    )


class _RunLog(logging.FileHandler):
    """The log of a run; where it cannot be written, the run itself says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Let go of a line that cannot be written."""


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write what the package logs to a file of the run as well.

    Where nobody has set up logging, Python shows warnings itself, but only as long as there is no
    handler at all.

    Raises:
        StoreError: The log cannot be begun.
    """
    try:
        handler = _RunLog(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; choose another output_dir=") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("pipeline")
    shown = None if root.hasHandlers() else logging.lastResort
    for each in filter(None, (shown, handler)):
        root.addHandler(each)
    try:
        yield
    finally:
        for each in filter(None, (shown, handler)):
            root.removeHandler(each)
        with suppress(OSError):  # a disk that is full: the store says it better
            handler.close()


@contextmanager
def _told_what_is_safe(work: Work) -> Iterator[None]:
    """Say, when the user stops the run, what of it is there."""
    try:
        yield
    except KeyboardInterrupt:
        plan = existing_plan(work)
        if plan is None:
            log.warning("interrupted while the run was planned; nothing has been computed")
        else:
            log.warning(
                "interrupted: %d of %d shards are safe in %s; run the same command again to go on",
                len(work.directory.finished_shards()), len(plan.ranges), work.directory.path,
            )  # fmt: skip
        raise
