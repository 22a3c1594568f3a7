"""Laplacian against the trace of the Hessian: python -m benchmarks.operators

One thread, float64, a tanh network of 30 inputs and two hidden layers; interleaved, medians. Our own
Hessian is the route that the planner takes for it; torch.func is the usual three lines.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import pipeline
from plugins.networks import build_mlp

ROUNDS, BATCH = 9, 1024
ROUTES = (("vmap", "fwd_over_fwd"), ("vmap", "fwd_over_rev"), ("compiled", "fwd_over_fwd"))


def contenders(f: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is measured: everything gives the Laplacian, (B,)."""
    found: dict[str, Callable[[], Tensor]] = {}
    for route in ("vmap", "compiled"):
        hessian = pipeline.prepare(f, x, "hessian", route=route, batch=len(x))
        name = f"trace of our Hessian, {route} {hessian.plan.mode}"
        found[name] = lambda hessian=hessian: hessian(x).diagonal(dim1=1, dim2=2).sum(1)
    usual = torch.func.vmap(torch.func.hessian(f))
    found["trace of torch.func.hessian"] = lambda: usual(x).diagonal(dim1=1, dim2=2).sum(1)
    for route, mode in ROUTES:
        laplacian = pipeline.prepare(f, x, "laplacian", route=route, mode=mode, batch=len(x))
        found[f"laplacian, {route} {mode}"] = lambda laplacian=laplacian: laplacian(x)
    return found


def measure(calls: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Median seconds of each, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    torch.set_num_threads(1)
    for hidden in (32, 64, 128):
        f = build_mlp(inputs=30, hidden=hidden, layers=2, outputs=0)
        x = torch.randn(BATCH, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        calls = contenders(f, x)
        values = {name: call() for name, call in calls.items()}
        first = next(iter(values.values()))
        for name, value in values.items():
            torch.testing.assert_close(value, first, rtol=1e-9, atol=1e-12, msg=name)
        seconds = measure(calls)
        best = min(second for name, second in seconds.items() if name.startswith("laplacian"))
        print(f"hidden {hidden}:")
        for name, second in seconds.items():
            print(f"  {second / BATCH * 1e6:8.2f} us/point  {second / best:6.2f}  {name}")


if __name__ == "__main__":
    main()
