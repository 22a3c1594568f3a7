"""The observer that shows progress: a bar on a terminal and in a notebook, plain log lines otherwise."""

from __future__ import annotations

import logging
import resource
import sys
import time
from datetime import datetime, timedelta
from typing import Any

from tqdm import tqdm

from pipeline.display import spell_bytes, spell_points, spell_rate, spell_seconds
from pipeline.hookspecs import hookimpl
from pipeline.job import RunInfo, ShardInfo, Summary

log = logging.getLogger(__name__)
MOST_FAILURES = 10  # points of a run that are logged: a million lines tell nobody anything


class Progress:
    """Shows how far a run is, at what rate, and when it will end."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._began, self._durable, self._failed = 0.0, 0, 0

    @hookimpl
    def pipeline_run_started(self, run: RunInfo) -> None:
        """Say what is going to be computed."""
        self._began, self._durable, self._failed = time.monotonic(), 0, 0
        done = f", {run.points_done} of them done already" if run.points_done else ""
        log.info(
            "%s of %s at %s%s: %s, batches of %d, route %s",
            ", ".join(run.operators), run.function, spell_points(run.points), done,
            "1 shard" if run.shards == 1 else f"{run.shards} shards", run.batch, run.route,
        )  # fmt: skip
        log.info("writing to %s", run.directory)
        if _is_watched():
            self._bar = tqdm(
                total=run.points, initial=run.points_done, unit=" points", unit_scale=True
            )

    @hookimpl
    def pipeline_batch_evaluated(self, run: RunInfo, points: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(points)

    @hookimpl
    def pipeline_shard_finished(self, run: RunInfo, shard: ShardInfo) -> None:
        """Log a shard that is durable, where there is no bar."""
        self._durable += shard.stop - shard.start
        if self._bar is not None:
            return
        rate = self._durable / max(time.monotonic() - self._began, 1e-9)
        left = run.points - run.points_done - self._durable
        log.info(
            "shard %d of %d: %s durable, %s, %smemory %s",
            shard.index + 1, run.shards, spell_points(run.points_done + self._durable), spell_rate(rate),
            _end(left / rate) if left else "", spell_bytes(_held()),
        )  # fmt: skip

    @hookimpl
    def pipeline_point_failed(self, run: RunInfo, index: int, reason: str) -> None:
        """Log the first points at which the function raised: the file knows all."""
        self._failed += 1
        if self._failed <= MOST_FAILURES:
            log.warning("point %d failed: %s", index, reason)
        if self._failed == MOST_FAILURES:
            log.warning(
                "further points that fail are not logged; results show lists and counts them"
            )

    @hookimpl
    def pipeline_run_finished(self, run: RunInfo, summary: Summary) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _end(seconds: float) -> str:
    return f"{spell_seconds(seconds)} left, ends about {datetime.now() + timedelta(seconds=seconds):%H:%M}, "


def _is_watched() -> bool:
    """Whether a person looks at standard error: a terminal, or a cell of a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__ == "ipykernel.iostream"


def describe(summary: Summary) -> str:
    """Say what a run has come to.

    Args:
        summary: What came out.

    Returns:
        A few lines for people.
    """
    if summary.computed == 0:
        first = f"complete already: {spell_points(summary.points)}, nothing to compute"
    else:
        rate = summary.computed / max(summary.seconds, 1e-9)
        first = (
            f"computed {summary.computed} of {spell_points(summary.points)} in {spell_seconds(summary.seconds)} "
            f"({spell_rate(rate)}, planning and writing included)"
        )
    place = f"result: {summary.path} ({spell_bytes(summary.bytes)} on disk)"
    return "\n".join([first, *_verdict(summary), place])


def _verdict(summary: Summary) -> list[str]:
    lines = [
        text
        for count, text in (
            (summary.nonfinite, f"not finite at {spell_points(summary.nonfinite)} (status 2)"),
            (summary.failed, f"the function raised at {spell_points(summary.failed)} (status 3)"),
            (
                summary.nonsmooth,
                f"on a kink of the function at {spell_points(summary.nonsmooth)}, where torch gives one of "
                "several one-sided derivatives (status 4)",
            ),
        )
        if count
    ]
    if not summary.nonfinite and not summary.failed:
        lines.insert(0, "every derivative is finite")
    if summary.nonfinite or summary.failed or summary.nonsmooth:
        lines.append(
            f"more: python -m pipeline.results show {summary.path}; status[i] in it tells of point i"
        )
    return lines


def _held() -> int:
    """Most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
