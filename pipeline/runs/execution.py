"""One process at work on a run: prepare as planned, then batches -> shards."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from operator import methodcaller
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.batches import Batches
from pipeline.autograd.evaluated import Evaluated
from pipeline.autograd.evaluator import Evaluator
from pipeline.autograd.functions.probe import probe_indices, resolve_device
from pipeline.autograd.planning.asked import structures
from pipeline.autograd.planning.planner import prepare
from pipeline.errors import DisagreementError, StoreError
from pipeline.grids.directed import rows_of
from pipeline.job import Options, RunInfo, ShardInfo
from pipeline.runs.contents import attrs_of, grid_of, layout_of
from pipeline.runs.plan import RunPlan, begin, keeping
from pipeline.runs.provenance import collect, now
from pipeline.runs.transfer import Transfer, build_transfer
from pipeline.runs.work import Work
from pipeline.store.parts.own_shard import account_entry
from pipeline.store.writing.background import BackgroundWriter
from pipeline.store.writing.shard import ShardWriter, new_shard

log = logging.getLogger(__name__)


def prepare_run(work: Work, plan: RunPlan | None) -> Evaluator:
    """Prepare the evaluator of a run, on points of its own grid.

    Args:
        work: What the run is about.
        plan: The choice that was made when the run began, or None.

    Returns:
        The evaluator, checked anew on this machine.

    Raises:
        DisagreementError: It cannot be trusted, or not be prepared as it was when the run began.
    """
    job, grid = work.job, work.grid
    options = job.options if plan is None else _as_planned(job.options, plan)
    indices = probe_indices(len(grid))
    points = torch.cat([rows_of(grid, index, index + 1) for index in indices])
    points = work.precision.points(points, resolve_device(options.device))
    try:
        return prepare(work.asked, points, options, count=len(grid), rows=job.shard_rows)
    except DisagreementError as error:
        if plan is None:
            raise
        raise DisagreementError(
            f"{work.directory.path} was begun with route {plan.route} {plan.mode} and keeps it; now {error}\n"
            "Go on where that route works, or compute anew with another output_dir="
        ) from error


def _as_planned(options: Options, plan: RunPlan) -> Options:
    return replace(options, route=plan.route, mode=plan.mode, batch=plan.batch, chunk=plan.chunk)


@dataclass(frozen=True)
class _Finished:
    """A shard that has been computed."""

    index: int
    start: int
    stop: int
    path: Path
    began: float
    failures: Mapping[int, str]


def execute(work: Work, plan: RunPlan | None, hook: Any) -> tuple[RunPlan, int]:
    """Compute what is missing of a run in this process.

    Args:
        work: What the run is about.
        plan: The plan of a run that has begun, or None.
        hook: Caller of the observing hooks.

    Returns:
        The plan that counts, and the number of points evaluated.
    """
    with threads(plan.threads if plan else None):
        evaluator = prepare_run(work, plan)
        plan = plan or begin(work, evaluator)
        work = keeping(work, plan)
        info = take_up(work, plan, work.directory.finished_shards(), hook)
        execution = Execution.of(work, plan, evaluator, hook, info)
        return plan, execution.compute(range(len(plan.ranges)))


def take_up(work: Work, plan: RunPlan, there: Set[int], hook: Any) -> RunInfo:
    """Check that a run can go on, and tell the observers.

    Args:
        work: What the run is about.
        plan: Its plan.
        there: Shards that are there.
        hook: Caller of the observing hooks.

    Returns:
        The run as observers see it.
    """
    info = run_info(work, plan, there)
    work.directory.require_space((info.points - info.points_done) * layout_of(work).row_bytes())
    _keep_configuration(work)
    notify(hook.pipeline_run_started, run=info)
    return info


def run_info(work: Work, plan: RunPlan, there: Set[int]) -> RunInfo:
    """Describe a run for its observers, as it is now.

    Args:
        work: What the run is about.
        plan: Its plan.
        there: Shards that are there.

    Returns:
        The description.
    """
    ranges = plan.ranges
    done = [ranges[index] for index in there if index < len(ranges)]
    return RunInfo(
        run_id=plan.run_id,
        directory=work.directory.path,
        function=work.function.function.name,
        operators=tuple(operator.name for operator in work.operators),
        points=plan.points,
        points_done=sum(stop - start for start, stop in done),
        shards=len(ranges),
        route=f"{plan.route} {plan.mode}",
        batch=plan.batch,
    )


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch use that many threads inside the block: a run keeps their number.

    Args:
        count: How many; None leaves them as they are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Execution:
    """One process at work on a run."""

    work: Work
    plan: RunPlan
    evaluator: Evaluator
    info: RunInfo
    hook: Any

    @cached_property
    def transfer(self) -> Transfer:
        """How batches come to the device and back."""
        plan = self.evaluator.plan
        return build_transfer(plan.device, plan.dtype)

    @classmethod
    def of(
        cls, work: Work, plan: RunPlan, evaluator: Evaluator, hook: Any, info: RunInfo
    ) -> Execution:
        """Take up a run; where another process planned it differently, prepare as planned."""
        chosen = evaluator.plan
        if (chosen.route, chosen.mode, chosen.batch, chosen.chunk) != (
            plan.route, plan.mode, plan.batch, plan.chunk,
        ):  # fmt: skip
            evaluator = prepare_run(work, plan)
        return cls(work, plan, evaluator, info, hook)

    def compute(self, shards: Iterable[int]) -> int:
        """Compute those shards that are not there yet.

        Args:
            shards: Their indices.

        Returns:
            Number of points evaluated.
        """
        ranges, computed = self.plan.ranges, 0
        with BackgroundWriter[_Finished]() as writer:
            for index in shards:
                start, stop = ranges[index]
                if not self.work.directory.shard(index).exists():
                    self._shard(writer, index, start, stop)
                    computed += stop - start
            writer.wait()
            self._announce(writer)
        return computed

    def _shard(
        self, writer: BackgroundWriter[_Finished], index: int, start: int, stop: int
    ) -> None:
        began, started = time.monotonic(), now()
        path = self.work.directory.shard(index)
        layout, attrs = layout_of(self.work), attrs_of(self.work, start, stop)
        # one row of every shard, the same one whoever computes it
        checked = Random(f"{self.plan.run_id} {index}").randrange(start, stop)
        batches = Batches(self.evaluator, self.work.job.options)
        writer.begin(new_shard(path, layout, stop - start, attrs))
        for _, points, found in batches.over(self._points, start, stop, checked):
            notify(self.hook.pipeline_batch_evaluated, run=self.info, points=len(points))
            writer.call(self._append(points, found))
            self._announce(writer)
        failures = batches.failures
        evidence = _entries(batches.certificate.record())
        writer.call(methodcaller("describe", "certificate", evidence))
        writer.call(methodcaller("describe", "grid", grid_of(self.work)))
        provenance = self._provenance(started, failures)
        provenance |= account_entry(provenance, evidence)
        writer.call(methodcaller("describe", "provenance", provenance))
        writer.commit(_Finished(index, start, stop, path, began, failures))

    def _announce(self, writer: BackgroundWriter[_Finished]) -> None:
        for done in writer.committed():
            seconds = time.monotonic() - done.began
            shard = ShardInfo(done.index, done.start, done.stop, done.path, seconds)
            notify(self.hook.pipeline_shard_finished, run=self.info, shard=shard)
            for position, reason in done.failures.items():
                notify(
                    self.hook.pipeline_point_failed, run=self.info, index=position, reason=reason
                )

    def _append(self, points: Tensor, found: Evaluated) -> Callable[[ShardWriter], None]:
        """What the writing thread does: it is the one that waits for a device."""
        d = self.work.function.n
        tensors = {"x": points[:, :d], **found.datasets, "status": found.status}
        if points.shape[1] > d:
            tensors["direction"] = points[:, d:]
        rows = self.transfer.take(tensors)
        return lambda shard: shard.append(rows())

    def _points(self, start: int, stop: int) -> Tensor:
        rows = rows_of(self.work.grid, start, stop)
        return self.transfer.put(self.work.precision.rounded(rows))

    def _provenance(self, started: str, failures: Mapping[int, str]) -> dict[str, Any]:
        job, plan = self.work.job, self.evaluator.plan
        facts = {
            "started": started,
            "finished": now(),
            "seed": job.seed,
            "dtype": job.options.dtype,
            "device": str(plan.device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "identity_json": json.dumps(self.work.identity, sort_keys=True),
            "plugins_json": json.dumps([str(Path(file).resolve()) for file in job.plugins]),
            "structure_json": json.dumps(
                {
                    name: found.record()
                    for name, found in structures(self.work.function, self.work.variable).items()
                }
            ),
            "function_source": self.work.function.function.source,
            "function_from": "plugin" if self.work.function.loadable else "object",
            "failures_json": json.dumps(failures),
        }
        return {**collect(job.config), **facts}


def _entries(record: Mapping[str, Any]) -> dict[str, Any]:
    """Values that HDF5 can hold: numbers and texts as they are, the rest as JSON."""
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in record.items()
    }


def _keep_configuration(work: Work) -> None:
    """Write the composed configuration beside the results, as Hydra does."""
    files = {name: text for name, text in work.job.config.items() if name.endswith(".yaml")}
    folder = work.directory.path / ".hydra"
    try:
        if files:
            folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise StoreError(
            f"cannot write the configuration to {folder}: {error}; finished shards are safe: make "
            "room or mend the cause, then run the same command again"
        ) from error


def notify(hook: Any, **facts: Any) -> None:
    """Tell every observer; one that raises is logged and disturbs nobody.

    Args:
        hook: Caller of one hook.
        facts: Its arguments.
    """
    for observer in hook.get_hookimpls():
        try:
            observer.function(*(facts[name] for name in observer.argnames))
        except Exception:  # an observer may be anybody's code and must not cost results
            log.exception("observer %s raised and is ignored", observer.plugin_name)
