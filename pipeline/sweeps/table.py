"""What became of the jobs of a sweep: a row each, on disk from the first moment on."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.job import SWEEP_TABLE

WAITING, DONE, COMPLETE, FAILED, LOST = "waiting", "done", "complete already", "failed", "lost"
BAD = (WAITING, FAILED, LOST)
MOST_LISTED, LONGEST_REASON = 40, 160  # rows and letters on the terminal; the file has all


@dataclass(frozen=True)
class Row:
    """One job of a sweep.

    Attributes:
        job: Its number.
        overrides: What was set for it.
        outcome: waiting, done, complete already, failed (an error was raised) or lost (its process
            is gone).
        value: What the job returned: the number of points without finite derivatives.
        run: Directory of its run, where that is known.
        reason: Why it failed or was lost.
    """

    job: int
    overrides: str
    outcome: str = WAITING
    value: float | None = None
    run: str = ""
    reason: str = ""


class Sweep:
    """The table of a sweep, rewritten as its jobs end.

    Args:
        folder: Directory of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / SWEEP_TABLE
        self._rows: dict[int, Row] = {}
        self._shared: frozenset[str] | None = None

    @property
    def rows(self) -> list[Row]:
        """All rows, by number."""
        return [self._rows[number] for number in sorted(self._rows)]

    @property
    def bad(self) -> list[Row]:
        """Jobs that have not come to an end that counts."""
        return [row for row in self.rows if row.outcome in BAD]

    def put(self, rows: Sequence[Row]) -> None:
        """Add or replace rows, and write the table.

        Raises:
            StoreError: It cannot be written.
        """
        self._rows |= {row.job: row for row in rows}
        for row in rows:
            words = frozenset(row.overrides.split())
            self._shared = words if self._shared is None else self._shared & words
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow([field.name for field in fields(Row)])
                table.writerows(_cells(row) for row in self.rows)
            temporary.replace(self.path)
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error}; finished runs are safe: make room or choose "
                "another hydra.sweep.dir, then run the same command again"
            ) from error

    def own_words(self, row: Row) -> str:
        """What is set for a job that is not set for all."""
        shared = self._shared or ()
        return " ".join(word for word in row.overrides.split() if word not in shared)

    def describe(self) -> str:
        """Say what has become of the jobs: those that are not done first.

        Returns:
            A line per job, as far as they fit on a screen, then how many there are of each kind.
        """
        good = [row for row in self.rows if row.outcome not in BAD]
        shown = [*self.bad, *good][:MOST_LISTED]
        shown.sort(key=lambda row: row.job)
        rows = [
            (
                f"#{row.job}",
                row.outcome,
                self.own_words(row),
                _short(row.reason) or row.run,
            )
            for row in shown
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if len(shown) < len(self._rows):
            lines.append(f"… {len(self._rows) - len(shown)} more")
        counts = Counter(row.outcome for row in self.rows)
        lines.append(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
        if self.bad:
            lines[-1] += "; the same command again runs only what is missing"
        return "\n".join([*lines, f"table: {self.path}"])


def _short(reason: str) -> str:
    line = reason.partition("\n")[0]
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}…"


def _cells(row: Row) -> list[object]:
    return [getattr(row, field.name) for field in fields(Row)]


CURRENT: dict[
    Path, Sweep
] = {}  # of this process: Hydra gives the command no other way to its launcher


def sweep_in(folder: Path) -> Sweep:
    """Find the sweep of this process that lives in a directory, or begin it."""
    return CURRENT.setdefault(folder, Sweep(folder))
