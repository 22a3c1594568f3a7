"""The laws that every function has to keep, and a run through the command's own door."""

import torch

import pipeline
from pipeline.testing import FunctionTests


class TestSprings(FunctionTests):
    """The defaults: a quadratic energy."""

    function = "springs"


class TestHardeningSprings(FunctionTests):
    """With the quartic term."""

    function = "springs"
    parameters = {"hardening": 3.0}
    n = 5


def test_the_hessian_at_rest_is_that_of_the_linear_chain() -> None:
    """Without elongation the quartic term does not count."""
    found = pipeline.evaluate("springs", torch.zeros(1, 2), parameters={"hardening": 3.0})
    assert found.hessian[0].tolist() == [[2.0, -1.0], [-1.0, 1.0]]
