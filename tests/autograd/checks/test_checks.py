"""The oracles of the reference: forward mode, symmetry, and who is believed when they differ."""

import subprocess
import sys

import pytest
import torch

import pipeline
from pipeline.autograd.checks.forward_mode import compare_forward_with_reverse
from pipeline.autograd.request import Request
from pipeline.errors import DisagreementError, FunctionError

POINTS = torch.linspace(0.3, 1.7, 18, dtype=torch.float64).reshape(6, 3)


def request(f, order):
    return Request(f, POINTS[0], tuple(f(POINTS[0]).shape), tuple(range(order + 1)))


class Wrong(torch.autograd.Function):
    """x³ whose forward-mode derivative is wrong."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g

    @staticmethod
    def jvp(ctx, t):
        (x,) = ctx.saved_tensors
        return 2 * x**2 * t


class Lopsided(torch.autograd.Function):
    """The identity, with a second derivative that is not symmetric."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return Tilt.apply(g)


class Tilt(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g):
        return g.clone()

    @staticmethod
    def backward(ctx, g):
        return g + torch.tensor([0.0, 1.0, 0.0], dtype=g.dtype) * g.sum()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_forward_and_reverse_mode_agree(order):
    outcome = compare_forward_with_reverse(
        request(lambda x: torch.sin(x).prod() + x[:2].exp(), order), POINTS
    )
    assert outcome.residual < 1e-13
    assert outcome.disagreements == ()


def test_a_wrong_forward_mode_is_told_from_a_wrong_reverse_mode():
    outcome = compare_forward_with_reverse(request(lambda x: Wrong.apply(x).sum(), 1), POINTS)
    assert outcome.residual > 0.1
    assert len(outcome.disagreements) == len(POINTS)
    last = len(POINTS) - 1
    confirmed = compare_forward_with_reverse(
        request(lambda x: Wrong.apply(x).sum(), 1), POINTS, frozenset(range(last))
    )
    assert confirmed.places == (0, last)  # what differences confirm needs no other witness
    result = pipeline.evaluate(lambda x: Wrong.apply(x).sum(), POINTS, "gradient")
    torch.testing.assert_close(result.gradient, 3 * POINTS**2)
    (remark,) = result.certificate.unchecked
    assert "forward mode is wrong" in remark
    assert result.certificate.forward_reverse_residual > 0.1
    assert result.certificate.mode == "rev"


def test_without_forward_mode_it_is_said():
    outcome = compare_forward_with_reverse(request(lambda x: Lopsided.apply(x**2).sum(), 1), POINTS)
    assert outcome.residual is None
    assert outcome.unchecked[0].startswith("no forward mode: ")


def test_an_asymmetric_reference_is_a_disagreement():
    def f(x):
        return (Lopsided.apply(x**2) * x.flip(0)).sum()

    with pytest.raises(DisagreementError, match="the reference of order 2 is not symmetric"):
        pipeline.evaluate(f, POINTS, "hessian")


def test_what_reverse_mode_cannot_differentiate_is_refused():
    def f(x):
        return torch.cdist(x[:, None], x[:, None] ** 2).sum()

    with pytest.raises(FunctionError, match="cannot be differentiated 2 times in reverse mode"):
        pipeline.evaluate(f, POINTS, "hessian")


def test_short_jobs_load_neither_forward_mode_nor_a_compiler():
    code = """
import sys, torch, pipeline
x = torch.rand(50, 2, dtype=torch.float64)
result = pipeline.evaluate(lambda x: (x**3).sum() * x[0], x, "hessian")
print(result.certificate.unchecked, "torch._dynamo" in sys.modules, "torch.fx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "forward mode: loading it takes 1.5 s, longer than the job" in done.stdout
    assert done.stdout.split()[-2] == "False"
