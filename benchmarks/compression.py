"""What compression saves, and what it costs: ``python -m benchmarks.compression [DIRECTORY]``.

Derivatives of built-in functions at random points are written as shards, with every compression, and
read again; the ways take turns, and the median of the rounds is shown. Counted are seconds of the
processor, all threads together: the disk takes no part, and a slow one makes compression look better.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pipeline
from pipeline.job import Storage
from pipeline.store.layout import Layout
from pipeline.store.reading.reader import open_results
from pipeline.store.writing.shard import new_shard

ROUNDS, MEGABYTES = 3, 24
CASES = {
    "Rosenbrock n=20, Hessian": ("rosenbrock", 20, "hessian"),
    "MLP n=8, Hessian": ("mlp", 8, "hessian"),
    "robot arm n=7, Jacobian": ("robot_arm", 7, "jacobian"),
    "Ackley n=20, gradient": ("ackley", 20, "gradient"),
}
STORAGES = (
    Storage(), Storage("gzip", 1), Storage("gzip", 4), Storage("zstd", 1), Storage("zstd", 9),
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    place = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="compression-"))
    place.mkdir(parents=True, exist_ok=True)
    print("| derivatives | compression | ratio | write MB per CPU s | read MB per CPU s |")
    print("|---|---|---:|---:|---:|")
    for name, case in CASES.items():
        layout, values = _derivatives(*case)
        for line in _rows(name, layout, values, place):
            print(line, flush=True)
    shutil.rmtree(place)


def _derivatives(function: str, n: int, operator: str) -> tuple[Layout, Mapping[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    few = torch.rand(512, n, dtype=torch.float64, generator=generator) * 2 - 1
    width = getattr(pipeline.evaluate(function, few, operator, route="vmap"), operator)[0].numel()
    count = MEGABYTES * 1_000_000 // (8 * width)
    points = torch.rand(count, n, dtype=torch.float64, generator=generator) * 2 - 1
    found = getattr(pipeline.evaluate(function, points, operator, route="vmap"), operator).numpy()
    order = {"gradient": 1, "jacobian": 1, "hessian": 2}[operator]
    outputs = found.shape[1 : found.ndim - order]
    layout = Layout(n, outputs, ((operator, order),), "float64", function)
    status = np.ones(count, "u1")
    return layout, {"x": points.numpy(), operator: found, "status": status}


def _rows(name: str, layout: Layout, values: Mapping[str, Any], place: Path) -> list[str]:
    size = sum(array.nbytes for array in values.values())
    seen: dict[Storage, list[tuple[float, float, int]]] = {storage: [] for storage in STORAGES}
    for _ in range(ROUNDS):
        for storage in STORAGES:
            path = place / "shard.h5"
            began = time.process_time()
            _write(path, replace(layout, storage=storage), values)
            written = time.process_time()
            _read(path, values)
            seen[storage].append(
                (written - began, time.process_time() - written, path.stat().st_size)
            )
            path.unlink()
    return [
        f"| {name} | {storage.compression} {storage.level or ''} | {size / rounds[0][2]:.2f} | "
        + " | ".join(
            f"{size / 1e6 / statistics.median(each[k] for each in rounds):.0f}" for k in (0, 1)
        )
        + " |"
        for storage, rounds in seen.items()
    ]


def _write(path: Path, layout: Layout, values: Mapping[str, Any]) -> None:
    points = len(values["x"])
    attrs = {"run_id": "benchmark", "start": 0, "stop": points, "created": "", "history": ""}
    with new_shard(path, layout, points, attrs) as writer:
        for low in range(0, points, 4096):
            writer.append({name: array[low : low + 4096] for name, array in values.items()})


def _read(path: Path, values: Mapping[str, Any]) -> None:
    with open_results(path) as results:
        for name, expected in values.items():
            assert np.array_equal(results[name][:], expected)


if __name__ == "__main__":
    main()
