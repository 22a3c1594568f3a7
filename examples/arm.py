"""A UR5 robot arm by pytorch-kinematics: where its hand is and how it is turned, by six joint angles.

python -m pipeline job=jacobian function=ur5 'plugins=[examples/arm.py]' grid=random grid.count=1000
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytorch_kinematics
import torch
from torch import Tensor

from pipeline import Function, hookimpl

JOINTS = (  # name, place (m) and pitch (rad) in the frame before, axis
    ("shoulder_pan", (0, 0, 0.089159), 0, "0 0 1"),
    ("shoulder_lift", (0, 0.13585, 0), math.pi / 2, "0 1 0"),
    ("elbow", (0, -0.1197, 0.425), 0, "0 1 0"),
    ("wrist_1", (0, 0, 0.39225), math.pi / 2, "0 1 0"),
    ("wrist_2", (0, 0.093, 0), 0, "0 0 1"),
    ("wrist_3", (0, 0, 0.09465), 0, "0 1 0"),
)


def urdf() -> str:
    """Describe the arm in the robot description format."""
    links = ["base", *(name for name, *_ in JOINTS)]
    joints = (
        f'<joint name="{name}_joint" type="revolute"><parent link="{before}"/><child link="{name}"/>'
        f'<origin xyz="{x} {y} {z}" rpy="0 {pitch} 0"/><axis xyz="{axis}"/>'
        '<limit lower="-6.3" upper="6.3" effort="1" velocity="1"/></joint>'
        for before, (name, (x, y, z), pitch, axis) in zip(links, JOINTS, strict=False)
    )
    bodies = (f'<link name="{name}"/>' for name in links)
    return f'<robot name="ur5">{"".join([*bodies, *joints])}</robot>'


@cache
def chain(dtype: torch.dtype, device: torch.device) -> pytorch_kinematics.SerialChain:
    """Build the arm in some precision."""
    arm = pytorch_kinematics.build_serial_chain_from_urdf(urdf(), JOINTS[-1][0])
    return arm.to(dtype=dtype, device=device)


def build() -> Callable[[Tensor], dict[str, Tensor]]:
    """Build the forward kinematics.

    Returns:
        Maps angles (6,) to the position (3,) and the rotation (3, 3) of the last link.
    """

    def hand(q: Tensor) -> dict[str, Tensor]:
        arm = chain(q.dtype, q.device)
        # its own gradient by hand has no derivative: with it, second derivatives would be wrong
        poses = arm.forward_kinematics_tensor(q[None], analytical_grad=False)
        pose = poses[arm.get_frame_indices(JOINTS[-1][0])].reshape(4, 4)
        return {"position": pose[:3, 3], "rotation": pose[:3, :3]}

    return hand


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the arm."""
    return [
        Function(
            "ur5",
            build,
            n=6,
            output_shape=lambda n: {"position": (3,), "rotation": (3, 3)},
            domain=(-math.pi, math.pi),
            input_names=[name for name, *_ in JOINTS],
            input_units="rad",
            summary="Forward kinematics of a UR5 robot arm, by pytorch-kinematics",
            source="Universal Robots, UR5 kinematic parameters",
        )
    ]
