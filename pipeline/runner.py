"""Runs a job: function + grid -> prepare -> batches -> shards -> result -> observers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import methodcaller
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.evaluator import Evaluated, Evaluator
from pipeline.autograd.function_probe import resolve_device, resolve_dtype
from pipeline.autograd.planner import Asked, prepare, probe_indices
from pipeline.errors import DisagreementError, MissingShardsError, StoreError
from pipeline.function import BoundFunction
from pipeline.grids.base import Grid
from pipeline.job import Job, Options, RunInfo, ShardInfo, Summary
from pipeline.plan import RunPlan, Work
from pipeline.provenance import collect, now
from pipeline.store.background import BackgroundWriter
from pipeline.store.integrity import require_own_shards
from pipeline.store.reader import open_results
from pipeline.store.result import assemble
from pipeline.store.run_directory import shard_ranges
from pipeline.store.shard import new_shard

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
    plan = work.existing_plan()
    if plan is not None and _is_complete(work):
        return _summarise(work, 0, began)
    work.directory.make()
    with _logged(work.directory.path / "pipeline.log"):
        evaluator = prepare_run(work, plan)
        plan = plan or work.begin(evaluator)
        execution = Execution.of(work, plan, evaluator, hook)
        computed = execution.compute()
        shards = [work.directory.shard(index) for index in range(execution.info.shards)]
        assemble(work.directory.result, work.layout, shards, work.attrs(0, len(grid)))
        summary = _summarise(work, computed, began)
        notify(hook.pipeline_run_finished, run=execution.info, summary=summary)
    return summary


def _is_complete(work: Work) -> bool:
    """Tell whether there is nothing left to do; a result that has lost shards is taken apart."""
    if not work.directory.result.is_file():
        return False
    try:
        with open_results(work.directory.result) as results:
            disagreements = json.loads(str(results.certificate.get("disagreements", "[]")))
    except MissingShardsError as error:
        log.warning("%s: what is missing is computed again", error)
        work.directory.result.unlink()
        return False
    if disagreements and work.job.options.on_disagreement == "error":
        listed = "\n".join(f"  - {reason}" for reason in disagreements)
        raise DisagreementError(
            f"{work.directory.result} was computed with on_disagreement=warn although its oracles "
            f"disagree:\n{listed}\non_disagreement=warn accepts it"
        )
    return True


def explain(job: Job, function: BoundFunction, grid: Grid) -> str:
    """Say how a job would be evaluated, and why so; computes and writes nothing.

    Args:
        job: What is asked.
        function: What is differentiated.
        grid: Where.

    Returns:
        The candidates with their predicted cost, agreement and verdict, then the certificate.
    """
    work = Work(job, function, grid)
    plan = work.existing_plan()
    evaluator = prepare_run(work, plan)
    chosen, where = evaluator.plan, work.directory.path
    lines = [
        f"{len(grid)} points to {where}, in batches of {chosen.batch}, {chosen.chunk} directions at once",
        *(
            []
            if plan is None
            else ["this run has begun: it keeps its route, mode, batch and chunk"]
        ),
        "",
        chosen.explain(),
        "",
        *(f"{name}: {value}" for name, value in evaluator.certificate.record().items()),
    ]
    return "\n".join(lines)


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
    points = torch.cat([grid[index : index + 1] for index in indices])
    points = points.to(resolve_device(options.device), resolve_dtype(options.dtype))
    function = work.function
    asked = Asked(
        function.f, function.function.name, job.operators, job.order, function.output_shape
    )
    try:
        return prepare(asked, points, options, count=len(grid), rows=job.shard_rows)
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


@dataclass(frozen=True)
class Execution:
    """One process at work on a run."""

    work: Work
    plan: RunPlan
    evaluator: Evaluator
    info: RunInfo
    hook: Any

    @classmethod
    def of(cls, work: Work, plan: RunPlan, evaluator: Evaluator, hook: Any) -> Execution:
        """Take up a run; where another process planned it differently, prepare as planned."""
        chosen = evaluator.plan
        if (chosen.route, chosen.mode, chosen.batch, chosen.chunk) != (
            plan.route, plan.mode, plan.batch, plan.chunk,
        ):  # fmt: skip
            evaluator = prepare_run(work, plan)
        ranges = shard_ranges(plan.points, plan.shard_rows)
        done = work.directory.finished_shards()
        require_own_shards(work.directory, plan.run_id, ranges)
        info = RunInfo(
            run_id=plan.run_id,
            directory=work.directory.path,
            function=work.function.function.name,
            operators=tuple(operator.name for operator in work.operators),
            points=plan.points,
            points_done=sum(ranges[index][1] - ranges[index][0] for index in done),
            shards=len(ranges),
            route=f"{plan.route} {plan.mode}",
            batch=plan.batch,
        )
        return cls(work, plan, evaluator, info, hook)

    def compute(self) -> int:
        """Compute the shards that are not there.

        Returns:
            Number of points evaluated.

        Raises:
            KeyboardInterrupt: The user stops the run; finished shards stay.
        """
        ranges = shard_ranges(self.plan.points, self.plan.shard_rows)
        self.work.directory.require_space(
            (self.info.points - self.info.points_done) * self.work.layout.row_bytes()
        )
        _keep_configuration(self.work)
        notify(self.hook.pipeline_run_started, run=self.info)
        computed = 0
        try:
            with BackgroundWriter[_Finished]() as writer:
                for index, (start, stop) in enumerate(ranges):
                    if not self.work.directory.shard(index).exists():
                        self._shard(writer, index, start, stop)
                        computed += stop - start
                writer.wait()
                self._announce(writer)
        except KeyboardInterrupt:
            done = len(self.work.directory.finished_shards())
            log.warning(
                "interrupted: %d of %d shards are safe in %s; run the same command again to go on",
                done, len(ranges), self.info.directory,
            )  # fmt: skip
            raise
        return computed

    def _shard(
        self, writer: BackgroundWriter[_Finished], index: int, start: int, stop: int
    ) -> None:
        began, started = time.monotonic(), now()
        path = self.work.directory.shard(index)
        layout, attrs = self.work.layout, self.work.attrs(start, stop)
        failures: dict[int, str] = {}
        certificate = self.evaluator.certificate
        # one row of every shard, the same one whoever computes it
        checked = Random(f"{self.plan.run_id} {index}").randrange(start, stop)
        writer.begin(new_shard(path, layout, stop - start, attrs))
        for low in range(start, stop, self.plan.batch):
            high = min(low + self.plan.batch, stop)
            points, found = self._batch(low, high)
            writer.call(methodcaller("append", _rows(points, found)))
            failures.update({low + row: reason for row, reason in found.failures.items()})
            if low <= checked < high:
                check = self.evaluator.spot_check(points, found, checked - low)
                check.settle(self.work.job.options.on_disagreement, f"points {low} to {high - 1}")
                certificate = check.added_to(certificate)
            self._announce(writer)
        evidence = _entries(certificate.record())
        writer.call(methodcaller("describe", "certificate", evidence))
        writer.call(methodcaller("describe", "grid", self.work.described_grid()))
        writer.call(methodcaller("describe", "provenance", self._provenance(started, failures)))
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

    def _batch(self, start: int, stop: int) -> tuple[Tensor, Evaluated]:
        plan = self.evaluator.plan
        points = self.work.grid[start:stop].to(plan.device, plan.dtype)
        found = self.evaluator.guarded(points)
        notify(self.hook.pipeline_batch_evaluated, run=self.info, points=stop - start)
        return points, found

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
            "function_source": self.work.function.function.source,
            "function_from": "plugin" if self.work.function.loadable else "object",
            "failures_json": json.dumps(failures),
        }
        return {**collect(job.config), **facts}


def _rows(points: Tensor, found: Evaluated) -> dict[str, Any]:
    tensors = {"x": points, **found.datasets, "status": found.status}
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def _entries(record: Mapping[str, Any]) -> dict[str, Any]:
    """Values that HDF5 can hold: numbers and texts as they are, the rest as JSON."""
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in record.items()
    }


def _keep_configuration(work: Work) -> None:
    """Write the composed configuration beside the results, as Hydra does."""
    files = {name: text for name, text in work.job.config.items() if name.endswith(".yaml")}
    if not files:
        return
    folder = work.directory.path / ".hydra"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def _summarise(work: Work, computed: int, began: float) -> Summary:
    path = work.directory.result
    with open_results(path) as results:
        counts = {name: results.count(name) for name in ("nonfinite", "nonsmooth", "failed")}
    files = [path, *(work.directory.path / "shards").glob("shard-*.h5")]
    return Summary(
        path=path,
        points=len(work.grid),
        computed=computed,
        **counts,
        seconds=time.monotonic() - began,
        bytes=sum(file.stat().st_size for file in files),
    )


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


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write what the package logs to a file of the run as well."""
    try:
        handler = logging.FileHandler(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; choose another output_dir=") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("pipeline")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
