"""Evaluators side by side: ``python -m benchmarks.evaluators [--dtype float32] [--threads 2]``.

All peers of a row run in processes of their own on the same cores, take turns for several rounds,
and compute the same numbers: their results are compared before anything is measured. Needs JAX:
``pip install -c constraints.txt -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES, Case
from benchmarks.peers import LEVEL, PEERS, POINT_BY_POINT

RESULT_BYTES = 16 << 20
SAMPLE = 2
FEW = 4  # points of a round for peers that go point by point


class Worker:
    """A peer's process."""

    def __init__(self, peer: str, case: Case, arguments: argparse.Namespace) -> None:
        self.peer = peer
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads)},
        )
        request = {
            "peer": peer,
            "case": case.name,
            "dtype": arguments.dtype,
            "cores": sorted(os.sched_getaffinity(0))[: arguments.threads],
            "count": FEW if peer in POINT_BY_POINT else _count(case),
            "seconds": arguments.seconds,
            "sample": SAMPLE,
        }
        self.answer: dict[str, Any] = self.ask(request)
        self.rounds: list[float] = []

    def ask(self, line: object) -> Any:
        """Send a line and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.peer} ended with code {self.process.wait()}")
        return json.loads(answer)

    def stop(self) -> None:
        """End the process."""
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def _count(case: Case) -> int:
    """Points per call: as many as give results of `RESULT_BYTES`."""
    entries = sum(case.n ** LEVEL.get(name, case.order or 0) for name in case.operators)
    return int(np.clip(RESULT_BYTES // (8 * entries), 256, 16384))


def measure(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one row.

    Args:
        case: The row.
        arguments: Of the command line.

    Returns:
        Peer -> nanoseconds per point, with the largest disagreement, the route and set-up times.
    """
    workers = [Worker(peer, case, arguments) for peer in arguments.peers]
    try:
        error = _disagreement([worker.answer["sample"] for worker in workers])
        tolerance = 1e-9 if arguments.dtype == "float64" else 2e-3
        if not error < tolerance:
            raise RuntimeError(f"{case.name}: the peers disagree by {error:.1e}")
        for _ in range(arguments.rounds):
            for worker in workers:
                worker.rounds.append(worker.ask("round"))
        return {
            "case": case.name,
            "dtype": arguments.dtype,
            "threads": arguments.threads,
            "count": _count(case),
            "route": workers[0].answer["route"],
            "error": error,
            "ns": {worker.peer: 1e9 * float(np.median(worker.rounds)) for worker in workers},
            "setup": {worker.peer: worker.answer["setup"] for worker in workers},
        }
    finally:
        for worker in workers:
            worker.stop()


def _disagreement(samples: list[list[Any]]) -> float:
    worst = 0.0
    for levels in zip(*samples, strict=True):
        arrays = [np.asarray(level) for level in levels]
        size = max(float(np.abs(arrays[-1]).max()), 1e-300)
        worst = max(worst, *(float(np.abs(array - arrays[-1]).max()) / size for array in arrays))
    return worst


def table(rows: list[dict[str, Any]], peers: list[str]) -> str:
    """Rows as Markdown, microseconds per point, with the ratio to JAX and its geometric mean.

    Args:
        rows: From `measure`.
        peers: Columns.

    Returns:
        The table.
    """
    lines = [
        f"| case | route | {' | '.join(peers)} | JAX / pipeline | agreement |",
        "|---|---|" + "---:|" * (len(peers) + 2),
    ]
    ratios = []
    for row in rows:
        ratio = row["ns"]["JAX"] / row["ns"]["pipeline"]
        ratios.append(ratio)
        cells = " | ".join(f"{row['ns'][peer] / 1000:.3g}" for peer in peers)
        lines.append(
            f"| {row['case']} | {row['route']} | {cells} | {ratio:.2f} | {row['error']:.0e} |"
        )
    mean = float(np.exp(np.mean(np.log(ratios))))
    return "\n".join([*lines, "", f"Geometric mean of JAX / pipeline: {mean:.2f}"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="least time of one round")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--json", type=Path, help="write the raw figures here")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.cases:
        rows.append(measure(CASES[name], arguments))
        print(f"{name}: {rows[-1]['ns']}", file=sys.stderr, flush=True)
    print(f"{platform.machine()}, {arguments.threads} thread(s), {arguments.dtype}; µs per point\n")
    print(table(rows, arguments.peers))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
