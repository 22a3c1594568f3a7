"""Reading results against np.fromfile: ``python -m benchmarks.reading [DIRECTORY]``.

The same bytes lie in one result file, in shards behind a virtual result, and in a plain file. After
everything has been read once, so that the page cache is warm and equal, the readers take turns; the
median of the rounds and of the ratios is shown, of the time of a clock and of the time of the
processor, over all threads, which other work on the machine changes less. Then: opening results
of many shards, and random batches.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import open_results
from pipeline.store.files.run_directory import RunDirectory, shard_ranges
from pipeline.store.layout import SCHEMA, Layout
from pipeline.store.parts.evidence import CIRCUMSTANCES
from pipeline.store.writing import assembly as result_module
from pipeline.store.writing.assembly import assemble
from pipeline.store.writing.shard import new_shard

ROUNDS = 9
LAYOUT = Layout(8, (), (("value", 0), ("gradient", 1), ("hessian", 2)), "float64", "a benchmark")
SHARDS = {
    "one file": (1, 1_000_000),
    "8 shards of 64 MB": (8, 125_000),
    "64 shards of 16 MB": (64, 31_250),
    "1,000 shards of 1 MB": (1000, 2000),
}


def main() -> None:
    """Measure and print."""
    place = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="reading-"))
    print("np.fromfile / reader, by the clock, by the processor:\n")
    print("| Hessians of | MB | np.fromfile ms | pipeline | the first time | h5py |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (shards, rows) in SHARDS.items():
        path = place / name
        write(path, shards, rows)
        print(_reading(name, path), flush=True)
    print("\n| opening | ms by the clock | of the processor |\n|---|---:|---:|")
    for name in SHARDS:
        taken = _median(partial(open_results, place / name)) * 1e3
        print(f"| {name} | {taken[0]:.1f} | {taken[1]:.1f} |", flush=True)
    print("\n| 256 random points, x and Hessian | ms | h5py ms |\n|---|---:|---:|")
    for name in SHARDS:
        print(_random(name, place / name), flush=True)
    shutil.rmtree(place, ignore_errors=True)


def write(path: Path, shards: int, rows: int) -> None:
    """Write a run and its Hessians as a plain file; a single shard becomes a file of its own."""
    directory, points = RunDirectory(path), shards * rows
    directory.make()
    directory.begin({"schema": SCHEMA, "points": points})
    ranges = shard_ranges(points, rows)
    values = _values(rows)
    with (path / "plain").open("xb") as plain:
        for index, (start, stop) in enumerate(ranges):
            with new_shard(directory.shard(index), LAYOUT, rows, _attrs(start, stop)) as writer:
                writer.append(values)
                for group, entries in _evidence().items():
                    writer.describe(group, entries)
            values["hessian"].tofile(plain)
    result_module.SMALL = 1 << 40 if shards == 1 else 0
    assemble(directory, LAYOUT, ranges, _attrs(0, points))


def _values(rows: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    shapes = {dataset.name: (rows, *dataset.shape) for dataset in LAYOUT.datasets()}
    values: dict[str, Any] = {name: generator.random(shape) for name, shape in shapes.items()}
    return values | {"status": np.ones(rows, "u1")}


def _attrs(start: int, stop: int) -> dict[str, Any]:
    return {"run_id": "benchmark", "start": start, "stop": stop, "created": "", "history": ""}


def _evidence() -> dict[str, dict[str, Any]]:
    certificate = {"route": "", "rows_checked": 0, "rows_error": "{}", "disagreements": "[]"}
    times = {"started": "", "finished": "", "failures_json": "{}"}
    return {
        "certificate": certificate,
        "provenance": {**dict.fromkeys(CIRCUMSTANCES, ""), **times},
        "grid": {"spec_json": "{}"},
    }


def _reading(name: str, path: Path) -> str:
    def plain() -> Any:
        return np.fromfile(path / "plain", np.float64, size)

    def by_h5py() -> Any:
        with h5py.File(path / "result.h5") as file:
            return file["hessian"][()]

    results = open_results(path)
    size = results.hessian.size
    expected = plain().reshape(results.hessian.shape)
    assert np.array_equal(results.hessian[:], expected)
    assert np.array_equal(by_h5py(), expected)
    megabytes = expected.nbytes / 1e6
    del expected
    readers: dict[str, Callable[[], Any]] = {
        "plain": plain,
        "again": lambda: results.hessian[:],
        "first": lambda: open_results(path).hessian[:],
        "h5py": by_h5py,
    }
    rounds = [{what: _seconds(read) for what, read in readers.items()} for _ in range(ROUNDS)]
    plain_ms = np.median([each["plain"][0] for each in rounds]) * 1e3
    ratios = (
        np.median([each["plain"] / each[what] for each in rounds], axis=0)
        for what in ("again", "first", "h5py")
    )
    cells = " | ".join(f"{clock:.2f}, {processor:.2f}" for clock, processor in ratios)
    return f"| {name} | {megabytes:.0f} | {plain_ms:.0f} | {cells} |"


def _random(name: str, path: Path) -> str:
    results, generator = open_results(path), np.random.default_rng(1)
    results.x[:]
    with h5py.File(path / "result.h5") as file:
        ours, theirs = [], []
        for _ in range(ROUNDS):
            points = np.sort(generator.choice(results.points, 256, replace=False))
            ours.append(_seconds(partial(_batch, results, points))[0])
            theirs.append(_seconds(partial(_batch, file, points))[0])
    return (
        f"| {name} | {statistics.median(ours) * 1e3:.2f} | {statistics.median(theirs) * 1e3:.1f} |"
    )


def _batch(source: Any, points: Any) -> Any:
    return source["x"][points], source["hessian"][points]


def _median(task: Callable[[], Any]) -> Any:
    return np.median([_seconds(task) for _ in range(ROUNDS)], axis=0)


def _seconds(task: Callable[[], Any]) -> Any:
    """Seconds by the clock, and of the processor in all threads."""
    began = np.array([time.perf_counter(), time.process_time()])
    task()
    return np.array([time.perf_counter(), time.process_time()]) - began


if __name__ == "__main__":
    main()
