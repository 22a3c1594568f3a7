"""What is wrong in a small part of a function, at one point, or out of sight, does not hide."""

import logging

import pytest
import torch
from torch.nn import functional

import pipeline
from pipeline.autograd.checks.oracle import build_oracle
from pipeline.autograd.evaluator import FAILED, NONSMOOTH, OK
from pipeline.autograd.functions.following import unseen
from pipeline.autograd.request import Request
from pipeline.errors import DisagreementError, FunctionError

DOUBLE = torch.float64
POINTS = torch.rand(9, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
AT_ZERO = torch.tensor([[0.0, 1.0], [1.0, 2.0], [-1.0, 0.5]], dtype=DOUBLE)


# ---- beside what is large ---------------------------------------------------------------------


def small_output(x):
    return torch.stack([1e8 * x[0] ** 2, torch.sin(x[1].detach()) + x[2]])


def small_input(x):
    return 1e8 * x[0] ** 2 + torch.sin(x[1].detach()) + x[2]


def small_curvature(x):
    return 1e6 * x[0] ** 4 + torch.sin(x[1]) * x[1].detach() + x[2]


@pytest.mark.parametrize(
    ("f", "operator"),
    [(small_output, "jacobian"), (small_input, "gradient"), (small_curvature, "hessian")],
)
def test_a_small_part_that_is_wrong_does_not_hide_behind_a_large_one(f, operator):
    with pytest.raises(DisagreementError, match=r"torch\.Tensor\.detach"):
        pipeline.evaluate(f, POINTS, operator)


def test_a_small_part_that_is_right_is_accepted():
    found = pipeline.evaluate(
        lambda x: 1e8 * x[0] ** 2 + torch.sin(x[1]) + x[2], POINTS, "gradient"
    )
    x = POINTS
    exact = torch.stack([2e8 * x[:, 0], x[:, 1].cos(), torch.ones(9, dtype=DOUBLE)], 1)
    torch.testing.assert_close(found.gradient, exact, rtol=1e-14, atol=0)
    assert (found.status == OK).all()


# ---- noise is that of one point ----------------------------------------------------------------


def partly_in_float32(x):
    return torch.where(x > 0.5, (x.float() ** 3).double(), x**3).sum()


def test_the_noise_of_one_point_excuses_nothing_at_another():
    points = torch.tensor([[0.3], [0.9]], dtype=DOUBLE)
    request = Request(partly_in_float32, points[0], (), (0, 1))
    oracle = build_oracle(request, points)
    clean, noisy = oracle.noises
    assert clean == 0 < noisy < 1e-6
    values, exact = points[:, 0] ** 3, 3 * points**2
    assert all(each.excess <= 1 for each in oracle.compare([values, exact]).values())
    for point, seen in ((0, True), (1, False)):
        wrong = exact.clone()
        wrong[point] *= 1 + 1e-7
        assert (oracle.compare([values, wrong])[1].excess > 1) is seen


def jumps_at_zero(x):
    return torch.where(x > 0, x.log(), x - 1).sum()


@pytest.mark.parametrize(
    "f", [jumps_at_zero, lambda x: torch.atan2(x[0], x[1]), lambda x: x.abs().sum()]
)
def test_a_jump_at_a_point_is_no_noise(f, caplog):
    points = torch.tensor([[0.0, -1.0], [1.0, 2.0], [0.5, -2.0]], dtype=DOUBLE)
    request = Request(f, points[0], (), (0, 1))
    assert build_oracle(request, points).noises == [0.0] * 3
    pipeline.evaluate(f, points, "gradient")
    assert "noise" not in caplog.text


# ---- a point at which only the derivatives raise -------------------------------------------------


def singular_at_the_first(x):
    return 1e-3 * torch.linalg.slogdet(torch.diag(x - POINTS[0]))[1] + (x**3).sum()


def test_a_point_at_which_only_the_second_derivative_raises_fails_alone():
    found = pipeline.evaluate(singular_at_the_first, POINTS, "hessian")
    assert found.status.tolist() == [FAILED] + [OK] * 8
    assert "singular" in found.failures[0]
    exact = torch.diag_embed(6 * POINTS[1:] - 1e-3 / (POINTS[1:] - POINTS[0]) ** 2)
    torch.testing.assert_close(found.hessian[1:], exact, rtol=1e-10, atol=1e-10)


def test_where_the_derivative_raises_everywhere_it_is_said():
    with pytest.raises(FunctionError, match="cannot be differentiated 1 times"):
        pipeline.evaluate(lambda x: torch.special.gammainc(x, x).sum(), POINTS, "gradient")


# ---- what cannot be followed --------------------------------------------------------------------


class InTorch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


class InNumpy(InTorch):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy().clip(0))


@torch.library.custom_op("hidden::clip", mutates_args=())
def clip(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(x.detach().numpy().clip(0))


clip.register_autograd(
    lambda ctx, g: g * (ctx.saved_tensors[0] > 0),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


@torch.jit.script
def scripted(x):
    return torch.relu(x).sum()


UNSEEN = {
    "custom": lambda x: InTorch.apply(x).sum(),
    "custom_in_numpy": lambda x: InNumpy.apply(x).sum(),
    "of_a_library": lambda x: clip(x).sum(),
    "scripted": scripted,
    "scripted_in_part": lambda x: x.square().sum() + scripted(x),
    "derivative_inside": lambda x: torch.func.grad(lambda y: (y * y.relu()).sum())(x).sum(),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", UNSEEN)
def test_kinks_in_what_cannot_be_followed_are_flagged(name):
    found = pipeline.evaluate(UNSEEN[name], AT_ZERO, "gradient")
    assert found.status.tolist() == [NONSMOOTH, OK, OK]


@torch.jit.script
def scripted_and_smooth(x):
    return (torch.sin(x) * x.flip(0) ** 3).sum()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_what_cannot_be_followed_and_is_smooth_is_not_flagged(order):
    found = pipeline.evaluate(scripted_and_smooth, AT_ZERO, "derivative", order=order)
    assert found.status.tolist() == [OK] * 3


def test_what_can_be_followed_is_not_called_unseen():
    weight = torch.ones(3, requires_grad=True, dtype=DOUBLE) * 2  # depends on another tensor

    def f(x):
        y = functional.softplus(x * weight)
        y[1:] += x[:-1].sin()
        return torch.stack([y.sum(), (x @ x).sqrt()])

    assert unseen(f, POINTS[0]) == ()
    assert unseen(scripted, POINTS[0]) == ("SumBackward0",)


def test_interrupts_come_through(caplog):
    caplog.set_level(logging.ERROR)

    def f(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.evaluate(f, POINTS, "gradient")
