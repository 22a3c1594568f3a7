"""Cost of the bookkeeping at scale, without the mathematics.

python -m benchmarks.scale  # 100,000 names, 2,000 real shards
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.store import result
from pipeline.store.layout import Layout
from pipeline.store.reader import open_results
from pipeline.store.result import assemble
from pipeline.store.run_directory import RunDirectory, shard_ranges
from pipeline.store.shard import new_shard

POINTS = 10**10
LINKS = 50_000  # names of one file: file systems have a limit


def timed(what: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    outcome = work()
    print(f"  {time.perf_counter() - began:9.3f} s  {what}", flush=True)
    return outcome


def memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most"


def names(place: Path, count: int) -> None:
    """What is done with names alone: plan, resume, watch."""
    directory = RunDirectory(place)
    (place / "shards").mkdir(parents=True)
    for index in range(count):
        source = place / f"source-{index // LINKS}"
        source.touch()
        os.link(source, directory.shard(index))
    print(f"{count} shards by name, {POINTS:.0e} points")
    ranges = timed("cut the points into shards", lambda: shard_ranges(POINTS, -(-POINTS // count)))
    there = timed("recognise the shards that exist", directory.finished_shards)
    assert len(there) == len(ranges) == count
    timed("find what is missing", lambda: [i for i in range(count) if i not in there])
    timed("add up their sizes", directory.shard_bytes)
    timed("clear away what killed processes left", directory.tidy)
    print(f"  {memory()}")


def shards(place: Path, count: int) -> None:
    """What opens files: the end of a run, and a finished run again."""
    directory, layout = RunDirectory(place), Layout(3, (), (("gradient", 1),), "float64", "t")
    directory.make()
    print(f"{count} real shards")
    timed(
        "write them (of one point, synced)",
        lambda: [write(directory, layout, i) for i in range(count)],
    )
    ranges = shard_ranges(count, 1)
    attrs = {"run_id": "scale", "start": 0, "stop": count, "created": "", "history": ""}

    def end() -> None:
        assemble(directory, layout, ranges, attrs)

    timed("end of a run, its rows copied into the result", end)
    directory.result.unlink()
    result.SMALL = 0  # a virtual result, as it is at scale
    timed("end of a run, its result virtual", end)
    timed("recognise the shards that exist", directory.finished_shards)
    timed("open the result", lambda: open_results(directory.result).close())

    def ended() -> None:
        with open_results(directory.result) as results:
            assert '"ok"' in results.provenance["counts_json"]

    timed("say how it ended", ended)
    with open_results(directory.result) as results:
        timed("read every point", lambda: results.gradient[:])

    def by_hdf5() -> None:
        with h5py.File(directory.result) as file:
            assert np.isfinite(file["gradient"][count // 2]).all()

    timed("h5py: open the virtual result, read one point", by_hdf5)
    print(
        f"  {memory()}, {directory.result.stat().st_size / count:.0f} bytes of result.h5 per shard"
    )


def write(directory: RunDirectory, layout: Layout, index: int) -> None:
    attrs = {"run_id": "scale", "start": index, "stop": index + 1, "created": "", "history": ""}
    rows = {"x": np.ones((1, 3)), "gradient": np.ones((1, 3)), "status": np.ones(1, np.uint8)}
    provenance: dict[str, Any] = dict.fromkeys(
        ("host", "slurm_job_id", "device", "torch", "git_commit", "started", "finished"), "same"
    )
    provenance |= {"threads": 1, "failures_json": "{}"}
    evidence = {"rows_checked": 1, "rows_error": "{}", "disagreements": "[]"}
    with new_shard(directory.shard(index), layout, 1, attrs) as writer:
        writer.append(rows)
        writer.describe("provenance", provenance)
        writer.describe("certificate", evidence)
        writer.describe("grid", {"spec_json": "{}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=2_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        names(Path(place) / "names", given.names)
        shards(Path(place) / "real", given.real)


if __name__ == "__main__":
    main()
