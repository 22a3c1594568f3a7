"""Chemical kinetics: right-hand sides of stiff rate equations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline import Function, Scenario, hookimpl


def build_robertson(
    k1: float = 0.04, k2: float = 3e7, k3: float = 1e4
) -> Callable[[Tensor], Tensor]:
    """Build the rate equations of A -> B, 2 B -> B + C, B + C -> A + C.

    Args:
        k1: Rate constant of the slow reaction, 1/s.
        k2: Rate constant of the very fast reaction, 1/s.
        k3: Rate constant of the fast reaction, 1/s.

    Returns:
        Maps the concentrations of A, B and C, (3,), to their time derivatives, (3,).
    """

    def rates(x: Tensor) -> Tensor:
        # vectors of one element: forward mode turns the tangent of number * scalar into float64
        a, b, c = x.chunk(3)
        slow, very_fast, fast = k1 * a, k2 * b * b, k3 * b * c
        return torch.cat((fast - slow, slow - fast - very_fast, very_fast))

    return rates


def robertson_jacobian(x: Tensor, k1: float = 0.04, k2: float = 3e7, k3: float = 1e4) -> Tensor:
    """Jacobian of the rate equations by hand, (3, 3)."""
    _, b, c = x.tolist()
    return x.new_tensor(
        (
            (-k1, k3 * c, k3 * b),
            (k1, -k3 * c - 2 * k2 * b, -k3 * b),
            (0.0, 2 * k2 * b, 0.0),
        )
    )


def robertson_hessian(x: Tensor, k1: float = 0.04, k2: float = 3e7, k3: float = 1e4) -> Tensor:
    """Hessian of the rate equations by hand, (3, 3, 3): the same at every point."""
    return x.new_tensor(
        (
            ((0, 0, 0), (0, 0, k3), (0, k3, 0)),
            ((0, 0, 0), (0, -2 * k2, -k3), (0, -k3, 0)),
            ((0, 0, 0), (0, 2 * k2, 0), (0, 0, 0)),
        )
    )


def _start() -> Scenario:
    zero = [0.0] * 3
    return Scenario(
        (1.0, 0.0, 0.0),
        {
            "value": [-0.04, 0.04, 0.0],
            "jacobian": [[-0.04, 0.0, 0.0], [0.04, 0.0, 0.0], zero],
            "hessian": [
                [zero, [0.0, 0.0, 1e4], [0.0, 1e4, 0.0]],
                [zero, [0.0, -6e7, -1e4], [0.0, -1e4, 0.0]],
                [zero, [0.0, 6e7, 0.0], zero],
            ],
        },
        {"k1": 0.04, "k2": 3e7, "k3": 1e4},
    )


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute Robertson's problem."""
    return [
        Function(
            "robertson",
            build_robertson,
            n=3,
            output_shape=(3,),
            domain=((0.0, 0.0, 0.0), (1.0, 1e-4, 1.0)),
            source=(
                "H. H. Robertson, in J. Walsh (ed.), Numerical Analysis: An Introduction, 1966, "
                "178-182; E. Hairer & G. Wanner, Solving Ordinary Differential Equations II, "
                "2nd ed., 1996, section IV.1"
            ),
            summary="Rates of three reactions with constants nine orders of magnitude apart",
            input_names=("A", "B", "C"),
            output_names=("dA_dt", "dB_dt", "dC_dt"),
            output_units="1/s",
            closed_form={"jacobian": robertson_jacobian, "hessian": robertson_hessian},
            scenarios=[_start()],
        )
    ]
