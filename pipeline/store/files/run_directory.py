"""The directory of a run: its plan, its shards, and which of them are there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.display import spell_bytes
from pipeline.errors import StoreError
from pipeline.store.files.commit import committed, remove_stale
from pipeline.store.layout import SCHEMA

SHARD_NAME = re.compile(r"shard-[0-9]+\.h5")
PLAN, RESULT, SHARDS = "run.json", "result.h5", "shards"


class RunDirectory:
    """Where one run lives: ``<outputs>/<job>/<function>/<run id>``.

    Args:
        path: The directory; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def result(self) -> Path:
        """The result of the whole run; done means that it exists."""
        return self.path / RESULT

    def shard(self, index: int) -> Path:
        """The file of a shard; done means that it exists."""
        return self.path / SHARDS / f"shard-{index:05d}.h5"

    def make(self) -> None:
        """Make the directory and clear away what killed processes of this host left.

        Raises:
            StoreError: It cannot be made or written to.
        """
        try:
            (self.path / SHARDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the output directory {self.path} cannot be made: {error}; choose another with output_dir="
            ) from error
        if not os.access(self.path / SHARDS, os.W_OK | os.X_OK):
            raise StoreError(
                f"the output directory {self.path} cannot be written to; choose another with output_dir="
            )
        self.tidy()

    def is_made(self) -> bool:
        """Whether `make` has been called, as far as is seen from here."""
        return (self.path / SHARDS).is_dir()

    def tidy(self) -> None:
        """Remove what killed processes have left."""
        remove_stale(self.path)
        remove_stale(self.path / SHARDS)

    def require_space(self, needed: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Args:
            needed: Bytes still to be written.

        Raises:
            StoreError: There is less space.
        """
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise StoreError(
                f"the results still to be written take {spell_bytes(needed)}, {self.path} has "
                f"{spell_bytes(free)} free; make room, choose output_dir=, or ask for fewer points"
            )

    def plan(self) -> dict[str, Any] | None:
        """Read the plan of the run, if there is one.

        Returns:
            The plan.

        Raises:
            StoreError: What is there is not a plan of this schema.
        """
        path = self.path / PLAN
        try:
            plan = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path} is in the way: expected the plan of a run, but it cannot be read ({error}); "
                "move it away or choose another output_dir="
            ) from error
        if not isinstance(plan, dict) or plan.get("schema") != SCHEMA:
            found = plan.get("schema") if isinstance(plan, dict) else type(plan).__name__
            raise StoreError(
                f"{path} is in the way: expected schema {SCHEMA!r}, got {found!r}; "
                "move it away or choose another output_dir="
            )
        return plan

    def begin(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Write the plan, unless another process was first.

        Args:
            plan: JSON values.

        Returns:
            The plan that counts: the first one that was written.

        Raises:
            StoreError: It cannot be written.
        """
        with committed(self.path / PLAN) as temporary:
            temporary.write_text(json.dumps(plan, indent=2) + "\n")
        written = self.plan()
        if written is None:
            raise StoreError(
                f"{self.path / PLAN} vanished while the run began; run the same command again"
            )
        return written

    def finished_shards(self) -> set[int]:
        """Which shards are there: one directory listing.

        Returns:
            Their indices.
        """
        return {int(entry.name[6:-3]) for entry in self._shards()}

    def shard_bytes(self) -> int:
        """Size of the shards that are there."""
        return sum(entry.stat().st_size for entry in self._shards())

    def _shards(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / SHARDS) as entries:
                return [entry for entry in entries if SHARD_NAME.fullmatch(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []


def shard_ranges(points: int, rows: int) -> list[tuple[int, int]]:
    """Cut the points of a run into shards.

    Args:
        points: N.
        rows: Points per shard.

    Returns:
        start, stop of every shard.

    Examples:
        >>> shard_ranges(10, 4)
        [(0, 4), (4, 8), (8, 10)]
    """
    return [(start, min(start + rows, points)) for start in range(0, points, rows)]
