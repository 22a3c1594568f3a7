"""Double pendulum and robot arm against independent mechanics."""

import math
from typing import ClassVar

import pytest
import torch

from pipeline.testing import FunctionTests
from plugins import mechanics

BODY = {"m1": 1.3, "m2": 0.7, "l1": 0.9, "l2": 1.2, "g": 9.81}


class TestHeavyDoublePendulum(FunctionTests):
    function = "double_pendulum"
    parameters = BODY
    order = 1


class TestRobotArmWithTool(FunctionTests):
    function = "robot_arm"
    parameters: ClassVar = {"tool": (0.05, -0.02, 0.1034)}


def random_points(record, count=20):
    lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in record.domain)
    generator = torch.Generator().manual_seed(3)
    uniform = torch.rand(count, record.n, generator=generator, dtype=torch.float64)
    return lower + (upper - lower) * uniform


PENDULUM, ARM = mechanics.pipeline_functions()


def energy(x):
    m1, m2, l1, l2, g = BODY.values()
    theta1, theta2, omega1, omega2 = x.unbind()
    along = 2 * l1 * l2 * omega1 * omega2 * torch.cos(theta1 - theta2)
    upper, lower = l1**2 * omega1**2, l2**2 * omega2**2
    kinetic = m1 * upper / 2 + m2 * (upper + lower + along) / 2
    return kinetic - (m1 + m2) * g * l1 * theta1.cos() - m2 * g * l2 * theta2.cos()


def lagrangian_accelerations(x):
    """Solve d/dt dL/dω = dL/dθ for the accelerations, L = 2 T - E with T quadratic in ω."""

    def lagrangian(x):
        at_rest = x * x.new_tensor((1, 1, 0, 0))
        return energy(x) - 2 * energy(at_rest)

    slope, bend = torch.func.grad(lagrangian)(x), torch.func.hessian(lagrangian)(x)
    return torch.linalg.solve(bend[2:, 2:], slope[:2] - bend[2:, :2] @ x[2:])


def test_pendulum_keeps_its_energy():
    f = PENDULUM.build(**BODY)
    points = random_points(PENDULUM)
    change = torch.func.vmap(lambda x: torch.func.jvp(energy, (x,), (f(x),))[1])(points)
    assert change.abs().max() < 1e-11


def test_pendulum_solves_the_equations_of_lagrange():
    f = PENDULUM.build(**BODY)
    for x in random_points(PENDULUM):
        torch.testing.assert_close(f(x)[2:], lagrangian_accelerations(x), rtol=1e-11, atol=1e-11)


def test_arm_agrees_with_a_chain_of_transformations():
    tool = (0.05, -0.02, 0.1034)
    f = ARM.build(tool=tool)
    for q in random_points(ARM):
        pose = torch.eye(4, dtype=torch.float64)
        for angle, (a, quarter, d) in zip(q, mechanics.LINKS, strict=True):
            pose = pose @ craig(a, quarter * math.pi / 2, d, angle.item())
        pose = pose @ craig(0.0, 0.0, mechanics.FLANGE, 0.0)
        tip = pose @ torch.tensor((*tool, 1.0), dtype=torch.float64)
        torch.testing.assert_close(f(q), tip[:3], rtol=0, atol=1e-14)


def craig(a, alpha, d, theta):
    """Transformation of a link in Craig's convention (Introduction to Robotics, chapter 3)."""
    ca, sa, ct, st = math.cos(alpha), math.sin(alpha), math.cos(theta), math.sin(theta)
    rows = ((ct, -st, 0, a), (st * ca, ct * ca, -sa, -sa * d), (st * sa, ct * sa, ca, ca * d))
    return torch.tensor((*rows, (0, 0, 0, 1)), dtype=torch.float64)


@pytest.mark.parametrize("record", [PENDULUM, ARM], ids=lambda record: record.name)
def test_third_derivative_is_the_slope_of_the_second(record):
    second, step = torch.func.hessian(record.build()), 1e-4
    x = random_points(record)[0]
    for axis, unit in enumerate(torch.eye(record.n, dtype=torch.float64)):
        seen = torch.func.jacfwd(second)(x)[..., axis]
        expected = (second(x + step * unit) - second(x - step * unit)) / (2 * step)
        torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)


def test_last_joint_does_not_move_the_flange():
    q = random_points(ARM)[0]
    assert torch.equal(torch.func.jacrev(ARM.build())(q)[:, 6], torch.zeros(3, dtype=torch.float64))


def test_arm_reaches_no_further_than_its_links():
    reach = torch.func.vmap(ARM.build())(random_points(ARM, 1000)).norm(dim=1)
    assert reach.max() < 0.333 + 0.855 + 0.107
