"""Workers that fight for the shards of one run, killed at random moments: ``python storm.py PLACE SEED KILLS``.

Torch is imported once; every worker is a fork of this process. Observers write down, and sync, what
was reported to them; after every kill all of it has to be there.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

import pipeline
from pipeline.grids.product import Axis, ProductGrid
from pipeline.store.export.integrity import check_file
from pipeline.store.reading.reader import open_results

WORKERS, LONGEST = 3, 300.0
GRID = ProductGrid((Axis(-1.0, 1.0, 20), Axis(0.5, 2.0, 16)))
PLUGIN = """
import os
import time
import torch
from pipeline import Function, hookimpl


def build():
    def f(x):
        time.sleep(0.001)
        return torch.sin(x[0] * x[1]) + x[1] ** 3

    return f


@hookimpl
def pipeline_functions():
    return [Function("steady", build, n=2)]


@hookimpl
def pipeline_shard_finished(run, shard):
    descriptor = os.open({journal!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{{shard.path}}\\n".encode())
    os.fsync(descriptor)
"""


def compute(place: Path, plugin: Path) -> Path:
    """One worker's part: the whole job, as any user would start it."""
    stored = pipeline.run(
        "steady", GRID, ["value", "hessian"], plugins=[plugin], output_dir=place, shard_rows=8, route="loop"
    )  # fmt: skip
    stored.close()
    return stored.path


def fork(place: Path, plugin: Path) -> int:
    """Start a worker."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        sys.stderr = (place.parent / f"worker-{os.getpid()}.txt").open("w")
        torch.set_num_threads(1)
        compute(place, plugin)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def storm(folder: Path, generator: random.Random, kills: int) -> tuple[int, Path]:
    """One run, disturbed until it is finished or enough have been killed; then left to finish."""
    folder.mkdir(parents=True)
    journal, plugin, place = folder / "journal", folder / "steady.py", folder / "outputs"
    plugin.write_text(PLUGIN.format(journal=str(journal)))
    killed, workers, deadline = 0, set[int](), time.monotonic() + LONGEST
    while not list(place.glob("*/*/*/result.h5")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not finished after {killed} kills")
        while len(workers) < WORKERS:
            workers.add(fork(place, plugin))
        time.sleep(generator.choice([0.02, 0.3, 0.7]) * 2 * generator.random())
        workers -= reap(workers)
        if workers and killed < kills:
            victim = generator.choice(sorted(workers))
            os.kill(victim, signal.SIGKILL)
            killed += 1
            os.waitpid(victim, 0)
            workers.discard(victim)
            require_reported(journal)
    for worker in workers:
        _, status = os.waitpid(worker, 0)
        require_well(status, worker)
    require_reported(journal)
    (result,) = place.glob("*/*/*/result.h5")
    return killed, result


def reap(workers: set[int]) -> set[int]:
    """Workers that have ended by themselves, which has to be well."""
    ended = set()
    for worker in workers:
        process, status = os.waitpid(worker, os.WNOHANG)
        if process:
            require_well(status, worker)
            ended.add(process)
    return ended


def require_well(status: int, worker: int) -> None:
    """A worker that nobody has killed ends well."""
    if os.waitstatus_to_exitcode(status) != 0:
        raise AssertionError(f"worker {worker} ended with status {status}")


def require_reported(journal: Path) -> None:
    """What was reported is there and whole."""
    for line in sorted(set(journal.read_text().splitlines() if journal.exists() else ())):
        if not Path(line).is_file():
            raise AssertionError(f"{line} was reported and is not there")
        if faults := check_file(Path(line)):
            raise AssertionError(f"{line} was reported and is damaged: {faults}")


def require_same(one: Path, other: Path) -> None:
    """Bit for bit."""
    with open_results(one) as a, open_results(other) as b:
        if a.names != b.names or a.certificate["rows_checked"] != b.certificate["rows_checked"]:
            raise AssertionError("another result")
        for name in a.names:
            if not np.array_equal(a[name][:], b[name][:], equal_nan=True):
                raise AssertionError(f"{name} differs")


def main() -> None:
    """Disturb runs until enough workers have been killed, and say how many."""
    place, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    generator = random.Random(seed)
    _, undisturbed = storm(place / "undisturbed", generator, 0)
    killed, runs = 0, 0
    while killed < kills:
        more, result = storm(place / f"run-{runs}", generator, min(kills - killed, 40))
        require_same(undisturbed, result)
        killed, runs = killed + more, runs + 1
    print(
        f"{killed} kills in {runs} runs: nothing that was reported was lost, every result the same"
    )


if __name__ == "__main__":
    main()
