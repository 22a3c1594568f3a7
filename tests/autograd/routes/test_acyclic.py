"""Hessians by substitution against the dense reference, and when the planner takes them."""

import dataclasses

import pytest
import torch

import pipeline
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes import ROUTES, ColouredAcyclicRoute, acyclic
from pipeline.autograd.sparsity.compression import known_pattern
from pipeline.autograd.sparsity.substitution import substitute

MODE = "fwd_over_rev"
WEIGHTS = [torch.rand(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 0.5
           for shape in ((16, 16), (16,))]  # fmt: skip

EDGES = torch.randint(30, (2, 60), generator=torch.Generator().manual_seed(6))
EDGES = EDGES[:, EDGES[0] != EDGES[1]]


def costly(groups):
    """Energy of each group of variables (…, k) by a small network, summed."""
    first, last = WEIGHTS
    hidden = torch.tanh(groups @ first[: groups.shape[-1]].to(groups))
    return (torch.tanh(hidden @ first.to(groups)) @ last.to(groups)).sum()


def nine_points(x):
    g = x.reshape(round(len(x) ** 0.5), -1)
    cells = torch.stack([g[1:, 1:], g[1:, :-1], g[:-1, 1:], g[:-1, :-1]], -1)
    return costly(cells) + (x**4).sum()


def random_graph(x):
    i, j = EDGES
    return costly(torch.stack([x[i], x[j]], -1)) + (x**2).sum()


def chain(x):
    return costly(torch.stack([x[1:], x[:-1]], -1)) + (x**2).sum()


CASES = {"nine points": (nine_points, 36), "random graph": (random_graph, 30), "chain": (chain, 21)}


def points_of(n, count=5):
    return torch.rand((count, n), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def request_of(f, n, orders=(2,), sparse=True, dtype=torch.float64):
    request = Request(f, points_of(n)[0].to(dtype), (), orders)
    return dataclasses.replace(request, pattern=known_pattern(request) if sparse else None)


def expected(request, points):
    rows = [derivatives(request.f, point, 2) for point in points]
    levels = [torch.stack([row[order] for row in rows]) for order in request.orders]
    return [request.keep(level, order) for level, order in zip(levels, request.orders, strict=True)]


def agrees(found, right):
    return found.shape == right.shape and (found - right).abs().max() <= 1e-12 * right.abs().max()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("name", CASES)
def test_entries_and_lower_orders_are_those_of_the_reference(name, chunk, sparse):
    f, n = CASES[name]
    request, points = request_of(f, n, (0, 1, 2), sparse), points_of(n)
    levels = ROUTES["coloured_acyclic"].prepare(request, MODE, chunk, 5)(points)
    assert all(map(agrees, levels, expected(request, points)))


@pytest.mark.slow
def test_compiled_directions_give_the_same():
    f, n = CASES["nine points"]
    request, points = request_of(f, n), points_of(n)
    points[2, 7] = 1e5  # evaluated again
    route = ROUTES["coloured_acyclic_compiled"]
    cost = route.cost(request, MODE, None, 1 << 30)
    (found,) = route.prepare(request, MODE, cost.chunk, 4)(points)
    assert agrees(found, *expected(request, points))


def couplings(x):
    """Entry (i, i + 1) of the Hessian is exp(x[i] + x[i + 1])."""
    return torch.exp(x[1:] + x[:-1]).sum()


def test_points_where_digits_would_be_lost_are_evaluated_entry_by_entry():
    request, points = request_of(couplings, 40), points_of(40)
    points[1, 10], points[1, 13], points[3, 25] = 23, -12, float("inf")
    (alone,) = ROUTES["coloured"].prepare(request, MODE, 100, 5)(points)
    (found,) = ROUTES["coloured_acyclic"].prepare(request, MODE, 100, 5)(points)
    (right,) = expected(request, points)
    assert found[[0, 1, 2, 4]].allclose(right[[0, 1, 2, 4]], rtol=1e-12, atol=0)
    assert found[1].equal(alone[1])
    assert found[3].isfinite().equal(alone[3].isfinite())
    substitution = substitute(request.pattern)
    sums = acyclic.compressed(request, (substitution.compression,), 100)(points)[-1]
    left, is_precise = substitution.solve(sums)
    assert is_precise.tolist() == [True, False, True, False, True]
    small = (left[1, substitution.compression.index] - right[1]).abs() / right[1]
    assert small.max() > 1e-9  # what would have been read without a word


def refusal(request, budget=1 << 30):
    with pytest.raises(RefusedError) as caught:
        ROUTES["coloured_acyclic"].cost(request, MODE, None, budget)
    return str(caught.value)


def test_it_is_refused_where_it_does_not_pay_or_digits_would_be_lost():
    arrow = request_of(lambda x: ((x[1:] - x[0]) ** 4).sum() + (x**2).sum(), 12)
    assert refusal(arrow) == "it takes 2 directions where a star colouring takes 2"
    long = request_of(chain, 600)
    assert refusal(long) == "its trees have 300 levels, more than 256"
    request = request_of(couplings, 40)
    request.example[10], request.example[13] = 23, -12
    assert "entries differ so much in size that small ones would lose digits" in refusal(request)


def test_other_numbers_than_the_directions_read_alone_give_are_refused(monkeypatch):
    request = request_of(*CASES["nine points"])
    operator = acyclic.compressed

    def wrong(request, compressions, chunk):
        evaluate = operator(request, compressions, chunk)
        return lambda points: tuple(2 * level for level in evaluate(points))

    monkeypatch.setattr(acyclic, "compressed", wrong)
    with pytest.raises(RefusedError, match="by substitution entries differ by .* that are read al"):
        ROUTES["coloured_acyclic"].prepare(request, MODE, 100, 5)


def test_it_is_for_hessians_of_scalars_in_float64():
    route = ColouredAcyclicRoute()
    assert route.modes(request_of(chain, 21)) == (MODE,)
    assert route.modes(request_of(chain, 21, dtype=torch.float32)) == ()
    assert route.modes(Request(chain, points_of(21)[0], (), (1,))) == ()
    assert route.modes(Request(torch.sin, points_of(21)[0], (21,), (1,))) == ()
    assert route.modes(Request(torch.sin, points_of(21)[0], (21,), (2,))) == ()


def chosen(f, n, count):
    plan = pipeline.prepare(f, points_of(n), "hessian", count, format="sparse").plan
    return plan.route, {each.route: each.verdict for each in plan.considered}


def test_the_planner_takes_it_where_directions_are_dear():
    route, _ = chosen(nine_points, 256, 2000)
    assert route == "coloured_acyclic"


def test_the_planner_leaves_a_tridiagonal_matrix_to_a_star():
    route, verdicts = chosen(chain, 600, 2000)
    assert route == "coloured"
    assert verdicts["coloured_acyclic"] == "refused: its trees have 300 levels, more than 256"
