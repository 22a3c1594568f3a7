"""Folded graphs: equal values, and nothing left that does not look at the points."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pipeline.autograd.constant_folding import fold_constants

X = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4)
SEEDS = torch.eye(4, dtype=torch.float64)[:2]


def folded(f):
    return fold_constants(make_fx(torch.func.functionalize(f, remove="mutations_and_views"))(X))


def targets(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def seeded(x):
    return x[:, None] * (3 * SEEDS.roll(1, 1).sin()) + torch.arange(4)


def through_zeros(x):
    return (torch.zeros_like(x) + x.exp()) - torch.zeros(4, dtype=torch.float64)


def from_zero(x):
    return torch.zeros(4, dtype=torch.float64) - x


def scaled_zeros(x):
    return torch.add(x, torch.zeros_like(x), alpha=2)


def wider(x):
    return x[0] + torch.zeros((3, 4), dtype=torch.float64)


def promoted(x):
    return x.to(torch.float32) + torch.zeros((3, 4), dtype=torch.float64)


def like_ones(x):
    return torch.ones_like(x.log()) * 2 + x


def constant(x):
    return torch.ones(3, dtype=torch.float64) * 7


@pytest.mark.parametrize(
    "f",
    [seeded, through_zeros, from_zero, scaled_zeros, wider, promoted, like_ones, constant],
    ids=lambda f: f.__name__,
)
def test_values_stay_the_same(f):
    graph = folded(f)
    for points in (X, 2 * X - 1):
        found, right = graph(points), f(points)
        assert found.shape == right.shape
        assert found.dtype == right.dtype
        torch.testing.assert_close(found, right, rtol=0, atol=0)


def test_what_does_not_look_at_the_points_is_evaluated_once():
    aten = torch.ops.aten
    assert not {aten.sin.default, aten.roll.default} & set(targets(folded(seeded)))
    assert set(targets(folded(through_zeros))) == {aten.exp.default}
    assert aten.log.default not in targets(folded(like_ones))


def test_what_repeats_is_kept_once():
    (kept,) = folded(lambda x: x * torch.full((3, 4), 5.0, dtype=torch.float64)).buffers()
    assert kept.shape == (1, 1)


def test_random_numbers_stay_random():
    graph = folded(lambda x: x + torch.rand(4, dtype=torch.float64))
    assert not torch.equal(graph(X), graph(X))


def test_results_are_not_views_of_what_is_kept():
    graph = folded(constant)
    graph(X).zero_()
    assert torch.equal(graph(X), constant(X))
