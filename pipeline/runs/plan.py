"""The frozen plan of a run: written once, kept by every process that goes on with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pipeline.autograd.evaluator import Evaluator
from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.runs.contents import layout_of
from pipeline.runs.provenance import now
from pipeline.runs.work import Work
from pipeline.store.files.run_directory import PLAN, shard_ranges
from pipeline.store.layout import SCHEMA

log = logging.getLogger(__name__)
SHARD_BYTES, SHARD_SECONDS = 128 << 20, 300.0


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


def existing_plan(work: Work) -> RunPlan | None:
    """Read the plan of a run, if it has begun.

    Args:
        work: What the run is about.

    Returns:
        The plan.

    Raises:
        StoreError: Something else is in the way, or the run was begun differently.
    """
    content = work.directory.plan()
    if content is None:
        if work.directory.result.exists():
            raise StoreError(
                f"{work.directory.result} is in the way: it has no run.json beside it; "
                "move it away or choose another output_dir="
            )
        return None
    try:
        plan = RunPlan(**content)
    except TypeError as error:
        raise StoreError(
            f"{work.directory.path}/run.json is in the way: it is no complete plan ({error}); "
            "move it away or choose another output_dir="
        ) from error
    _require_same(work, plan)
    return plan


def keeping(work: Work, plan: RunPlan) -> Work:
    """Give the same work, to be stored as the run was begun, whatever is asked for now."""
    return work.stored_as(Storage.of(plan.storage))


def same_but_for_the_source(work: Work) -> list[str]:
    """Ids of runs beside this one that asked the same of another source of the function."""
    found = []
    for path in sorted(work.directory.path.parent.glob(f"*/{PLAN}")):
        try:
            identity = json.loads(path.read_text())["identity"]
            same = {**identity, "source": work.identity["source"]} == work.identity
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no plan of this project: it is nobody's business here
        if same and path.parent != work.directory.path:
            found.append(path.parent.name)
    return found


def _require_same(work: Work, plan: RunPlan) -> None:
    place = work.directory.path
    if plan.run_id != work.run_id:
        raise StoreError(
            f"{place} is in the way: expected run {work.run_id}, got the plan of run "
            f"{plan.run_id}; move it away or choose another output_dir="
        )
    options = work.job.options
    for name in ("route", "mode"):
        asked, kept = getattr(options, name), getattr(plan, name)
        if asked not in ("auto", kept):
            raise StoreError(
                f"{place} was begun with {name}={kept} and keeps it, got {name}={asked}; "
                f"leave {name}= out to go on, or compute anew with another output_dir="
            )
    storage, stored = work.job.storage, Storage.of(plan.storage)
    for name, asked, kept in (
        ("batch", options.batch, plan.batch),
        ("chunk", options.chunk, plan.chunk),
        ("shard_rows", work.job.shard_rows, plan.shard_rows),
        ("store", None if storage == Storage() else storage, stored),
    ):
        if asked not in (None, kept):
            log.warning(
                "%s was begun with %s=%s and keeps it; %s=%s is not used",
                place, name, kept, name, asked,
            )  # fmt: skip


def begin(work: Work, evaluator: Evaluator) -> RunPlan:
    """Write the plan of a new run, unless another process was first.

    Args:
        work: What the run is about.
        evaluator: How the derivatives are evaluated.

    Returns:
        The plan that counts.
    """
    chosen = evaluator.plan
    plan = RunPlan(
        schema=SCHEMA,
        run_id=work.run_id,
        identity=work.identity,
        points=len(work.grid),
        shard_rows=shard_rows(work, evaluator),
        route=chosen.route,
        mode=chosen.mode,
        batch=chosen.batch,
        chunk=chosen.chunk,
        threads=torch.get_num_threads(),
        certificate=evaluator.certificate.record(),
        refused=chosen.refused,
        created=now(),
        storage=asdict(work.job.storage),
    )
    return RunPlan(**work.directory.begin(asdict(plan)))


def shard_rows(work: Work, evaluator: Evaluator) -> int:
    """Whole batches, up to SHARD_BYTES on disk and SHARD_SECONDS of computing: points per shard.

    Args:
        work: What the run is about.
        evaluator: How the derivatives are evaluated.

    Returns:
        Points per shard.
    """
    # Batches start at the same points whatever the size of a shard, so that a measured time
    # may take part in the choice without any influence on the numbers.
    if work.job.shard_rows is not None:
        return work.job.shard_rows
    batch, seconds = evaluator.plan.batch, max(evaluator.plan.point_seconds, 1e-12)
    rows = min(SHARD_BYTES // layout_of(work).row_bytes(), int(SHARD_SECONDS / seconds))
    return max(rows // batch, 1) * batch
