"""One file of many, against ``cp`` of the same bytes: ``python -m benchmarks.consolidate [DIRECTORY]``.

The two take turns; both end with everything on disk. The result is a run of 4,000,000 Hessians of
n = 5, 0.9 GB in 8 shards.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.store.export.consolidate import consolidate
from pipeline.store.reading.reader import open_results

ROUNDS = 5
JOB = ("job=hessian", "function=black_scholes", "grid=random", "grid.count=4000000")


def main() -> None:
    """Measure and print."""
    place = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="consolidate-"))
    command = [sys.executable, "-m", "pipeline", *JOB, f"output_dir={place}/run"]
    subprocess.run(command, check=True, capture_output=True)
    (run,) = place.glob("run/*/*/*")
    rounds = [(_seconds(_copy, run, place), _seconds(_merge, run, place)) for _ in range(ROUNDS)]
    copied, merged = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(copy / merge for copy, merge in rounds)
    print(f"cp {copied:.2f} s, consolidate {merged:.2f} s, cp / consolidate {ratio:.2f}")
    shutil.rmtree(place)


def _copy(run: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run(["cp", *map(str, run.glob("shards/*.h5")), str(target)], check=True)
    subprocess.run(["sync", "-f", str(target)], check=True)


def _merge(run: Path, target: Path) -> None:
    with open_results(run) as results:
        consolidate(results, target / "one.h5")


def _seconds(act: Callable[[Path, Path], None], run: Path, place: Path) -> float:
    target = place / "target"
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    began = time.perf_counter()
    act(run, target)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
