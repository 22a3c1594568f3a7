"""Sparse derivatives by loops over formulas, against the loop over single points and outputs."""

from dataclasses import replace

import pytest
import torch

from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes import ROUTES, scalar
from pipeline.autograd.routes.scalar import derive
from pipeline.autograd.scalar.cuts import MOST_TERMS, cut
from pipeline.autograd.scalar.loops import Loops, arrange
from pipeline.autograd.sparsity.compression import known_pattern

N = 37  # no multiple of any number of lanes
WEIGHTS = torch.linspace(-1, 2, N, dtype=torch.float64)


def mixed(x):
    """A stencil with weights, a value that all share, a long sum, truth values and powers."""
    left, right = x.roll(1), x.roll(-1)
    shared = torch.exp(x * WEIGHTS) / (1 + x[0] ** 2)
    chosen = torch.where(x > 0.6, left * shared, shared.sin() ** 2)
    last = (x[:20].cos() * WEIGHTS[:20]).sum()[None]
    return torch.cat([chosen + right**5 - x.roll(2).abs(), last, torch.ones(1, dtype=x.dtype)])


def energy(x):
    """Neighbours, an arrow, and a constant that is another one everywhere."""
    chain = (100 * (x[1:] - x[:-1] ** 2) ** 2 + WEIGHTS[1:] * torch.tanh(x[:-1] * x[1:])).sum()
    return chain + ((x - x[0]) ** 4).sum() + x.mean().exp() * 0


def march(x):
    """Steps of an equation, each a formula of the one before it."""
    state, rows = x[0], []
    for step in range(12):
        for _ in range(6):
            state = state + 0.1 * (x[step + 1] - state**2)
        rows.append(state)
    return torch.stack(rows)


FUNCTIONS = {"mixed": mixed, "energy": energy, "march": march}


def request(f, n=N, dtype=torch.float64):
    x = torch.full((n,), 0.5, dtype=dtype)
    y = f(x)
    asked = Request(f, x, tuple(y.shape), (0, 1 if y.ndim else 2))
    return replace(asked, pattern=known_pattern(asked))


def points(count, n=N):
    draw = torch.Generator().manual_seed(3)
    return torch.rand(count, n, dtype=torch.float64, generator=draw) + 0.1


def evaluator(monkeypatch, asked):
    monkeypatch.setattr(scalar, "SHORTER", 0)
    assert isinstance(scalar._arranged.__wrapped__(asked), Loops)
    scalar._arranged.cache_clear()
    mode = scalar.ScalarRoute().modes(asked)[0]
    return ROUTES["scalar"].prepare(asked, mode, N, 8)


def expected(asked, rows):
    order = asked.sparse_order
    found = [derivatives(asked.f, row, order) for row in rows]
    whole = torch.stack([levels[order] for levels in found])
    return torch.stack([levels[0] for levels in found]), whole


def assert_equal(asked, seen, rows):
    value, whole = expected(asked, rows)
    torch.testing.assert_close(seen[0], value, rtol=1e-12, atol=1e-12, equal_nan=True)
    dense = asked.pattern.to_dense(seen[1])
    kept = asked.pattern.to_dense(torch.ones_like(seen[1])) > 0
    largest = whole[whole.isfinite()].abs().max()
    torch.testing.assert_close(
        dense[kept], whole[kept], rtol=0, atol=1e-12 * float(largest), equal_nan=True
    )
    sure = whole.isfinite() & ~kept
    assert not whole[sure].any()


SOME = ["mixed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("energy", "march"))]


@pytest.mark.parametrize("name", SOME)
def test_equals_the_reference(name, monkeypatch):
    asked = request(FUNCTIONS[name])
    evaluate = evaluator(monkeypatch, asked)
    for count in (1, 4, 7):
        rows = points(count)
        kept = rows.clone()
        assert_equal(asked, evaluate(rows), rows)
        assert torch.equal(rows, kept)


def test_what_is_not_finite_is_that_of_torch(monkeypatch):
    asked = request(mixed)
    rows = points(6)
    rows[1, 5], rows[2, 0], rows[4, 30] = torch.inf, torch.nan, 1e6
    assert_equal(asked, evaluator(monkeypatch, asked)(rows), rows)


def test_what_is_not_finite_in_a_large_matrix_spoils_its_own_point_alone(monkeypatch):
    asked = request(mixed)
    monkeypatch.setattr(scalar, "ENTRIES", N * N)
    rows = points(6)
    rows[1, 5] = torch.inf
    seen = evaluator(monkeypatch, asked)(rows)
    assert not seen[1][1].isfinite().all()
    assert_equal(asked, [level[2:] for level in seen], rows[2:])


def test_code_does_not_grow_with_the_entries():
    few, many = (arrange(derive(request(energy_of, n))) for n in (50, 500))
    assert few.statements == many.statements
    assert 9 < many.operations / few.operations < 11


def energy_of(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def test_long_sums_and_long_formulas_are_cut():
    program = derive(request(march))
    cuts = cut(program.dag, program.nodes, [])
    assert len(cuts.stages) > 5
    program = derive(request(energy_of))
    sums = cut(program.dag, program.nodes, program.levels[0].reshape(-1).tolist()).terms
    assert [len(terms) for terms in sums.values()] == [2 * (N - 1)]
    assert MOST_TERMS < 2 * (N - 1)


def test_dense_formulas_stay_unrolled():
    asked = request(lambda x: torch.stack([x[0] * x[1], x[1].exp(), x[2] ** 3]), 3)
    assert not isinstance(scalar._arranged.__wrapped__(asked), Loops)


@pytest.mark.parametrize("name", ["mixed", "energy"])
def test_the_time_of_deriving_is_counted_before_it_is_spent(name):
    asked, route = request(FUNCTIONS[name]), scalar.ScalarRoute()
    least = route.least_seconds(asked, route.modes(asked)[0]) - scalar.COMPILER_SECONDS
    nodes = len(derive(asked).dag.nodes)
    assert nodes / 3 < least / scalar.DERIVED_SECONDS < 3 * nodes


def test_a_function_that_refuses_to_be_watched_is_counted_as_nothing():
    def refuses(x):
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("watched")
        return x * x

    asked, route = request(torch.square), scalar.ScalarRoute()
    assert route.least_seconds(replace(asked, f=refuses), "rev") == scalar.COMPILER_SECONDS


def test_too_many_formulas_are_refused(monkeypatch):
    monkeypatch.setattr(scalar, "BUDGET", 5)
    with pytest.raises(RefusedError, match="its entries have formulas of .* scalar operations"):
        scalar._arranged.__wrapped__(request(mixed))


def test_other_entries_than_those_of_the_pattern_are_refused():
    asked = request(energy_of)
    pattern = asked.pattern
    fewer = type(pattern).of_flat(pattern.flat[pattern.ascending(2) != 1], pattern.shape)
    with pytest.raises(RefusedError, match="it finds entries that the pattern leaves out"):
        derive(replace(asked, pattern=fewer))
