"""Sparse derivatives side by side with asdex: ``python -m benchmarks.sparse --jax-python PYTHON``.

PYTHON is an interpreter with JAX and asdex (``pip install jax==0.10.2 asdex==0.5.1``); by default
this one. All peers of a row run in processes of their own, pinned to one core, take turns for
several rounds, and their values are compared before anything is measured. Detection and colouring
are measured apart, after a first call on a small case has loaded what they need.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

OPERATOR = {"rosenbrock": "hessian", "arrow": "hessian"}
# function, n, points per call
CASES = [
    ("rosenbrock", 10, 4096),
    ("rosenbrock", 100, 512),
    ("rosenbrock", 1000, 64),
    ("rosenbrock", 10000, 16),
    ("burgers", 400, 128),
    ("burgers", 10000, 8),
    ("brusselator", 800, 64),
    ("brusselator", 9800, 8),
    ("arrow", 1000, 64),
    ("network", 1000, 64),
]
LONG = 10_000_000  # points that the planner is told of: compilers pay
ROUNDS, SECONDS = 5, 0.2


def function_of(name: str, xp: Any) -> Callable[[Any], Any]:
    """The functions in the words that torch and jax.numpy share."""

    def rosenbrock(x: Any) -> Any:
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    def arrow(x: Any) -> Any:
        return (x**2).sum() + ((x - x[0]) ** 4).sum()

    def burgers(u: Any) -> Any:
        h, end = 1 / (u.shape[0] + 1), xp.zeros_like(u[:1])
        left, right = xp.concatenate([end, u[:-1]]), xp.concatenate([u[1:], end])
        return 0.01 * (right - 2 * u + left) / h**2 - u * (right - left) / (2 * h)

    def brusselator(y: Any) -> Any:
        size = round((y.shape[0] // 2) ** 0.5)
        u, v = y.reshape(2, size, size)

        def spread(w: Any) -> Any:
            up, left = xp.roll(w, 1, 0) + xp.roll(w, -1, 0), xp.roll(w, 1, 1) + xp.roll(w, -1, 1)
            return 0.02 * size**2 * (up + left - 4 * w)

        reaction = u * u * v
        first, second = 1 + reaction - 4.4 * u + spread(u), 3.4 * u - reaction + spread(v)
        return xp.concatenate([first.reshape(-1), second.reshape(-1)])

    def network(c: Any) -> Any:
        r = np.arange(c.shape[0])
        i, j, k = r, (2 * r + 1) % len(r), (7 * r + 3) % len(r)
        flow = c[i] * c[j] - 0.5 * c[k]
        if hasattr(c, "at"):
            return xp.zeros_like(c).at[k].add(flow).at[i].add(-flow).at[j].add(-flow)
        i, j, k = (xp.as_tensor(each) for each in (i, j, k))
        change = xp.zeros_like(c).index_add(0, k, flow)
        return change.index_add(0, i, -flow).index_add(0, j, -flow)

    functions: dict[str, Callable[[Any], Any]] = locals()
    return functions[name]


def ours(name: str, points: np.ndarray) -> tuple[float, Callable[[], np.ndarray], dict[str, Any]]:
    """Pattern and colours timed; then the evaluator that the planner chooses for a long job."""
    import torch

    import pipeline
    from pipeline.autograd.compression import compress
    from pipeline.autograd.request import Request

    torch.set_num_threads(1)

    def found(f: Callable[[Any], Any], x: Any) -> float:
        y = f(x)
        order = 1 if y.ndim else 2
        began = time.perf_counter()
        compress(Request(f, x, tuple(y.shape), (order,)), "symmetric" if order == 2 else "fwd")
        return time.perf_counter() - began

    f, x = function_of(name, torch), torch.from_numpy(points)
    found(f, x[0, :32])
    detection = min(found(f, x[0]) for _ in range(5))
    operator = OPERATOR.get(name, "jacobian")
    evaluator = pipeline.prepare(f, x, operator, LONG, format="sparse", batch=len(points))
    pattern = evaluator.pattern
    flat = [] if pattern is None else pattern.flat.tolist()
    route = f"{evaluator.plan.route} {evaluator.plan.mode}"
    return detection, lambda: evaluator(x).numpy(), {"route": route, "flat": flat}


def dense(name: str, points: np.ndarray) -> tuple[float, Callable[[], np.ndarray], dict[str, Any]]:
    """torch.func over all entries."""
    import torch

    torch.set_num_threads(1)
    f, x = function_of(name, torch), torch.from_numpy(points)
    transform = torch.func.hessian if name in OPERATOR else torch.func.jacfwd
    batched = torch.func.vmap(transform(f))
    return 0.0, lambda: batched(x).numpy().reshape(len(points), -1), {"route": "", "flat": None}


def asdex(name: str, points: np.ndarray) -> tuple[float, Callable[[], np.ndarray], dict[str, Any]]:
    """Asdex's colouring, and its values compiled by XLA."""
    import asdex
    import jax

    jax.config.update("jax_enable_x64", True)
    f, x = function_of(name, jax.numpy), jax.numpy.asarray(points)
    color = asdex.hessian_coloring if name in OPERATOR else asdex.jacobian_coloring
    build = asdex.hessian_from_coloring if name in OPERATOR else asdex.jacobian_from_coloring

    def found(one: Any) -> float:
        began = time.perf_counter()
        color(f, one)
        return time.perf_counter() - began

    found(x[0, :8])
    detection = min(found(x[0]) for _ in range(5))
    matrix = build(f, color(f, x[0]))
    batched = jax.jit(jax.vmap(lambda one: matrix(one).data))
    rows, columns = np.asarray(jax.jit(matrix)(x[0]).indices).T
    flat = (rows.astype(np.int64) * points.shape[1] + columns).tolist()
    return (
        detection,
        lambda: np.asarray(batched(x).block_until_ready()),
        {"route": "", "flat": flat},
    )


PEERS = {"ours": ours, "asdex": asdex, "dense": dense}


def work(peer: str, case: int) -> None:
    """Prepare, say what was found, and measure a round whenever a line comes in."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    name, n, count = CASES[case]
    points = np.random.default_rng(7).uniform(0.2, 1.2, (count, n))
    detection, evaluate, facts = PEERS[peer](name, points)
    values = evaluate()
    sample = values[:2].tolist() if values[0].size < 10**6 else []
    print(json.dumps({"detection": detection, "sample": sample, **facts}), flush=True)
    for _ in sys.stdin:
        times: list[float] = []
        while sum(times) < SECONDS:
            began = time.perf_counter()
            evaluate()
            times.append(time.perf_counter() - began)
        print(json.dumps([float(np.median(times)), min(times)]), flush=True)


class Worker:
    """A peer's process."""

    def __init__(self, python: str, peer: str, case: int) -> None:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.sparse", "--work", peer, "--case", str(case)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": flags},
        )  # fmt: skip
        self.answer = self._read()
        self.rounds: list[list[float]] = []

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a peer ended with code {self.process.wait()}")
        return json.loads(line)

    def measure(self) -> None:
        """Ask for one more round."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.rounds.append(self._read())

    @property
    def milliseconds(self) -> float:
        """Median over the rounds of the medians of the calls."""
        return float(np.median([median for median, _ in self.rounds])) * 1e3

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def agreement(one: Worker, other: Worker) -> float:
    """Largest difference of the values at the same entries, relative to the largest value."""
    n = int(max(one.answer["flat"]) + 1)
    worst = 0.0
    for mine, theirs in zip(one.answer["sample"], other.answer["sample"], strict=True):
        a, b = np.zeros(n), np.zeros(n)
        a[one.answer["flat"]] = mine
        flat = other.answer["flat"]
        b[: len(theirs) if flat is None else n][slice(None) if flat is None else flat] = theirs
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def row(case: int, python: str) -> float:
    """Measure one row and print it; gives asdex's time over ours."""
    name, n, count = CASES[case]
    peers = {"ours": sys.executable, "asdex": python}
    if (name, n) == ("rosenbrock", 100):
        peers["dense"] = sys.executable
    workers = {peer: Worker(interpreter, peer, case) for peer, interpreter in peers.items()}
    gap = max(agreement(workers["ours"], workers[peer]) for peer in peers if peer != "ours")
    for _ in range(ROUNDS):
        for worker in workers.values():
            worker.measure()
    mine, theirs = workers["ours"], workers["asdex"]
    ratio = theirs.milliseconds / mine.milliseconds
    cells = [
        f"{name} n={n}", str(len(mine.answer["flat"])), str(count), mine.answer["route"],
        f"{mine.answer['detection'] * 1e3:.1f}", f"{theirs.answer['detection'] * 1e3:.1f}",
        f"{mine.milliseconds:.3f}", f"{theirs.milliseconds:.3f}", f"{ratio:.2f}",
        f"{workers['dense'].milliseconds:.1f}" if "dense" in workers else "", f"{gap:.0e}",
    ]  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)
    for worker in workers.values():
        worker.stop()
    return ratio


def main() -> None:
    """Measure the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jax-python", default=sys.executable)
    parser.add_argument("--work")
    parser.add_argument("--case", type=int, action="append")
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.case[0])
        return
    heads = (
        "case|nnz|points|route|detection ms|asdex|evaluation ms|asdex|asdex / ours|dense|agreement"
    )
    print("| " + heads.replace("|", " | ") + " |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    chosen = arguments.case or range(len(CASES))
    ratios = [row(case, arguments.jax_python) for case in chosen]
    print(f"geometric mean of asdex / ours: {np.exp(np.mean(np.log(ratios))):.2f}")


if __name__ == "__main__":
    main()
