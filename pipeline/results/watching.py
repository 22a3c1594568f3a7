"""Watching a run from outside, whoever computes it: what is on disk says how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.display import spell_points, spell_rate
from pipeline.errors import StoreError
from pipeline.store.files.run_directory import RunDirectory, shard_ranges
from pipeline.store.parts.own_shard import MOST_READ
from pipeline.store.reading.reader import open_results


@dataclass
class Watch:
    """What has been seen of a run so far.

    Attributes:
        directory: Of the run.
        ranges: start, stop of every shard, by its plan.
        bad: Points without finite derivatives, by what is wrong with them, in shards that were seen.
    """

    directory: RunDirectory
    ranges: list[tuple[int, int]]
    bad: dict[str, int] = field(default_factory=lambda: {"failed": 0, "nonfinite": 0})
    _seen: set[int] = field(default_factory=set)
    _unread: int = 0
    _first: tuple[float, int] | None = None

    def look(self) -> bool:
        """Take in the shards that are new; tell whether there are any."""
        new = self.directory.finished_shards() - self._seen
        new = {index for index in new if index < len(self.ranges)}
        self._seen |= new
        if self._first is None and len(new) > MOST_READ:
            self._unread = len(new)
        else:
            self._count(new)
        if self._first is None:
            self._first = time.monotonic(), self.done
        return bool(new)

    def _count(self, shards: Iterable[int]) -> None:
        for index in shards:
            with open_results(self.directory.shard(index)) as shard:
                counts = shard.counts()
            for status in self.bad:
                self.bad[status] += counts[status]

    @property
    def done(self) -> int:
        """Points that are durable."""
        return sum(stop - start for start, stop in map(self.ranges.__getitem__, self._seen))

    @property
    def points(self) -> int:
        """N."""
        return self.ranges[-1][1]

    def line(self) -> str:
        """Say how far the run is, at what rate it goes on, and when it will end."""
        assert self._first is not None, "somebody has looked"
        began, before = self._first
        rate = (self.done - before) / max(time.monotonic() - began, 1e-9)
        left = self.points - self.done
        words = [
            f"{len(self._seen)} of {len(self.ranges)} shards",
            f"{self.done} of {spell_points(self.points)} ({self.done / self.points:.1%})",
        ]
        if rate and left:
            end = datetime.now().astimezone() + timedelta(seconds=left / rate)
            words += [spell_rate(rate), f"ends about {end:%Y-%m-%d %H:%M}"]
        words += [f"{count} {status}" for status, count in self.bad.items() if count]
        if self._unread:
            words.append(
                f"the status of the first {self._unread} shards is counted at the end of the run"
            )
        return ", ".join(words)


def watch(path: Path, pause: float) -> Iterator[str]:
    """Follow a run until its result is there.

    Args:
        path: Directory of the run.
        pause: Seconds between two looks.

    Yields:
        A line at first, and whenever shards have come.

    Raises:
        StoreError: It is no directory of a run.
    """
    directory = RunDirectory(path)
    plan = directory.plan()
    if plan is None and directory.is_made():
        yield "being planned: nothing is computed yet"
    while plan is None:
        if not directory.is_made():
            raise StoreError(
                f"{path}: expected the directory of a run that has begun, with its run.json; "
                "the log of the run names it"
            )
        time.sleep(pause)
        plan = directory.plan()
    seen = Watch(directory, shard_ranges(int(plan["points"]), int(plan["shard_rows"])))
    news = True
    seen.look()
    while True:
        complete = directory.result.is_file()
        if news:
            yield seen.line()
        if complete:
            return
        time.sleep(pause)
        news = seen.look()
