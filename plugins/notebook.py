"""The vector-valued function of the notebook that the pipeline began with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline import AnySize, Function, Scenario, hookimpl


def build_weighted_squares() -> Callable[[Tensor], Tensor]:
    """Build f_i(x) = i x_i^2.

    Returns:
        Maps (n,) to (n,).
    """

    def weighted_squares(x: Tensor) -> Tensor:
        return x * x * torch.arange(len(x), dtype=x.dtype, device=x.device)

    return weighted_squares


def jacobian(x: Tensor) -> Tensor:
    """diag(2 i x_i), (n, n)."""
    return torch.diag(2 * torch.arange(len(x), dtype=x.dtype, device=x.device) * x)


def hessian(x: Tensor) -> Tensor:
    """2 i at (i, i, i), else 0, (n, n, n)."""
    weights = 2 * torch.arange(len(x), dtype=x.dtype, device=x.device)
    return torch.diag_embed(torch.diag(weights))


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the function of the notebook."""
    corner = [
        [[2.0 * i if i == j == k else 0.0 for k in range(4)] for j in range(4)] for i in range(4)
    ]
    return [
        Function(
            name="weighted_squares",
            build=build_weighted_squares,
            n=AnySize(default=4),
            output_shape=lambda n: (n,),
            domain=(-2.0, 2.0),
            source="worked example of this project: f(x) = x * x * arange(n)",
            summary="x * x * arange(n), a vector-valued function with a diagonal Jacobian",
            closed_form={"jacobian": jacobian, "hessian": hessian},
            scenarios=[
                Scenario(
                    (1.0, 1.0, 1.0, 1.0),
                    {
                        "value": (0.0, 1.0, 2.0, 3.0),
                        "jacobian": [
                            [2.0 * i if i == j else 0.0 for j in range(4)] for i in range(4)
                        ],
                        "hessian": corner,
                    },
                )
            ],
        )
    ]
