"""A whole job against its parts: ``python -m benchmarks.whole_job [DIRECTORY]``.

For each job three things take turns, each in a process of its own: the job itself with its file,
the evaluation of the same batches without a file, and a plain contiguous h5py write of the same
bytes, synced. The first should take as long as the longer of the other two.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 3
JOBS = {
    "MLP n=64, Hessian": ("mlp", {"inputs": 64}, 100_000),
    "7-joint arm, Hessian": ("robot_arm", {}, 3_000_000),
    "Black-Scholes, Hessian": ("black_scholes", {}, 20_000_000),
}


def main() -> None:
    """Measure and print."""
    place = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="whole-job-"))
    print("| job | GB | whole s | evaluation s | raw write s | whole / max | peak MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in JOBS:
        _measured("job", name, place)  # compilers run here
        rounds = [
            {part: _measured(part, name, place) for part in ("job", "evaluation", "write")}
            for _ in range(ROUNDS)
        ]
        seconds = {
            part: statistics.median(round_[part]["seconds"] for round_ in rounds)
            for part in rounds[0]
        }
        ratio = statistics.median(
            round_["job"]["seconds"]
            / max(round_["evaluation"]["seconds"], round_["write"]["seconds"])
            for round_ in rounds
        )
        gigabytes, peak = rounds[0]["write"]["bytes"] / 1e9, rounds[0]["job"]["peak"] / 2**10
        print(
            f"| {name} | {gigabytes:.2f} | {seconds['job']:.1f} | {seconds['evaluation']:.1f} | "
            f"{seconds['write']:.1f} | {ratio:.2f} | {peak:.0f} |",
            flush=True,
        )
    shutil.rmtree(place, ignore_errors=True)


def _measured(part: str, name: str, place: Path) -> dict[str, Any]:
    target = place / part
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.whole_job", "--part", part, name, str(target)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    shutil.rmtree(target, ignore_errors=True)
    answer: dict[str, Any] = json.loads(output.stdout.splitlines()[-1])
    return answer


def part(what: str, name: str, target: Path) -> dict[str, Any]:
    """One part, with the time of planning left out of all of them.

    Args:
        what: job, evaluation or write.
        name: In `JOBS`.
        target: An empty place.

    Returns:
        Seconds, bytes of the derivatives, peak memory in KiB.
    """
    from pipeline.job import Job
    from pipeline.registry import build_registry
    from pipeline.runs.binding import bind_job
    from pipeline.runs.contents import attrs_of, layout_of
    from pipeline.runs.execution import Execution, prepare_run, run_info
    from pipeline.runs.plan import begin
    from pipeline.runs.work import Work
    from pipeline.store.writing.assembly import assemble

    function, parameters, count = JOBS[name]
    job = Job(
        name="hessian",
        operators=("hessian",),
        function=function,
        parameters=parameters,
        grid="random",
        grid_options={"count": count},
        output_dir=target,
    )
    registry = build_registry()
    bound, grid = bind_job(job, registry)
    work = Work(job, bound, grid)
    work.directory.make()
    evaluator = prepare_run(work, None)
    plan = begin(work, evaluator)
    size = count * (evaluator.row_bytes + 8 * grid.n + 1)
    began = time.perf_counter()
    if what == "job":
        indices = range(len(plan.ranges))
        info = run_info(work, plan, set())
        Execution.of(work, plan, evaluator, registry.hook, info).compute(indices)
        assemble(work.directory, layout_of(work), plan.ranges, attrs_of(work, 0, count))
    elif what == "evaluation":
        for start in range(0, count, plan.batch):
            evaluator(grid[start : start + plan.batch])
    else:
        _write(target / "raw.h5", size, plan.batch * (evaluator.row_bytes + 8 * grid.n + 1))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "bytes": size, "peak": peak}


def _write(path: Path, size: int, block: int) -> None:
    import h5py
    import numpy as np

    values = np.random.default_rng(0).random(block // 8)
    total = size // 8
    with h5py.File(path, "x") as file:
        data = file.create_dataset("data", (total,), "f8")
        for start in range(0, total, len(values)):
            rows = min(len(values), total - start)
            data.write_direct(values, np.s_[:rows], np.s_[start : start + rows])
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "--part":
        print(json.dumps(part(sys.argv[2], sys.argv[3], Path(sys.argv[4]))))
    else:
        main()
