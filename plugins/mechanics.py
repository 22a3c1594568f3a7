"""Rigid bodies: a chaotic pendulum and a robot arm; Jacobians along trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline import Function, Scenario, hookimpl

FRANKA = "Franka Emika, Franka Control Interface documentation, robot and interface specifications"

# Denavit-Hartenberg parameters of the Panda in Craig's convention, one joint a row:
# a in m, alpha in quarter turns, d in m
LINKS = (
    (0.0, 0, 0.333),
    (0.0, -1, 0.0),
    (0.0, 1, 0.316),
    (0.0825, 1, 0.0),
    (-0.0825, -1, 0.384),
    (0.0, 1, 0.0),
    (0.088, 1, 0.0),
)
FLANGE = 0.107


def build_double_pendulum(
    m1: float = 1.0, m2: float = 1.0, l1: float = 1.0, l2: float = 1.0, g: float = 9.81
) -> Callable[[Tensor], Tensor]:
    """Build the equations of motion of a plane double pendulum with massless rods.

    Args:
        m1: Upper mass, kg.
        m2: Lower mass, kg.
        l1: Length of the upper rod, m.
        l2: Length of the lower rod, m.
        g: Acceleration of gravity, m/s².

    Returns:
        Maps the angles from the downward vertical and their velocities, (4,), to the time
        derivative of these, (4,).
    """

    def motion(x: Tensor) -> Tensor:
        # vectors of one element: forward mode turns the tangent of number * scalar into float64
        theta1, theta2, omega1, omega2 = x.chunk(4)
        s, c = torch.sin(theta1 - theta2), torch.cos(theta1 - theta2)
        upper = -m2 * l2 * omega2**2 * s - (m1 + m2) * g * theta1.sin()
        lower = l1 * omega1**2 * s - g * theta2.sin()
        inertia = m1 + m2 * s**2
        alpha1 = (upper - m2 * c * lower) / (l1 * inertia)
        alpha2 = ((m1 + m2) * lower - c * upper) / (l2 * inertia)
        return torch.cat((omega1, omega2, alpha1, alpha2))

    return motion


def double_pendulum_jacobian(
    x: Tensor, m1: float = 1.0, m2: float = 1.0, l1: float = 1.0, l2: float = 1.0, g: float = 9.81
) -> Tensor:
    """Jacobian of the equations of motion by hand, (4, 4).

    The accelerations α solve M α = F, hence M ∂α = ∂F - (∂M) α.

    Args:
        x: Angles and velocities, (4,).
        m1: Upper mass, kg.
        m2: Lower mass, kg.
        l1: Length of the upper rod, m.
        l2: Length of the lower rod, m.
        g: Acceleration of gravity, m/s².

    Returns:
        (4, 4).
    """
    theta1, theta2, omega1, omega2 = x.unbind()
    s, c, zero = torch.sin(theta1 - theta2), torch.cos(theta1 - theta2), torch.zeros_like(theta1)
    mass = torch.stack((zero + (m1 + m2) * l1, m2 * l2 * c, l1 * c, zero + l2)).reshape(2, 2)
    pull1, pull2 = l1 * omega1**2, m2 * l2 * omega2**2
    weight1, weight2 = (m1 + m2) * g, g
    force = torch.stack((-pull2 * s - weight1 * theta1.sin(), pull1 * s - weight2 * theta2.sin()))
    force_jacobian = torch.stack(
        (
            torch.stack(
                (-pull2 * c - weight1 * theta1.cos(), pull2 * c, zero, -2 * m2 * l2 * omega2 * s)
            ),
            torch.stack(
                (pull1 * c, -pull1 * c - weight2 * theta2.cos(), 2 * l1 * omega1 * s, zero)
            ),
        )
    )
    alpha1, alpha2 = torch.linalg.solve(mass, force)
    bend = torch.stack((m2 * l2 * s * alpha2, l1 * s * alpha1))
    swing = torch.stack((zero + 1, zero - 1, zero, zero))
    accelerations = torch.linalg.solve(mass, force_jacobian + bend[:, None] * swing)
    velocities = torch.eye(4, dtype=x.dtype, device=x.device)[2:]
    return torch.cat((velocities, accelerations))


def build_robot_arm(
    tool: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Callable[[Tensor], Tensor]:
    """Build the forward kinematics of the seven-joint Franka Emika Panda arm.

    Args:
        tool: Tool centre point in the frame of the flange, m; the flange itself lies on the
            axis of joint 7 and is not moved by it.

    Returns:
        Maps the joint angles in rad, (7,), to the position of the tool in the frame of the base
        in m, (3,).
    """

    def position(q: Tensor) -> Tensor:
        x: Any  # numbers as long as no joint has moved them, then tensors
        y: Any
        z: Any
        x, y, z = tool[0], tool[1], tool[2] + FLANGE
        joints = zip(q.cos().chunk(7), q.sin().chunk(7), LINKS, strict=True)
        for c, s, (a, quarter, d) in reversed(list(joints)):
            x, y, z = c * x - s * y + a, s * x + c * y, z + d
            y, z = ((y, z), (-z, y), (z, -y))[quarter]
        return torch.cat((x, y, z))

    return position


def robot_arm_jacobian(q: Tensor, tool: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """Geometric Jacobian: joint i moves the tool by z_i x (p - p_i).

    Source: B. Siciliano, L. Sciavicco, L. Villani & G. Oriolo, Robotics: Modelling, Planning and
    Control, 2009, section 3.1.

    Args:
        q: Joint angles, (7,).
        tool: Tool centre point in the frame of the flange, m.

    Returns:
        (3, 7).
    """
    axes, arms = _axes_and_arms(q, tool)
    velocities: Tensor = torch.linalg.cross(axes, arms)
    return velocities.T


def robot_arm_hessian(q: Tensor, tool: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """Second derivatives: z_i x (z_j x (p - p_j)) for a joint i not after joint j.

    Joint i turns all that comes after it, so it turns the velocity that joint j gives the tool.

    Args:
        q: Joint angles, (7,).
        tool: Tool centre point in the frame of the flange, m.

    Returns:
        (3, 7, 7).
    """
    axes, arms = _axes_and_arms(q, tool)
    velocities = torch.linalg.cross(axes, arms)
    turned: Tensor = torch.linalg.cross(axes[:, None].expand(7, 7, 3), velocities.expand(7, 7, 3))
    upper = turned.permute(2, 0, 1).triu()
    return upper + upper.triu(1).mT


def _axes_and_arms(q: Tensor, tool: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Axes z_i and arms p - p_i of the joints in the frame of the base, (7, 3) each."""
    turn, origin = torch.eye(3, dtype=q.dtype, device=q.device), torch.zeros_like(q[:3])
    axes, origins = [], []
    for angle, (a, quarter, d) in zip(q, LINKS, strict=True):
        origin = origin + turn @ q.new_tensor((a, -quarter * d, (1 - abs(quarter)) * d))
        turn = turn @ _link_rotation(angle, quarter)
        axes.append(turn[:, 2])
        origins.append(origin)
    tip = origin + turn @ q.new_tensor((tool[0], tool[1], tool[2] + FLANGE))
    return torch.stack(axes), tip - torch.stack(origins)


def _link_rotation(angle: Tensor, quarter: int) -> Tensor:
    """Rotation by quarter turns about x, then by the joint angle about z, (3, 3)."""
    sa, ca = quarter, 1 - abs(quarter)
    s, c, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    tilt = angle.new_tensor(((1, 0, 0), (0, ca, -sa), (0, sa, ca)))
    return tilt @ torch.stack((c, -s, zero, s, c, zero, zero, zero, zero + 1)).reshape(3, 3)


def _pendulum_scenarios() -> list[Scenario]:
    g = 9.81
    linear = [
        [0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
        [-2 * g, g, 0.0, 0.0],
        [2 * g, -2 * g, 0.0, 0.0],
    ]
    masses = {"m1": 1.0, "m2": 1.0, "l1": 1.0, "l2": 1.0, "g": g}
    return [Scenario((0.0,) * 4, {"value": [0.0] * 4, "jacobian": linear}, masses)]


def _arm_scenarios() -> list[Scenario]:
    bare = {"tool": (0.0, 0.0, 0.0)}
    quarter, slant = math.pi / 2, math.sqrt(0.5)
    ready = (0.0, -quarter / 2, 0.0, -1.5 * quarter, 0.0, quarter, quarter / 2)
    reach = 0.384 + 0.088 - (0.316 - 0.0825) * slant
    height = 0.333 + (0.316 + 0.0825) * slant + 0.0825 - FLANGE
    return [
        Scenario((0.0,) * 7, {"value": [0.088, 0.0, 0.333 + 0.316 + 0.384 - FLANGE]}, bare),
        Scenario(ready, {"value": [reach, 0.0, height]}, bare, "plane trigonometry"),
    ]


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the pendulum and the robot arm."""
    return [
        Function(
            "double_pendulum",
            build_double_pendulum,
            n=4,
            output_shape=(4,),
            domain=((-math.pi, -math.pi, -5.0, -5.0), (math.pi, math.pi, 5.0, 5.0)),
            source="L. D. Landau & E. M. Lifshitz, Mechanics, 3rd ed., 1976, section 5, problem 1",
            summary="Time derivative of the state of a plane double pendulum",
            input_names=("theta1", "theta2", "omega1", "omega2"),
            output_names=("dtheta1_dt", "dtheta2_dt", "domega1_dt", "domega2_dt"),
            input_units="rad, rad, rad/s, rad/s",
            output_units="rad/s, rad/s, rad/s^2, rad/s^2",
            closed_form={"jacobian": double_pendulum_jacobian},
            scenarios=_pendulum_scenarios(),
        ),
        Function(
            "robot_arm",
            build_robot_arm,
            n=7,
            output_shape=(3,),
            domain=(
                (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
                (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
            ),
            source=f"{FRANKA}; J. J. Craig, Introduction to Robotics, 3rd ed., 2005, chapter 3",
            summary="Position of the tool of a seven-joint robot arm, within its joint limits",
            input_names=tuple(f"q{joint}" for joint in range(1, 8)),
            output_names=("x", "y", "z"),
            input_units="rad",
            output_units="m",
            closed_form={"jacobian": robot_arm_jacobian, "hessian": robot_arm_hessian},
            scenarios=_arm_scenarios(),
        ),
    ]
