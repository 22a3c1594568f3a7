"""Cost of the bookkeeping at scale, without the mathematics.

python -m benchmarks.scale  # 100,000 names, 10,000 shards
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray
from h5py import h5a

from pipeline.store.files.run_directory import RunDirectory, shard_ranges
from pipeline.store.files.seal import row_ranges, seal
from pipeline.store.layout import Layout
from pipeline.store.parts.part import Content
from pipeline.store.reading.reader import open_results
from pipeline.store.writing.assembly import SMALL, refer

POINTS = 10**10
LINKS = 50_000  # names of one file: file systems have a limit


def timed(what: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    outcome = work()
    print(f"  {time.perf_counter() - began:9.3f} s  {what}", flush=True)
    return outcome


def memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most"


def children() -> str:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return f"{peak:.0f} MiB at most in these commands, torch included"


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
    layout = Layout(3, (), (("gradient", 1), ("hessian", 2)), "float64", "t")
    contents = {directory.shard(i): Content("scale", *span) for i, span in enumerate(ranges)}
    attrs = {"run_id": "scale", "start": 0, "stop": POINTS}
    timed(
        "refer to them from a result of four datasets",
        lambda: refer(directory.result, layout, contents, attrs, {}),
    )
    written = [directory.result, *place.glob("shards/view-*.h5")]
    size = sum(path.stat().st_size for path in written) / count
    print(f"             {len(written)} files, {size:.0f} bytes for each shard")
    timed("h5py: open that result and a dataset", lambda: h5py.File(directory.result)["hessian"])
    timed("xarray: open that result", lambda: xarray.open_dataset(directory.result).close())
    print(f"  {memory()}")


def shards(place: Path, count: int) -> None:
    """What opens files: the end of a run, and a finished run again."""
    one, many = command(place / "one", 1), command(place / "many", count)
    timed("a job of one shard", lambda: subprocess.run(one, check=True))
    timed("the same again: all of it is start-up", lambda: subprocess.run(one, check=True))
    directory = begun(place / "many", many)
    print(f"{count} shards of one point")
    timed("write them: copies of the first one", lambda: copies(directory, count))
    timed("end of the run, with start-up", lambda: subprocess.run(many, check=True))
    timed("the same command again, with start-up", lambda: subprocess.run(many, check=True))
    timed("results show, with start-up", lambda: show(directory))
    files = [path.stat().st_size for path in (directory.result, *place.glob("many/**/view-*.h5"))]
    print(f"  {len(files)} files, {sum(files) / count:.0f} bytes per shard, refer to the shards")
    print(f"  {children()}")
    timed("open_results", lambda: open_results(directory.path).close())
    with open_results(directory.path) as results:
        timed("read 1,000 points", lambda: results.gradient[-1000:])
    print(f"  {memory()}")
    timed("h5py: open the result, read one point", lambda: read(directory, 1))
    timed("h5py: open the result, read 500 points", lambda: read(directory, 500))
    timed("xarray: open the result", lambda: xarray.open_dataset(directory.result).close())
    print(f"  {memory()}")


def command(place: Path, count: int) -> list[str]:
    inputs = SMALL // (16 * count) + 4  # as many as make a result that refers to its shards
    return [
        sys.executable, "-m", "pipeline", "job=gradient", "function=rosenbrock", "route=vmap",
        "grid=random", f"grid.n={inputs if count > 1 else 4}", f"grid.count={count}", "shard_rows=1",
        f"output_dir={place}", f"hydra.run.dir={place}", "hydra.job_logging.root.level=WARNING",
    ]  # fmt: skip


def begun(place: Path, many: list[str]) -> RunDirectory:
    """A run that was stopped when it had its first shard."""
    process = subprocess.Popen(many)
    while not (found := [*place.glob("**/shard-00000.h5")]):
        assert process.poll() is None, "it has ended before its first shard"
        time.sleep(0.1)
    process.kill()
    process.wait()
    for path in found[0].parent.iterdir():
        if path != found[0]:
            path.unlink()
    return RunDirectory(found[0].parent.parent)


def copies(directory: RunDirectory, count: int) -> None:
    """Make every shard from the first one, by changing which points it says that it holds."""
    marks = {"start": 0x1CA1AB1E5CA1AB1E, "stop": 0x1EA7BEEF1EA7BEEF}
    first, template = directory.shard(0), directory.path / "template"
    shutil.copyfile(first, template)
    with h5py.File(template, "r+") as file:
        for name, mark in marks.items():
            h5a.open(file.id, name.encode()).write(np.array(mark))
        rows = row_ranges(file[name] for name in ("x", "gradient", "status"))
    data = template.read_bytes()
    offsets = [data.index(mark.to_bytes(8, "little")) for mark in marks.values()]
    for index in range(1, count):
        holding = bytearray(data)
        for offset, point in zip(offsets, (index, index + 1), strict=True):
            holding[offset : offset + 8] = point.to_bytes(8, "little")
        with directory.shard(index).open("xb+", buffering=0) as file:
            file.write(holding)
            seal(file.fileno(), rows)
    template.unlink()


def show(directory: RunDirectory) -> None:
    command = [sys.executable, "-m", "pipeline.results", "show", str(directory.path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def read(directory: RunDirectory, points: int) -> None:
    with h5py.File(directory.result) as file:
        middle = len(file["gradient"]) // 2
        assert np.isfinite(file["gradient"][middle : middle + points]).all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        names(Path(place) / "names", given.names)
        shards(Path(place) / "real", given.real)


if __name__ == "__main__":
    main()
