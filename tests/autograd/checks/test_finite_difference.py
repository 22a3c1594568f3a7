"""Finite differences against reverse mode: which order is wrong, and at which points it is not."""

import pytest
import torch

from pipeline.autograd.checks import finite_difference
from pipeline.autograd.checks.finite_difference import compare_with_finite_differences
from pipeline.autograd.request import Request

POINTS = torch.linspace(0.3, 1.7, 6, dtype=torch.float64).reshape(2, 3)


class Slope(torch.autograd.Function):
    """3x² whose own derivative is wrong: 5x in place of 6x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 3 * x**2

    @staticmethod
    def backward(ctx, g):
        return 5 * ctx.saved_tensors[0] * g


class Cube(torch.autograd.Function):
    """x³ whose first derivative is right."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return g * Slope.apply(ctx.saved_tensors[0])


def compared(order):
    request = Request(lambda x: Cube.apply(x).sum(), POINTS[0], (), tuple(range(order + 1)))
    return compare_with_finite_differences(request, POINTS)


def test_a_point_is_confirmed_by_the_highest_order_alone():
    first, second = compared(1), compared(2)
    assert (first.disagreements, first.confirmed, first.checks) == ((), {0, 1}, 2)
    assert (second.confirmed, second.checks) == (frozenset(), 4)
    assert [text.split(" near")[0] for text in second.disagreements] == [
        "derivative of order 2"
    ] * 2


@pytest.mark.parametrize(
    ("second", "outcome"),
    [((0.0, False), (0.0, False)), (None, None), ((0.3, True), (0.5, True))],
)
def test_a_disagreement_counts_where_a_second_place_confirms_it(monkeypatch, second, outcome):
    said = iter([(0.5, True), second])
    monkeypatch.setattr(finite_difference, "_directional_check", lambda *at: next(said))
    found = finite_difference._confirmed(None, POINTS[0], POINTS, 1, seed=0)
    assert found == outcome


@pytest.mark.parametrize("seed", range(4))
def test_inputs_that_matter_alike_do_not_cancel_in_the_comparison(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(5, 7, dtype=torch.float64, generator=generator)  # the last does not matter
    request = Request(lambda x: x[:6].sin().sum() + 3, points[0], (), (0, 1, 2))
    found = compare_with_finite_differences(request, points)
    assert found.disagreements == ()
    assert found.residual < 1e-8
