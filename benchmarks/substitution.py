"""Hessians by acyclic colours and substitution beside star colours: ``python -m benchmarks.substitution``.

The energies are sums of small networks over cells of a grid, edges of a graph, and pairs of atoms. All
evaluators are of one process and take turns on the same batches; what is shown is the mean over the
batches, with what points take that are evaluated again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from statistics import mean

import torch
from torch import Tensor

from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.routes.coloured import compressed
from pipeline.autograd.sparsity.compression import compress, known_pattern
from pipeline.autograd.sparsity.substitution import substitute

MODE, ROUNDS, CHECKED = "fwd_over_rev", 16, 128
Energy = Callable[[Tensor], Tensor]
WEIGHTS = [
    torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    for shape in ((4, 16), (16, 16), (16,))
]


def network(groups: Tensor) -> Tensor:
    """Energy of each group of variables (…, k), summed."""
    first, second, last = WEIGHTS
    return (torch.tanh(torch.tanh(groups @ first[: groups.shape[-1]]) @ second) @ last).sum()


def nine_points(x: Tensor) -> Tensor:
    """Cells of a square grid."""
    grid = x.reshape(round(len(x) ** 0.5), -1)
    corners = [grid[1:, 1:], grid[1:, :-1], grid[:-1, 1:], grid[:-1, :-1]]
    return network(torch.stack(corners, -1)) + (x**2).sum()


def random_graph(n: int, edges: int) -> Energy:
    """Edges between any two of n variables."""
    ends = torch.randint(n, (2, edges), generator=torch.Generator().manual_seed(1))
    i, j = ends[:, ends[0] != ends[1]]
    return lambda x: network(torch.stack([x[i], x[j]], -1)) + (x**2).sum()


def atoms(count: int, reach: float) -> Energy:
    """Pairs of atoms in a unit cube that are nearer than a distance; x is how far they are moved."""
    places = torch.rand(count, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    i, j = (torch.cdist(places, places) < reach).triu(1).nonzero().T

    def energy(x: Tensor) -> Tensor:
        moved = places + 0.01 * x.reshape(-1, 3)
        return network(((moved[i] - moved[j]) ** 2).sum(-1, keepdim=True)) + (x**2).sum()

    return energy


# what, energy, variables, points per call
CASES: list[tuple[str, Energy, int, int]] = [
    ("nine-point stencil, 50 x 50", nine_points, 2500, 4),
    ("random graph, n=400, 800 edges", random_graph(400, 800), 400, 16),
    ("random graph, n=2500, 10000 edges", random_graph(2500, 10000), 2500, 4),
    ("200 atoms, pairs within 0.18", atoms(200, 0.18), 600, 8),
]


def row(name: str, f: Energy, n: int, count: int) -> str:
    """Measure a case, and say how many points are evaluated again and how far results are apart."""
    points = torch.rand(
        (CHECKED, n), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    request = Request(f, points[0], (), (2,))
    request = replace(request, pattern=known_pattern(request))
    (star,), found = compress(request, MODE), substitute(known_pattern(request))
    operator = compressed(request, (found.compression,), found.compression.directions)
    again = sum(int((~found.solve(operator(batch)[-1])[1]).sum()) for batch in points.split(count))
    routes = ("coloured", "coloured_acyclic", "coloured_compiled", "coloured_acyclic_compiled")
    evaluators = {
        route: ROUTES[route].prepare(request, MODE, star.directions, count) for route in routes
    }
    star_entries, entries = (evaluators[route](points[:count])[-1] for route in routes[:2])
    gap = ((star_entries - entries).abs().amax(1) / star_entries.abs().amax(1)).max()
    times: dict[str, list[float]] = {route: [] for route in routes}
    for batch in islice(cycle(points.split(count)), ROUNDS + 1):
        for route, evaluate in evaluators.items():
            began = time.perf_counter()
            evaluate(batch)
            times[route].append((time.perf_counter() - began) * 1e3)
    cells = [f"{mean(times[route][1:]):.1f}" for route in routes]
    directions = f"{star.directions}, {found.compression.directions} | {len(found.levels)}"
    return f"| {name} | {count} | {directions} | {' | '.join(cells)} | {again} | {float(gap):.0e} |"


def main() -> None:
    """Measure the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, action="append")
    chosen = parser.parse_args().case or range(len(CASES))
    torch.set_num_threads(1)
    print(
        "| Hessian | points | directions: star, acyclic | levels | star ms | acyclic | star, compiled "
        f"| acyclic, compiled | again of {CHECKED} | difference |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for case in chosen:
        print(row(*CASES[case]), flush=True)


if __name__ == "__main__":
    main()
