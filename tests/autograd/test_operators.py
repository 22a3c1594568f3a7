"""Operators: names, faults, and every mode against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.autograd.definitions.differentiation import basis
from pipeline.autograd.operators import Operator, resolve_operators
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.routes.base import parse_mode, spell_mode
from pipeline.errors import ConfigurationError


def scalar(x):
    return torch.sin(x).prod() + (x**4).sum() / (1 + x[0] ** 2)


def vector(x):
    return torch.stack(
        [x[0] * x[1].exp(), x[2] ** 3 * x[0], x.sum() * 0 + 1, x[1], x.square().sum()]
    )


def constant(x):
    return torch.ones(2, dtype=x.dtype, device=x.device)


CASES = [
    pytest.param(scalar, (), id="scalar"),
    pytest.param(vector, (5,), id="vector"),
    pytest.param(constant, (2,), id="constant"),
]
POINTS = torch.tensor(
    [[0.3, -0.8, 1.2], [1.1, 0.4, -0.6], [0.9, 0.2, 0.5], [-1.2, 0.7, 2.0]]
).double()


def all_modes(order):
    if order == 0:
        return ["none"]
    shorter = all_modes(order - 1) if order > 1 else [""]
    return [f"{way}_over_{rest}" if rest else way for way in ("fwd", "rev") for rest in shorter]


@pytest.mark.parametrize(("f", "shape"), CASES)
@pytest.mark.parametrize("order", [0, 1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_mode_and_chunk_equals_the_reference(f, shape, order):
    request = Request(f, POINTS[0], shape, tuple(range(order + 1)))
    expected = [derivatives(f, point, order) for point in POINTS]
    for mode in all_modes(order):
        for chunk in (1, 2, request.directions):
            levels = ROUTES["vmap"].prepare(request, mode, chunk, 8)(POINTS)
            for k, level in enumerate(levels):
                truth = torch.stack([row[k] for row in expected])
                assert level.shape == truth.shape
                assert torch.allclose(level, truth, rtol=1e-12, atol=1e-12), (mode, chunk, k)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_jvp_is_linear_in_the_direction(u, v):
    x = POINTS[0]
    a, b = torch.tensor(u).double(), torch.tensor(v).double()

    def push(direction):
        return torch.func.jvp(vector, (x,), (direction,))[1]

    assert torch.allclose(push(a + 2 * b), push(a) + 2 * push(b), atol=1e-12)


def test_order_k_of_a_polynomial_of_degree_k_minus_1_is_zero():
    request = Request(lambda x: (x**2).sum() * x[0], POINTS[0], (), (4,))
    (level,) = ROUTES["vmap"].prepare(request, "fwd_over_fwd_over_fwd_over_rev", 3, 8)(POINTS)
    assert level.shape == (4, 3, 3, 3, 3)
    assert not level.any()


def test_only_the_orders_asked_for_come_back():
    request = Request(scalar, POINTS[0], (), (0, 2))
    value, hessian = ROUTES["vmap"].prepare(request, "fwd_over_rev", 3, 8)(POINTS)
    assert value.shape == (4,)
    assert hessian.shape == (4, 3, 3)


def test_a_jacobian_with_many_outputs_takes_the_columns():
    request = Request(
        lambda x: x.sum() * torch.arange(20_000, dtype=x.dtype), POINTS[0], (20_000,), (1,)
    )
    assert ROUTES["vmap"].modes(request)[0] == "fwd"
    request = Request(scalar, POINTS[0], (), (1,))
    assert ROUTES["vmap"].modes(request)[0] == "rev"


def test_the_basis_is_never_whole():
    blocks = list(basis(7, 3, POINTS))
    assert [tuple(block.shape) for block in blocks] == [(3, 7), (3, 7), (1, 7)]
    assert torch.equal(torch.cat(blocks), torch.eye(7, dtype=torch.float64))


def test_modes_are_written_outermost_first():
    assert parse_mode("fwd_over_rev", 2) == ("rev", "fwd")
    assert spell_mode(()) == "none"
    for mode, order in (("fwd", 2), ("sideways", 1), ("none", 1), ("rev", 0)):
        with pytest.raises(
            ConfigurationError, match=f"mode '{mode}' does not fit order {order}: expected"
        ):
            parse_mode(mode, order)


def test_operators_are_resolved_for_a_shape():
    assert resolve_operators(["all"], None, ()) == (
        Operator("value", 0), Operator("gradient", 1), Operator("hessian", 2),
    )  # fmt: skip
    assert [op.name for op in resolve_operators(["all"], None, (3,))] == [
        "value",
        "jacobian",
        "hessian",
    ]
    assert resolve_operators(["derivative", "derivative"], 3, ()) == (Operator("derivative_3", 3),)


@pytest.mark.parametrize(
    ("names", "order", "shape", "message"),
    [
        (["hesian"], None, (), r"operator 'hesian' is unknown. Did you mean 'hessian'\?"),
        (
            ["gradient"],
            None,
            (4,),
            r"gradient needs a scalar function.*\(4,\); ask for the jacobian",
        ),
        (["derivative"], None, (), "derivative needs an order from 1 to 8, got None"),
        (
            ["gradient", "value"],
            2,
            (),
            "order=2 is the order of derivative, and gradient, value is asked for",
        ),
        (["derivative"], 9, (), "got 9"),
        ([], None, (), "no operator was asked for"),
    ],
)
def test_operators_that_cannot_be_asked(names, order, shape, message):
    with pytest.raises(ConfigurationError, match=message):
        resolve_operators(names, order, shape)


def test_all_faults_at_once():
    with pytest.raises(ConfigurationError) as caught:
        resolve_operators(["hesian", "gradient"], None, (4,))
    assert len(caught.value.faults) == 2
