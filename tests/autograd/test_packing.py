"""Symmetric results without their repetitions: the same numbers, and no asymmetry is hidden."""

from itertools import combinations_with_replacement, permutations
from math import comb

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import pipeline
from pipeline.autograd.checks.spot_check import spot_check
from pipeline.autograd.checks.symmetry import check_symmetry
from pipeline.autograd.operators import Operator
from pipeline.autograd.packing import asymmetry, pack, packed_size, unpack
from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES
from pipeline.errors import ConfigurationError, DisagreementError
from pipeline.store.packed import packed_index, places

POINTS = torch.linspace(-1, 1.3, 51, dtype=torch.float64).reshape(17, 3)


def scalar(x):
    return torch.sin(x).prod() + (x**4).sum()


def vector(x):
    return torch.stack([scalar(x), (x**3).sum() * x[0]])


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 5), order=st.integers(1, 4), batch=st.integers(0, 3), m=st.integers(0, 2))
def test_packing_and_back(n, order, batch, m):
    shape = (batch, *((m,) if m else ()))
    raw = torch.rand(*shape, *(n,) * order, dtype=torch.float64)
    axes, lead = range(order), len(shape)
    turns = [[*range(lead), *(lead + axis for axis in turn)] for turn in permutations(axes)]
    whole = sum(raw.permute(turn) for turn in turns)
    packed = pack(whole, order)
    assert packed.shape == (*shape, comb(n + order - 1, order))
    rows = combinations_with_replacement(range(n), order)
    expected = [whole[(..., *entry)] for entry in rows]  # lexicographic
    assert torch.equal(packed, torch.stack(expected, -1))
    torch.testing.assert_close(unpack(packed, order), whole, rtol=1e-13, atol=0)
    flat = whole.flatten(lead).numpy()  # the store packs by NumPy: the same order
    assert np.array_equal(flat[..., packed_index(n, order)], packed.numpy())
    assert np.array_equal(
        packed.numpy()[..., places(n, order)], unpack(packed, order).flatten(lead)
    )


def test_the_worst_exchange_of_indices_counts():
    point, operator = torch.tensor([1.0, 2.0], dtype=torch.float64), Operator("derivative_3", 3)
    request = Request(lambda x: (x**3).sum(), point, (), (3,))
    level = torch.zeros(2, 2, 2, dtype=torch.float64)
    level[0, 0, 0] = level[1, 1, 1] = 6.0
    level[0, 0, 1], level[1, 0, 1] = 1.0, -1.0
    found = check_symmetry(request, (operator,), point, {"derivative_3": level})
    alone = [
        spot_check(request, (operator,), point, {"derivative_3": turned}, seed).error[
            "derivative_3"
        ]
        for seed, turned in ((1, level.transpose(1, 2)), (2, level.transpose(0, 1)))
    ]
    assert alone[0] > alone[1]
    assert found.error == {"derivative_3": alone[0]}
    assert len(found.disagreements) == 2


def test_a_number_of_entries_that_fits_no_size():
    with pytest.raises(ValueError, match="4 is not the number of distinct entries .* such as 6"):
        unpack(torch.zeros(4), 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "route",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("compiled", "scalar")))
        for name, each in ROUTES.items()
        if each.exact and not name.startswith("coloured")
    ],
)
def test_every_route(route, dtype):
    points = POINTS.to(dtype)
    full = pipeline.evaluate(scalar, points, ["gradient", "hessian"], route=route)
    packed = pipeline.evaluate(
        scalar, points, ["gradient", "hessian"], route=route, symmetric="packed", batch=5
    )
    assert set(packed.datasets) == {"gradient", "hessian_packed"}
    assert packed.hessian_packed.shape == (17, packed_size(3, 2))
    assert packed.hessian_packed.dtype == dtype
    tolerance = torch.finfo(dtype).eps * 8 * float(full.hessian.abs().max())
    torch.testing.assert_close(packed.hessian, full.hessian, rtol=0, atol=tolerance)
    assert packed.certificate.symmetry_residual is not None
    assert packed.certificate.rows_checked == 1


def test_orders_of_vector_functions():
    full = pipeline.evaluate(vector, POINTS, "derivative", order=3)
    packed = pipeline.evaluate(vector, POINTS, "derivative", order=3, symmetric="packed")
    assert packed.derivative_3_packed.shape == (17, 2, packed_size(3, 3))
    torch.testing.assert_close(packed.derivative_3, full.derivative_3, rtol=1e-12, atol=1e-12)
    assert "derivative_3" in dir(packed)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_bare_calls(count):
    evaluator = pipeline.prepare(scalar, POINTS, "hessian", symmetric="packed")
    packed = evaluator(POINTS[:count])
    assert packed.shape == (count, 6)
    assert evaluator.row_bytes == 6 * 8


def test_first_order_has_nothing_to_leave_out():
    found = pipeline.evaluate(scalar, POINTS, "gradient", symmetric="packed")
    assert set(found.datasets) == {"gradient"}


def test_another_word_is_refused():
    with pytest.raises(ConfigurationError, match="symmetric: expected full or packed, got 'half'"):
        pipeline.evaluate(scalar, POINTS, symmetric="half")


class Skewed(torch.autograd.Function):
    """A backward pass that is no gradient where x_0 > 2: there the Hessian is not symmetric."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x**2).sum()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (2 * x + torch.where(x[0] > 2, 0.1 * x * x[1], torch.zeros_like(x)))


@pytest.mark.parametrize("where", [7, 30])
def test_an_asymmetry_is_not_hidden(where, caplog):
    points = torch.rand(41, 3, generator=torch.Generator().manual_seed(0)).double() + 0.5
    points[where, 0] = 2.5
    with pytest.raises(
        DisagreementError, match="hessian is not symmetric: exchanged, hessian diff"
    ):
        pipeline.evaluate(Skewed.apply, points, symmetric="packed", route="loop", batch=16)
    found = pipeline.evaluate(
        Skewed.apply, points, symmetric="packed", route="loop", on_disagreement="warn"
    )
    assert any("not symmetric" in reason for reason in found.certificate.disagreements)
    evaluator = pipeline.prepare(Skewed.apply, points, symmetric="packed", route="loop")
    with pytest.raises(DisagreementError, match="hessian is not symmetric"):
        evaluator(points)


def test_an_asymmetry_keeps_its_place_where_the_function_raises_elsewhere():
    def skewed(x):
        if x[1] > 5:
            raise ArithmeticError("beyond the table")
        return Skewed.apply(x)

    points = torch.rand(11, 3, generator=torch.Generator().manual_seed(0)).double() + 0.5
    points[2, 1], points[8, 0] = 9.0, 2.5
    evaluator = pipeline.prepare(skewed, points[[0, 1, 3]], symmetric="packed", route="loop")
    found = evaluator.guarded(points)
    assert list(found.failures) == [2]
    assert list(found.suspects) == [8]
    assert found.suspects[8]["hessian_packed"].shape == (3, 3)


def test_asymmetry_sees_every_pair_of_indices():
    level = torch.zeros(2, 2, 2, 2)
    level[1, 0, 1, 1] = 4.0
    level[1, 1, 0, 1] = 3.0
    level[1, 1, 1, 0] = 3.0
    assert asymmetry(level, 3).tolist() == [0.0, 0.25]
    level[1, 0, 0, 0] = float("nan")
    assert asymmetry(level, 3)[1].isnan()
