"""Opens results: a result file, a shard, or the directory of a run, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l

from pipeline.errors import MissingShardsError, StoreError, one_line
from pipeline.job import SWEEP_TABLE
from pipeline.store.files.open_files import OpenFiles
from pipeline.store.files.run_directory import PLAN, RESULT, RunDirectory
from pipeline.store.files.seal import require_seal
from pipeline.store.files.trust import open_checked
from pipeline.store.parts.known_shards import KnownShards, read_known
from pipeline.store.parts.part import HDF5_ERRORS, Content, read_content
from pipeline.store.parts.parts import Parts, ShardFiles
from pipeline.store.reading.header import Header, read_header
from pipeline.store.reading.results import Results

__all__ = ["Results", "open_results"]

MOST_NAMED = 8  # runs, in a message


def open_results(path: str | Path, *, edited: bool = False) -> Results:
    """Open the results of a run.

    A shard is checked when it is first read; that one is missing is said at once.

    Args:
        path: A result file, a shard, or the directory of a run, finished or not.
        edited: Whether to open files that have been changed since they were written, whose seal is
            gone or broken. Everything else is checked all the same; but where their structures are
            damaged, HDF5 itself may crash.

    Returns:
        The results; nothing but metadata is read until it is asked for.

    Raises:
        StoreError: There is nothing to open, a part of it is missing, or it cannot be trusted.
    """
    place = Path(path).absolute()  # files are opened later, perhaps elsewhere
    files = OpenFiles(edited)
    if not place.exists():
        raise StoreError(f"there is no {place}; check the path: a job says where its result is")
    if not place.is_dir():
        return _open_file(place, files)
    if (place / RESULT).is_file():
        return _open_file(place / RESULT, files)
    if not RunDirectory(place).finished_shards():
        raise StoreError(
            f"{place}: expected result.h5 or shards of a run, found neither; {_nearby(place)}"
        )
    return _open_shards(place, files, _planned_points(place))


def _nearby(place: Path) -> str:
    """Say what to give in place of a folder that is no run."""
    if (place.parent / PLAN).is_file():
        return f"it is a part of the run {place.parent}: give that"
    if (place / SWEEP_TABLE).is_file():
        return f"it is the folder of a sweep, whose runs {SWEEP_TABLE} in it names: choose one, or use open_sweep"
    for depth in ("*", "*/*", "*/*/*"):  # <job>/<function>/<run id>
        names = (place.glob(f"{depth}/{name}") for name in (RESULT, PLAN))
        found = {file.parent for file in islice(chain(*names), 2 * MOST_NAMED + 2)}
        if found:
            runs = sorted(str(folder.relative_to(place)) for folder in found)[:MOST_NAMED]
            more = " and more" if len(found) > MOST_NAMED else ""
            return f"it holds the runs {', '.join(runs)}{more}: choose one"
    return "a job says where its result is"


def _open_file(path: Path, files: OpenFiles) -> Results:
    if not files.edited:
        require_seal(path)
    whole = _virtual(path)
    if whole is not None:
        return _open_shards(path, files, whole.content.stop, whole)
    with open_checked(path, files.edited) as file:
        header = _header(file, path)
    parts = Parts.of_file(path, header.content, files)
    return Results(path, int(parts.stops[0]), parts, header, path, files)


@dataclass(frozen=True)
class _Whole:
    """A result that refers to shards beside it."""

    attrs: Mapping[str, Any]
    content: Content
    seen: KnownShards | None


def _virtual(path: Path) -> _Whole | None:
    """Tell whether a result refers to shards: a look that follows nothing and reads no mapping."""
    try:
        with h5py.File(path, "r") as file:
            if file.id.links.get_info(b"status").type != h5l.TYPE_HARD:
                return None
            stored = h5d.open(file.id, b"status")
            if stored.get_create_plist().get_layout() != h5d.VIRTUAL:
                return None
            return _Whole(dict(file.attrs), read_content(file.id), read_known(file.id, path))
    except HDF5_ERRORS:
        return None  # the checks say what is wrong with it


def _open_shards(path: Path, files: OpenFiles, points: int, whole: _Whole | None = None) -> Results:
    """Open the shards of a folder, of which all have to be there when they make a whole."""
    shards = _Shards(path, RunDirectory(path if whole is None else path.parent), points)
    first = shards.directory.shard(shards.present[0])
    with open_checked(first, files.edited) as file:
        header = _header(file, first)
    rows = shards.rows(header.content)
    if whole is not None:
        shards.require_all(rows)
        header = replace(header, attrs=whole.attrs)
    run_id = header.content.run_id if whole is None else whole.content.run_id
    seen = None if whole is None else whole.seen
    if seen is not None and len(seen) != len(shards.present):
        seen = None
    there = ShardFiles(shards.directory, np.array(shards.present), rows, points, run_id, seen)
    parts = Parts.of_shards(there, files)
    return Results(path, points, parts, header, first if whole is None else path, files)


class _Shards:
    """The shards that are there: one directory listing."""

    def __init__(self, path: Path, directory: RunDirectory, points: int) -> None:
        self.directory, self.present = directory, sorted(directory.finished_shards())
        self._path, self._points = path, points
        if not self.present:
            self._raise_lost("all", "")

    def rows(self, first: Content) -> int:
        """Points per shard, from what the first one holds that is there."""
        index = self.present[0]
        rows = first.start // index if index else first.stop
        fits = rows > 0 and first.stop == min(index * rows + rows, self._points)
        if not fits or first.start != index * rows or self.present[-1] * rows >= self._points:
            names = ", ".join(self.directory.shard(each).name for each in (index, self.present[-1]))
            raise StoreError(
                f"{names} of {self.directory.path} cannot be shards of {self._points} points, of which the "
                f"first holds {first.start}:{first.stop}; remove what does not belong there"
            )
        return rows

    def require_all(self, rows: int) -> None:
        """Say loudly what is missing: HDF5 itself would give fill values."""
        count, present = -(-self._points // rows), set(self.present)
        if len(present) < count:
            lost = islice((index for index in range(count) if index not in present), 3)
            names = ", ".join(self.directory.shard(index).name for index in lost)
            self._raise_lost(str(count - len(present)), f" of {count} are missing ({names}…)")

    def _raise_lost(self, number: str, rest: str) -> None:
        raise MissingShardsError(
            f"{self._path} needs its shards, and {number}{rest or ' are missing'}; "
            "keep result.h5 and shards/ together, or run the same command again"
        )


def _header(file: h5py.File, path: Path) -> Header:
    try:
        return read_header(file)
    except HDF5_ERRORS as error:
        raise StoreError(f"{path} cannot be read: {one_line(error)}; it is not complete") from error


def _planned_points(path: Path) -> int:
    try:
        points = int(json.loads((path / PLAN).read_text())["points"])
        if points < 1:
            raise ValueError(f"points is {points}")
        return points
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: the plan of the run cannot be read: {error}") from error
