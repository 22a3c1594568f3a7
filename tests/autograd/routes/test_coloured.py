"""Sparse results by every route against the dense reference, point by point."""

import dataclasses

import numpy as np
import pytest
import torch

import pipeline
from pipeline import Function
from pipeline.autograd.operators import Operator
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.planning.formats import choose_pattern
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.sparsity.compression import compress
from pipeline.errors import ConfigurationError, DisagreementError, PipelineError


def chain(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def arrow(x):
    return ((x[1:] - x[0]) ** 4).sum() + torch.sin(x).sum()


def burgers(u):
    left, right = torch.nn.functional.pad(u[:-1], (1, 0)), torch.nn.functional.pad(u[1:], (0, 1))
    return (0.1 * (right - 2 * u + left) - u * (right - left) / 2)[:9]


def arrowhead(x):
    return torch.cat([x[1:] ** 2 * x[0], (x**3).sum()[None], x[:1].exp()])


def nothing(x):
    return torch.ones(3, dtype=x.dtype)


CASES = {
    "chain": (chain, 12),
    "arrow": (arrow, 11),
    "burgers": (burgers, 14),
    "arrowhead": (arrowhead, 13),
    "constant": (nothing, 10),
    "constant scalar": (lambda x: x.sum() * 0 + 1, 10),
}
SCALARS = ("chain", "arrow", "constant scalar")


def request_of(name, orders=None, sparse=True, dtype=torch.float64):
    f, n = CASES[name]
    points = torch.rand((5, n), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points = points.to(dtype)
    shape = tuple(f(points[0]).shape)
    orders = orders or ((1,) if shape else (2,))
    request = Request(f, points[0], shape, orders)
    if sparse:
        form = dataclasses.replace(pipeline.autograd.planning.formats.DENSE, format="sparse")
        operators = tuple(Operator("derivative", order) for order in orders)
        pattern = choose_pattern(form, request, operators)
        request = dataclasses.replace(request, pattern=pattern)
    return request, points


def expected(request, points):
    rows = [derivatives(request.f, point, request.order) for point in points]
    levels = [torch.stack([row[order] for row in rows]) for order in request.orders]
    return [request.keep(level, order) for level, order in zip(levels, request.orders, strict=True)]


def candidates():
    for name in CASES:
        for route in ("coloured", "scalar", "loop", "vmap"):
            request, _ = request_of(name)
            for mode in ROUTES[route].modes(request):
                slow = route == "scalar" and name != "chain"  # a compiler each
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(name, route, mode, id=f"{name}-{route}-{mode}", marks=marks)


@pytest.mark.parametrize(("name", "route", "mode"), list(candidates()))
def test_routes_give_the_entries_of_the_pattern(name, route, mode):
    request, points = request_of(name)
    directions = request.directions
    evaluate = ROUTES[route].prepare(request, mode, directions, len(points))
    found = [
        request.keep(level, order)
        for level, order in zip(evaluate(points), request.orders, strict=True)
    ]
    for level, right in zip(found, expected(request, points), strict=True):
        assert level.shape == right.shape
        assert float((level - right).abs().max() if right.numel() else 0) <= 1e-12 * max(
            1.0, float(right.abs().max() if right.numel() else 0)
        )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_lower_orders_come_along_and_chunks_change_nothing(name, chunk):
    orders = (0, 1, 2) if name in SCALARS else (0, 1)
    request, points = request_of(name, orders)
    for mode in ROUTES["coloured"].modes(request):
        levels = ROUTES["coloured"].prepare(request, mode, chunk, 1)(points)
        for level, right in zip(levels, expected(request, points), strict=True):
            assert torch.allclose(level, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["chain", "burgers", "arrowhead"])
def test_dense_results_are_filled_from_few_directions(name):
    request, points = request_of(name, sparse=False)
    for mode in ROUTES["coloured"].modes(request):
        try:
            (compression,) = compress(request, mode)
        except RefusedError:
            continue
        assert compression.directions < request.n
        (level,) = ROUTES["coloured"].prepare(request, mode, 100, 1)(points)
        (right,) = expected(request, points)
        assert level.shape == right.shape
        assert torch.allclose(level, right, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode"), [("chain", "fwd_over_rev"), ("arrowhead", "fwd_and_rev"), ("burgers", "fwd")]
)
def test_compiled_directions_give_the_same(name, mode):
    request, points = request_of(name)
    route = ROUTES["coloured_compiled"]
    cost = route.cost(request, mode, None, 1 << 30)
    assert cost.operations > 0
    evaluate = route.prepare(request, mode, cost.chunk, 4)
    for level, right in zip(evaluate(points), expected(request, points), strict=True):
        assert torch.allclose(level, right, rtol=1e-12, atol=1e-12)


def directions(request, mode):
    return [step.directions for step in compress(request, mode)]


def test_directions_are_few_where_columns_alone_take_all():
    request, _ = request_of("arrowhead")
    assert directions(request, "fwd") == [13]
    assert directions(request, "fwd_and_rev") <= [4]
    assert directions(request_of("chain")[0], "fwd_over_rev") == [3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["chain", "arrow", "burgers", "arrowhead"])
def test_evaluation_keeps_the_entries_of_the_pattern(name, dtype):
    f, n = CASES[name]
    points = torch.rand(6, n, dtype=torch.float64).to(dtype)
    operator = "hessian" if name in SCALARS else "jacobian"
    sparse = pipeline.evaluate(f, points, ["value", operator], format="sparse", route="coloured")
    dense = pipeline.evaluate(f, points, ["value", operator])
    whole = getattr(dense, operator)
    scale = float(whole.abs().max())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert sparse.datasets[f"{operator}_sparse"].dtype == dtype
    assert float((getattr(sparse, operator) - whole).abs().max()) <= tolerance * scale
    rows = sparse.sparse(operator)
    assert rows.shape == tuple(whole.shape)
    assert rows.nnz == rows[2].nnz < whole[0].numel() / 2
    assert rows.density == rows.nnz / whole[0].numel()
    assert np.abs(rows[2].toarray() - whole[2].numpy()).max() <= tolerance * scale
    assert [each.shape for each in rows[1:3]] == [tuple(whole.shape[1:])] * 2
    assert float((rows.to_torch(4).to_dense() - whole[4]).abs().max()) <= tolerance * scale
    assert (
        float((rows.to_torch(slice(1, 4)).to_dense() - whole[1:4]).abs().max()) <= tolerance * scale
    )
    assert np.abs(rows.to_dense(slice(0, 2)) - whole[:2].numpy()).max() <= tolerance * scale
    assert f"of {rows.nnz} entries" in repr(rows)
    assert (sparse.value - dense.value).abs().max() <= tolerance * float(dense.value.abs().max())


def test_what_is_taken_for_dense_is_said_in_the_certificate():
    def f(x):
        signal = torch.nn.functional.conv_transpose1d(
            x[:3].reshape(1, 1, 3), torch.ones(1, 1, 2).to(x)
        )
        return torch.cat([signal.reshape(-1), x[3:] ** 2])

    found = pipeline.evaluate(f, torch.rand(2, 12).double(), "jacobian", format="sparse")
    assert "pattern: convolution is taken for dense" in found.certificate.unchecked
    assert found.sparse("jacobian").nnz == 4 * 3 + 9


def test_nothing_sparse_is_said_by_name():
    evaluation = pipeline.evaluate(chain, torch.rand(2, 9).double())
    assert evaluation.pattern is None
    with pytest.raises(PipelineError, match="no sparse 'hessian' was evaluated, but hessian"):
        evaluation.sparse("hessian")


@pytest.mark.slow
def test_automatic_format_is_sparse_only_where_it_pays():
    big, small = torch.rand(2, 150).double(), torch.rand(2, 20).double()
    assert pipeline.evaluate(chain, big, format="auto").pattern is not None
    assert pipeline.evaluate(chain, small, format="auto").pattern is None
    assert pipeline.evaluate(lambda x: x.sum() ** 3, big, format="auto").pattern is None
    assert pipeline.evaluate(chain, big, "gradient", format="auto").pattern is None
    branching = pipeline.evaluate(lambda x: chain(x) if x[0] > 0 else chain(-x), big, format="auto")
    assert branching.pattern is None


@pytest.mark.parametrize(
    ("f", "operator", "words"),
    [
        (chain, "gradient", "the highest derivative, if it has two indices or more"),
        (
            lambda x: x**2,
            "divergence",
            "no sums of entries; got divergence of a function with output",
        ),
        (
            lambda x: x * 2 if x[0] > 0 else x,
            "jacobian",
            "no pattern is found: what it does depends on",
        ),
    ],
)
def test_sparse_results_that_cannot_be_had_are_refused(f, operator, words):
    with pytest.raises(ConfigurationError, match=words):
        pipeline.evaluate(f, torch.rand(2, 12).double(), operator, format="sparse")


def test_unknown_formats_are_refused():
    with pytest.raises(
        ConfigurationError, match="format 'spares' is unknown. Did you mean 'sparse'"
    ):
        pipeline.evaluate(chain, torch.rand(2, 12).double(), format="spares")


def given(pattern, f=chain, operator="hessian", shape=()):
    return Function("given", lambda: f, n=12, output_shape=shape, sparsity={operator: pattern})


def test_patterns_of_the_function_author_are_used_where_none_is_found():
    def branching(x):
        return chain(x) if x[0] > 0 else chain(x.clone())

    def tridiagonal(n):
        i = torch.arange(n)
        return (i[:, None] - i).abs() <= 1

    points = torch.rand(3, 12).double()
    found = pipeline.evaluate(given(tridiagonal, branching), points, format="sparse")
    assert found.sparse("hessian").nnz == 34
    assert torch.equal(found.hessian, pipeline.evaluate(chain, points, route="loop").hessian)


@pytest.mark.parametrize("n", [12, 100])
def test_patterns_that_lack_entries_are_never_used(n):
    """Entry by entry for few inputs, and along random directions for many."""

    def f(x):  # its own pattern is not found
        return chain(x) if x[0] > 0 else chain(x.clone())

    wrong = Function("wrong", lambda: f, n=n, sparsity={"hessian": lambda n: torch.eye(n)})
    with pytest.raises(DisagreementError, match="differs from the reference"):
        pipeline.evaluate(wrong, torch.rand(3, n).double(), format="sparse")


def late(x):
    return x**2 + torch.relu(x.roll(1) - 5)


def test_given_patterns_that_are_wrong_elsewhere_are_refused():
    points = torch.rand(9, 12).double()
    points[1] += 6  # no probe point
    wrong = given(torch.eye, late, "jacobian", (12,))
    with pytest.raises(DisagreementError, match="leaves out 12 entries .* row 0, column 11"):
        pipeline.evaluate(wrong, points, "jacobian", format="sparse")
    passed = pipeline.prepare(
        wrong, points[:1], "jacobian", format="sparse", on_disagreement="warn"
    ).certificate
    assert "leaves out 12 entries" in passed.disagreements[0]


def test_given_patterns_are_confirmed_or_said_not_to_be():
    def branching(x):
        return x**2 if x[0] > 0 else x**3

    words = {late: "given, and confirmed", branching: "given, not confirmed: what it does depends"}
    for f, expected in words.items():
        right = given(lambda n: torch.eye(n) + torch.eye(n).roll(1, 0), f, "jacobian", (12,))
        points = torch.rand(3, 12).double()
        notes = pipeline.prepare(right, points, "jacobian", format="sparse").certificate.unchecked
        assert any(f"pattern: {expected}" in note for note in notes)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (lambda n: torch.eye(n + 1), "expected a mask of shape \\(12, 12\\)"),
        (lambda n: ([0, 12], [0, 0]), "rows and columns have to lie within"),
        (lambda n: ([0, 1], [0]), "rows and columns have to lie within"),
        (lambda n: ([0], [1]), "the pattern of a Hessian has to be symmetric"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(pattern, words):
    with pytest.raises(ConfigurationError, match=words):
        pipeline.evaluate(given(pattern), torch.rand(2, 12).double(), format="sparse")


def test_dense_requests_are_refused_where_a_pattern_does_not_pay():
    full = Request(lambda x: x.sum() ** 2, torch.rand(20).double(), (), (2,))
    with pytest.raises(RefusedError, match="its pattern takes 20 directions of 20"):
        compress(full, "fwd_over_rev")
    tiny = Request(chain, torch.rand(4).double(), (), (2,))
    with pytest.raises(RefusedError, match="a 4 x 4 matrix is too small for a pattern to pay"):
        compress(tiny, "fwd_over_rev")


def test_the_mode_of_both_sides_is_of_order_one():
    with pytest.raises(ConfigurationError, match="mode fwd_and_rev is of order 1, and order 2"):
        pipeline.evaluate(chain, torch.rand(2, 12).double(), mode="fwd_and_rev")
    both = pipeline.evaluate(arrowhead, torch.rand(2, 13).double(), "jacobian", mode="fwd_and_rev")
    assert (both.plan.route, both.plan.mode) == ("coloured", "fwd_and_rev")


def test_entries_that_a_pattern_leaves_out_stop_the_scalar_route():
    request, _ = request_of("chain", sparse=False)
    request = dataclasses.replace(request, pattern=Pattern.of_flat(torch.arange(12) * 13, (12, 12)))
    with pytest.raises(RefusedError, match="it finds entries that the pattern leaves out"):
        ROUTES["scalar"].cost(request, "rev_over_rev", None, 1 << 30)


def test_points_that_fail_alone_have_no_entries():
    def fragile(x):
        if x[0] < 0:
            raise ValueError("negative")
        return chain(x)

    i = torch.arange(12)
    record = given(lambda n: (i[:, None] - i).abs() <= 1, fragile)
    points = torch.rand(4, 12).double()
    points[2, 0] = -1
    found = pipeline.evaluate(record, points, format="sparse")
    assert found.status.tolist() == [1, 1, 3, 1]
    assert found.datasets["hessian_sparse"][2].isnan().all()
