"""Sparse derivatives of three indices and more, by every route, against the dense reference."""

import dataclasses
import itertools
from functools import cache

import numpy as np
import pytest
import torch

import pipeline
from pipeline import Function
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.sparsity import higher
from pipeline.autograd.sparsity.compression import compress, known_pattern
from pipeline.autograd.sparsity.detection import detect
from pipeline.errors import ConfigurationError, DisagreementError, StoreError


def burgers(u):
    left, right = torch.nn.functional.pad(u[:-1], (1, 0)), torch.nn.functional.pad(u[1:], (0, 1))
    return (0.1 * (right - 2 * u + left) - u * (right - left) / 2)[:-2]


def network(c):
    """Reactions a + b -> d, and c_0 in all of them."""
    i = torch.arange(len(c) - 2)
    rate = c[i] * c[i + 1] ** 2 * c[0]
    return torch.zeros_like(c).index_add(0, i + 2, rate).index_add(0, i, -rate)


def chain(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def triples(x):
    return (torch.sin(x[:-2]) * x[1:-1] ** 2 * x[2:]).sum() + x[0]


CASES = {
    "burgers": (burgers, 11, (2,)),
    "burgers with all below": (burgers, 11, (0, 1, 2)),
    "network": (network, 9, (0, 2)),
    "network, third": (network, 4, (1, 3)),
    "nothing left": (burgers, 5, (3,)),
    "chain": (chain, 6, (0, 3)),
    "triples": (triples, 6, (0, 1, 2, 3)),
    "fourth": (triples, 4, (4,)),
}
QUICK = {"scalar": ("burgers",), "coloured": ("burgers", "burgers with all below", "chain")}


def request_of(name):
    f, n, orders = CASES[name]
    points = torch.rand((2, n), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    request = Request(f, points[0], tuple(f(points[0]).shape), orders)
    return dataclasses.replace(request, pattern=known_pattern(request)), points


@cache
def expected(name):
    request, points = request_of(name)
    rows = [derivatives(request.f, point, request.order) for point in points]
    return [torch.stack(level) for level in zip(*rows, strict=True)]


def candidates():
    for name in CASES:
        for route in ("coloured", "scalar", "loop", "vmap"):
            for mode in ROUTES[route].modes(request_of(name)[0])[:2]:
                slow = name not in QUICK.get(route, ("network",))
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(name, route, mode, id=f"{name}-{route}-{mode}", marks=marks)


@pytest.mark.parametrize(("name", "route", "mode"), list(candidates()))
def test_routes_give_the_entries_of_the_pattern(name, route, mode):
    request, points = request_of(name)
    for chunk in (2, 1000) if route == "coloured" else (1000,):
        levels = ROUTES[route].prepare(request, mode, chunk, len(points))(points)
        for level, order in zip(levels, request.orders, strict=True):
            right = expected(name)[order]
            found = request.full(request.keep(level, order), order)
            assert found.shape == right.shape
            assert float((found - right).abs().max()) <= 1e-12 * float(right.abs().max())


@pytest.mark.parametrize("name", [name for name in CASES if name != "fourth"])
def test_patterns_hold_all_entries_that_are_not_zero(name):
    request, _ = request_of(name)
    order, pattern = request.sparse_order, request.pattern
    kept = pattern.to_dense(torch.ones(pattern.nnz)) != 0
    assert not ((expected(name)[order] != 0) & ~kept).any()
    assert pattern.is_symmetric(order)


def test_entries_of_higher_orders_are_those_whose_indices_meet_in_pairs():
    hessians = detect(network, torch.rand(6).double(), 2)
    pairs = {tuple(place) for place in hessians.coordinates.T.tolist()}
    for order in (3, 4):
        indices = itertools.product(range(6), *[range(6)] * order)
        expected = [
            place
            for place in indices
            if all((place[0], *pair) in pairs for pair in itertools.combinations(place[1:], 2))
        ]
        found = detect(network, torch.rand(6).double(), order)
        assert found.coordinates.T.tolist() == [list(place) for place in expected]


def test_directions_are_few_whatever_the_number_of_inputs():
    for n in (20, 200):
        request = Request(burgers, torch.rand(n).double(), (n - 2,), (2,))
        request = dataclasses.replace(request, pattern=known_pattern(request))
        assert request.pattern.nnz == 4 * (n - 2) - 2
        for mode in ("fwd_over_fwd", "fwd_over_rev"):
            assert [step.directions for step in compress(request, mode)] == [3, 2]


def test_too_many_entries_are_refused(monkeypatch):
    monkeypatch.setattr(higher, "MOST_ENTRIES", 100)
    with pytest.raises(RefusedError, match="its pattern has too many entries to pay"):
        detect(chain, torch.rand(20).double(), 3)
    with pytest.raises(RefusedError, match="its pattern has too many entries to pay"):
        detect(chain, torch.rand(10_000).double(), 5)  # more than 64 bits count


@pytest.mark.parametrize(
    ("f", "operators", "more", "symmetric"),
    [
        (burgers, ["value", "hessian"], {}, "full"),
        pytest.param(burgers, ["hessian"], {}, "packed", marks=pytest.mark.slow),
        pytest.param(
            chain, ["gradient", "derivative"], {"order": 3}, "packed", marks=pytest.mark.slow
        ),
    ],
)
def test_evaluation_keeps_the_entries_of_the_pattern(f, operators, more, symmetric):
    points = torch.rand(5, 6).double()
    name = "derivative_3" if more else "hessian"
    sparse = pipeline.evaluate(f, points, operators, format="sparse", symmetric=symmetric, **more)
    dense = pipeline.evaluate(f, points, operators, route="loop", **more)
    whole = getattr(dense, name)
    close = {"rtol": 1e-12, "atol": 1e-12 * float(whole.abs().max())}
    assert torch.allclose(getattr(sparse, name), whole, **close)
    found = sparse.sparse(name)
    assert found.shape == tuple(whole.shape)
    assert f"of {found.nnz} entries" in repr(found)
    assert found.density == found.nnz / whole[0].numel()
    assert np.allclose(found[2].toarray(), whole[2], **close)
    assert [each.nnz for each in found[1:3]] == [found.nnz] * 2
    assert torch.allclose(found.to_torch(4).to_dense(), whole[4], **close)
    assert torch.allclose(found.to_torch(slice(1, 4)).to_dense(), whole[1:4], **close)
    assert np.allclose(found.to_dense(slice(0, 2)), whole[:2], **close)


def test_what_dense_results_have_no_room_for_is_evaluated():
    n = 1500
    points = torch.rand(2, n).double()
    found = pipeline.evaluate(burgers, points, "hessian", format="sparse")
    sparse = found.sparse("hessian")
    assert sparse.shape == (2, n - 2, n, n)
    output, i, j = sparse.coordinates
    # of -u_o (u_(o+1) - u_(o-1)) / 2
    expected = np.where(i + j == 2 * output + 1, -0.5, 0.5)
    assert np.array_equal(sparse.values[1], expected)


@pytest.mark.slow
def test_patterns_of_the_function_author_and_of_the_user():
    def branching(u):
        return burgers(u) if u[0] > 0 else burgers(u.clone())

    o = torch.arange(7)

    def right(n):
        near = [(o, o, o + 1), (o, o + 1, o), (o[1:], o[1:], o[1:] - 1), (o[1:], o[1:] - 1, o[1:])]
        return tuple(torch.cat(each) for each in zip(*near, strict=True))

    points = torch.rand(3, 9).double()
    whole = pipeline.evaluate(burgers, points, "hessian", route="loop").hessian
    record = Function(
        "given", lambda: branching, n=9, output_shape=(7,), sparsity={"hessian": right}
    )
    found = pipeline.evaluate(record, points, "hessian", format="sparse")
    assert torch.equal(found.hessian, whole)
    again = pipeline.evaluate(branching, points, "hessian", pattern=found.sparse("hessian"))
    assert torch.equal(again.hessian, whole)
    masked = pipeline.evaluate(branching, points, "hessian", pattern=(whole != 0).any(0))
    assert torch.equal(masked.hessian, whole)
    lacking = (whole != 0).any(0)
    lacking[3, 3, 4] = lacking[3, 4, 3] = False
    with pytest.raises(DisagreementError, match="differs from the reference"):
        pipeline.evaluate(branching, points, "hessian", pattern=lacking)
    with pytest.raises(
        ConfigurationError, match="expected 7 x 9 x 9, the shape of the Hessian, got"
    ):
        pipeline.evaluate(branching, points, "hessian", pattern=torch.ones(9, 9))
    with pytest.raises(ConfigurationError, match="has to be symmetric; give both of its triangles"):
        pipeline.evaluate(branching, points, "hessian", pattern=lacking.tril())


def test_given_patterns_that_are_wrong_elsewhere_are_refused():
    def late(x):
        return x**2 + torch.relu(x.roll(1) - 5) ** 2

    lacking = torch.eye(9)[:, :, None] * torch.eye(9)
    with pytest.raises(DisagreementError, match=r"leaves out 9 entries .* such as \(0, 8, 8\)"):
        pipeline.evaluate(late, torch.rand(3, 9).double(), "hessian", pattern=lacking)


def test_an_old_scipy_is_told_so(monkeypatch):
    import scipy.sparse

    def older(*args, **options):
        raise ValueError("invalid input format")

    found = pipeline.evaluate(burgers, torch.rand(2, 9).double(), "hessian", format="sparse")
    monkeypatch.setattr(scipy.sparse, "coo_array", older)
    with pytest.raises(StoreError, match="this SciPy has no sparse arrays of 3 indices; use SciPy"):
        found.sparse("hessian")[0]
