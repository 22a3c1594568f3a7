"""Multilayer perceptron."""

from typing import ClassVar

import torch

from pipeline.testing import FunctionTests
from plugins.networks import build_mlp


class TestScalarNetwork(FunctionTests):
    function = "mlp"
    parameters: ClassVar = {"inputs": 5, "hidden": 7}


class TestVectorNetwork(FunctionTests):
    function = "mlp"
    parameters: ClassVar = {"inputs": 3, "hidden": 6, "layers": 3, "outputs": 4, "seed": 5}


class TestLinearNetwork(FunctionTests):
    function = "mlp"
    parameters: ClassVar = {"inputs": 3, "layers": 0, "outputs": 2}
    order = 1


def test_default_size_works_under_vmap():
    points = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(3, 8)
    hessians = torch.func.vmap(torch.func.hessian(build_mlp()))(points)
    assert hessians.shape == (3, 8, 8)
    torch.testing.assert_close(hessians, hessians.mT)


def test_weights_follow_from_the_seed():
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)
    assert torch.equal(build_mlp(seed=3)(x), build_mlp(seed=3)(x))
    assert not torch.equal(build_mlp(seed=3)(x), build_mlp(seed=4)(x))


def test_third_derivative_is_finite_and_symmetric():
    x = torch.linspace(-1, 1, 4, dtype=torch.float64)
    f = build_mlp(inputs=4, hidden=5)
    third = torch.func.jacfwd(torch.func.hessian(f))(x)
    assert third.isfinite().all()
    torch.testing.assert_close(third, third.permute(2, 1, 0))
