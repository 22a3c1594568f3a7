"""Robertson's problem."""

from typing import ClassVar

import torch

from pipeline.testing import FunctionTests
from plugins.kinetics import build_robertson


class TestMildRobertson(FunctionTests):
    function = "robertson"
    parameters: ClassVar = {"k1": 0.5, "k2": 2.0, "k3": 3.0}


def test_nothing_is_lost():
    x = torch.tensor((0.7, 3e-5, 0.2), dtype=torch.float64)
    f = build_robertson()
    assert abs(f(x).sum()) <= 1e-16
    assert torch.func.jacrev(f)(x).sum(0).abs().max() < 1e-9


def test_third_derivative_is_zero():
    x = torch.tensor((0.7, 3e-5, 0.2), dtype=torch.float64)
    third = torch.func.jacfwd(torch.func.hessian(build_robertson()))(x)
    assert torch.equal(third, torch.zeros(3, 3, 3, 3, dtype=torch.float64))
