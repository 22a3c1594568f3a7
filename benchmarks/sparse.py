"""Sparse derivatives side by side with asdex: ``python -m benchmarks.sparse --jax-python PYTHON``.

PYTHON is an interpreter with JAX and asdex (``pip install jax==0.10.2 asdex==0.5.1``); by default
this one. All peers of a row run in processes of their own, pinned to one core, take turns for
several rounds, and their values are compared before anything is measured. What is shown is the
median over the rounds of the shortest call of a round, so that other work on the machine counts
little. Detection and colouring are of a new function every time, after a first call on a small case
has loaded what they need; in time of the processor.
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


Peer = tuple[Callable[[], object], Callable[[], np.ndarray], dict[str, Any]]


def ours(name: str, points: np.ndarray) -> Peer:
    """Pattern and colours timed; then the evaluator that the planner chooses for a long job."""
    import torch

    import pipeline
    from pipeline.autograd.request import Request
    from pipeline.autograd.sparsity.compression import compress

    torch.set_num_threads(1)

    operator = OPERATOR.get(name, "jacobian")

    def found(x: Any) -> object:
        f, n = function_of(name, torch), len(x)
        if operator == "hessian":
            return compress(Request(f, x, (), (2,)), "symmetric")
        return compress(Request(f, x, (n,), (1,)), "fwd")

    f, x = function_of(name, torch), torch.from_numpy(points)
    found(x[0, :32])
    evaluator = pipeline.prepare(f, x, operator, LONG, format="sparse", batch=len(points))
    pattern = evaluator.pattern
    flat = [] if pattern is None else pattern.flat.tolist()
    route = f"{evaluator.plan.route} {evaluator.plan.mode}"
    return lambda: found(x[0]), lambda: evaluator(x).numpy(), {"route": route, "flat": flat}


def dense(name: str, points: np.ndarray) -> Peer:
    """torch.func over all entries."""
    import torch

    torch.set_num_threads(1)
    f, x = function_of(name, torch), torch.from_numpy(points)
    transform = torch.func.hessian if name in OPERATOR else torch.func.jacfwd
    batched = torch.func.vmap(transform(f))
    facts = {"route": "", "flat": None}
    return lambda: None, lambda: batched(x).numpy().reshape(len(points), -1), facts


def asdex(name: str, points: np.ndarray) -> Peer:
    """Asdex's colouring, and its values compiled by XLA."""
    import asdex
    import jax

    jax.config.update("jax_enable_x64", True)
    f, x = function_of(name, jax.numpy), jax.numpy.asarray(points)
    color = asdex.hessian_coloring if name in OPERATOR else asdex.jacobian_coloring
    build = asdex.hessian_from_coloring if name in OPERATOR else asdex.jacobian_from_coloring

    def found(one: Any) -> object:
        return color(function_of(name, jax.numpy), one)

    found(x[0, :8])
    matrix = build(f, color(f, x[0]))
    batched = jax.jit(jax.vmap(lambda one: matrix(one).data))
    rows, columns = np.asarray(jax.jit(matrix)(x[0]).indices).T
    flat = (rows.astype(np.int64) * points.shape[1] + columns).tolist()
    return (
        lambda: found(x[0]),
        lambda: np.asarray(batched(x).block_until_ready()),
        {"route": "", "flat": flat},
    )


PEERS = {"ours": ours, "asdex": asdex, "dense": dense}


def work(peer: str, case: int) -> None:
    """Prepare, say what was found, and measure a round whenever a line comes in."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    name, n, count = CASES[case]
    points = np.random.default_rng(7).uniform(0.2, 1.2, (count, n))
    detect, evaluate, facts = PEERS[peer](name, points)
    values = evaluate()
    sample = values[:2].tolist() if values[0].size < 10**6 else []
    print(json.dumps({"sample": sample, **facts}), flush=True)
    for _ in sys.stdin:
        round_ = [shortest(detect, time.process_time), shortest(evaluate, time.perf_counter)]
        print(json.dumps(round_), flush=True)


def shortest(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Milliseconds of the shortest of the calls that fit into a round."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        began = clock()
        call()
        times.append(clock() - began)
    return min(times) * 1e3


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
    def milliseconds(self) -> tuple[float, float]:
        """Of detection and of evaluation."""
        detection, evaluation = np.median(self.rounds, axis=0)
        return float(detection), float(evaluation)

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
    mine, theirs = workers["ours"].milliseconds, workers["asdex"].milliseconds
    answer = workers["ours"].answer
    cells = [
        f"{name} n={n}", str(len(answer["flat"])), str(count), answer["route"],
        *(f"{each:.1f}" for each in (mine[0], theirs[0], theirs[0] / mine[0])),
        *(f"{each:.3f}" for each in (mine[1], theirs[1])), f"{theirs[1] / mine[1]:.2f}",
        f"{workers['dense'].milliseconds[1]:.1f}" if "dense" in workers else "", f"{gap:.0e}",
    ]  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)
    for worker in workers.values():
        worker.stop()
    return theirs[1] / mine[1]


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
        "case|nnz|points|route|detection ms|asdex|asdex / ours|evaluation ms|asdex|asdex / ours|"
        "torch.func, dense|agreement"
    )
    print("| " + heads.replace("|", " | ") + " |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    chosen = arguments.case or range(len(CASES))
    ratios = [row(case, arguments.jax_python) for case in chosen]
    print(f"geometric mean of asdex / ours: {np.exp(np.mean(np.log(ratios))):.2f}")


if __name__ == "__main__":
    main()
