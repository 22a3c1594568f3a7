"""The parts of a result, in order: there may be 10⁵, so each is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.store.files.open_files import OpenFiles
from pipeline.store.files.run_directory import RunDirectory
from pipeline.store.parts.known_shards import KnownShards
from pipeline.store.parts.part import Content, Known, Part

Span = tuple[int, int]


class Files(Protocol):
    """Where parts lie, and which points each holds."""

    def path(self, at: int) -> Path:
        """The file of part `at`."""

    def content(self, at: int) -> Content:
        """What it has to hold."""

    def known(self, at: int) -> Known | None:
        """What was seen of it when the run ended."""


@dataclass(frozen=True)
class OneFile:
    """A file of its own."""

    file: Path
    holding: Content

    def path(self, at: int) -> Path:
        """The file."""
        return self.file

    def content(self, at: int) -> Content:
        """What it holds."""
        return self.holding

    def known(self, at: int) -> Known | None:
        """Nothing: it was not put together."""
        return None


@dataclass(frozen=True, eq=False)
class ShardFiles:
    """Shards of a run.

    Attributes:
        directory: Of the run.
        indices: Of the shards that are there, ascending.
        rows: Points per shard; the last one may hold fewer.
        points: N.
        run_id: Of the run.
        seen: What was seen of them when the run ended; None where that is not known.
    """

    directory: RunDirectory
    indices: NDArray[np.int64]
    rows: int
    points: int
    run_id: str
    seen: KnownShards | None = None

    def path(self, at: int) -> Path:
        """The file of the shard."""
        return self.directory.shard(int(self.indices[at]))

    def content(self, at: int) -> Content:
        """What it has to hold."""
        start = int(self.indices[at]) * self.rows
        return Content(self.run_id, start, min(start + self.rows, self.points))

    def known(self, at: int) -> Known | None:
        """What was seen of it when the run ended."""
        return None if self.seen is None else self.seen[at]


class Parts:
    """The parts of a result.

    Args:
        starts: First row of each, ascending.
        stops: Row after the last of each.
        where: Where they lie.
        files: Which of them are open.

    Attributes:
        starts: The same.
        stops: The same.
    """

    def __init__(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64], where: Files, files: OpenFiles
    ) -> None:
        self.starts, self.stops = starts, stops
        self._where, self._files = where, files
        self._made: dict[int, Part] = {}

    @classmethod
    def of_file(cls, path: Path, content: Content, files: OpenFiles) -> Parts:
        """See a file as the only part.

        Args:
            path: The file.
            content: What it holds.
            files: Which files are open.

        Returns:
            Its rows, from 0 on.
        """
        rows = np.array([content.stop - content.start])
        return cls(np.zeros_like(rows), rows, OneFile(path, content), files)

    @classmethod
    def of_shards(cls, shards: ShardFiles, files: OpenFiles) -> Parts:
        """See the shards of a run as parts.

        Args:
            shards: Which.
            files: Which files are open.

        Returns:
            Their rows, counted from the start of the run.
        """
        starts = shards.indices * shards.rows
        return cls(starts, np.minimum(starts + shards.rows, shards.points), shards, files)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, at: int) -> Part:
        """Give a part, which is kept: it knows what has been checked of it.

        Args:
            at: Its position, from 0 on.

        Returns:
            The part.
        """
        made = self._made.get(at)
        if made is None:
            where, start = self._where, int(self.starts[at])
            new = Part(where.path(at), start, where.content(at), self._files, where.known(at))
            made = self._made.setdefault(at, new)  # another thread may have been first
        return made

    def path(self, at: int) -> Path:
        """The file of a part.

        Args:
            at: Its position.

        Returns:
            The file.
        """
        return self._where.path(at)

    def contents(self) -> Iterator[tuple[Path, Content]]:
        """Give the file of each part, and what it has to hold."""
        return ((self._where.path(at), self._where.content(at)) for at in range(len(self)))

    def spans(self) -> list[Span]:
        """Give start and stop of each."""
        return list(zip(self.starts.tolist(), self.stops.tolist(), strict=True))

    def gaps(self, points: int) -> list[Span]:
        """Find what lies between them.

        Args:
            points: N.

        Returns:
            start, stop of each range of rows that no part has.
        """
        ends, begins = np.append(0, self.stops), np.append(self.starts, points)
        apart = begins > ends
        return list(zip(ends[apart].tolist(), begins[apart].tolist(), strict=True))

    def between(self, start: int, stop: int) -> Iterator[Part]:
        """Give the parts that follow each other without a gap from row `start` on.

        Args:
            start: First row.
            stop: Row after the last.

        Yields:
            Those that hold some of the rows, until one is missing.
        """
        at, done = max(int(np.searchsorted(self.starts, start, "right")) - 1, 0), start
        while done < stop and at < len(self) and self.starts[at] <= done:
            yield self[at]
            done, at = max(done, int(self.stops[at])), at + 1

    def owners(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Find which part each row would be in.

        Args:
            rows: Ascending, (k,).

        Returns:
            Position of the last part that begins at or before it, -1 for none, (k,).
        """
        return np.searchsorted(self.starts, rows, side="right") - 1
