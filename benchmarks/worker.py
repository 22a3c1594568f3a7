"""One peer in a process of its own: prepares, then measures a round whenever it is told to."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np


def main() -> None:
    """Read a request, answer with the set-up time and a sample; then answer rounds until the end."""
    request = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, request["cores"])
    from benchmarks.cases import CASES
    from benchmarks.peers import prepare, with_pipeline

    case, count = CASES[request["case"]], request["count"]
    began = time.perf_counter()
    evaluate = prepare(request["peer"], case, request["dtype"], len(request["cores"]), count)
    levels = evaluate()
    setup = time.perf_counter() - began
    answer = {
        "setup": setup,
        "route": getattr(with_pipeline, "route", ""),
        "sample": [level[: request["sample"]].astype(np.float64).tolist() for level in levels],
    }
    print(json.dumps(answer), flush=True)
    del levels
    for _ in sys.stdin:
        print(json.dumps(_round(evaluate, request["seconds"]) / count), flush=True)


def _round(evaluate: object, seconds: float) -> float:
    times: list[float] = []
    while sum(times) < seconds:
        began = time.perf_counter()
        evaluate()  # type: ignore[operator]
        times.append(time.perf_counter() - began)
    return float(np.median(times))


if __name__ == "__main__":
    main()
