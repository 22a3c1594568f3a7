"""The notebook's three functions keep their meanings."""

import math

import pytest
import torch

from pipeline.autograd.reference import (
    derivatives,
    directional,
    directional_value,
    flat_grad,
    hessian,
    jacobian,
)


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def weighted_squares(x):
    return x * x * torch.arange(4, dtype=x.dtype)


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_flat_grad_of_the_notebook():
    x = leaf([0.0, 1.0, 2.0, 3.0])
    assert flat_grad((x**2).sum(), x).tolist() == [0, 2, 4, 6]


def test_flat_grad_concatenates_a_sequence():
    a, b = leaf([1.0, 2.0]), leaf([[3.0], [4.0]])
    assert flat_grad((a**2).sum() + (b**3).sum(), (a, b)).tolist() == [2, 4, 27, 48]


def test_flat_grad_create_graph_implies_retain_graph():
    x = leaf([2.0])
    y = (x**3).sum()
    first = flat_grad(y, x, create_graph=True)
    assert flat_grad(first.sum(), x).item() == 12
    assert flat_grad(y, x).item() == 12


def test_flat_grad_frees_the_graph_unless_told_otherwise():
    x = leaf([2.0])
    y = (x.exp() * x).sum()
    flat_grad(y, x)
    with pytest.raises(RuntimeError, match="second time"):
        flat_grad(y, x)


def test_jacobian_of_the_notebook():
    x = leaf([1.0, 1.0, 1.0, 1.0])
    assert torch.equal(jacobian(weighted_squares(x), x), torch.diag(leaf([0, 2, 4, 6.0])))


def test_jacobian_has_the_shape_of_y_and_x():
    x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    y = torch.stack([x.sum(), x.prod(), x[0].sum(), x[1, 2] ** 2]).reshape(4, 1)
    assert jacobian(y, x).shape == (4, 1, 2, 3)
    assert jacobian(y, x)[3, 0, 1, 2] == 12


def test_hessian_of_the_notebook_and_a_component_of_it():
    x = leaf([1.0, 1.0, 1.0, 1.0])
    full = hessian(weighted_squares(x), x)
    assert full.shape == (4, 4, 4)
    for i in range(4):
        expected = torch.zeros(4, 4, dtype=torch.float64)
        expected[i, i] = 2 * i
        assert torch.equal(full[i], expected)
    last = hessian(weighted_squares(x)[3], x)
    assert torch.equal(last, full[3])


def test_hessian_of_rosenbrock():
    x = leaf([1.0, 1.0])
    assert hessian(rosenbrock(x), x).tolist() == [[802, -400], [-400, 200]]


def test_what_does_not_depend_on_x_gives_zeros():
    x = leaf([1.0, 2.0, 3.0])
    constant = torch.ones(2, dtype=torch.float64)
    assert torch.equal(jacobian(constant, x), torch.zeros(2, 3))
    assert torch.equal(hessian(constant, x), torch.zeros(2, 3, 3))
    mixed = torch.stack([x.sum(), constant[0]])
    assert jacobian(mixed, x).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert torch.equal(hessian(mixed, x), torch.zeros(2, 3, 3))


def test_derivatives_of_a_polynomial_end():
    levels = derivatives(lambda x: (x**3).sum(), torch.tensor([2.0, 5.0]).double(), 4)
    assert [tuple(level.shape) for level in levels] == [(), (2,), (2, 2), (2, 2, 2), (2, 2, 2, 2)]
    assert levels[3][0, 0, 0] == 6
    assert not levels[4].any()
    assert not any(level.requires_grad for level in levels)


def test_derivatives_are_evaluated_under_no_grad_too():
    with torch.no_grad():
        assert derivatives(torch.sin, torch.tensor([0.3], dtype=torch.float64), 1)[
            1
        ].item() == math.cos(0.3)


def test_directional_contracts_the_full_tensor():
    def f(x):
        return torch.stack([x[0] ** 2 * x[1], torch.sin(x[0] * x[1]) * x[2]])

    x = torch.tensor([0.4, -1.1, 2.0]).double()
    w = torch.tensor([0.7, -1.3]).double()
    u, v = torch.tensor([1.0, 2.0, -0.5]).double(), torch.tensor([0.2, -0.4, 3.0]).double()
    value, gradient = directional(f, x, w, (u, v))
    full = derivatives(f, x, 3)
    assert torch.equal(directional_value(f, x, w, (u, v)), value)
    assert torch.allclose(value, torch.einsum("mij,m,i,j", full[2], w, u, v), rtol=1e-13)
    assert torch.allclose(gradient, torch.einsum("mijk,m,i,j->k", full[3], w, u, v), rtol=1e-13)


class Counted(torch.autograd.Function):
    """The identity, which counts how often a backward pass comes through."""

    passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Counted.passes += 1
        return Counted.apply(gradient)


@pytest.mark.parametrize("order", [2, 3])
def test_a_backward_pass_meets_nothing_of_other_rows(order):
    """A pass costs the same however many others there are."""

    def cost_of_a_pass(n):
        def passes_below(order):
            Counted.passes = 0
            derivatives(lambda x: Counted.apply(x).pow(5) * torch.arange(n), torch.ones(n), order)
            return Counted.passes

        return (passes_below(order) - passes_below(order - 1)) / n**order

    assert cost_of_a_pass(3) == cost_of_a_pass(5)
