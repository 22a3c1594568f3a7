"""The test functions of botorch, each with its own box.

python -m pipeline job=hessian function=botorch_hartmann 'plugins=[examples/botorch_problems.py]' grid=sobol
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from botorch.test_functions import synthetic
from torch import Tensor

from pipeline import Function, hookimpl, module_function

NAMES = (
    "Ackley", "Beale", "Branin", "Cosine8", "DixonPrice", "DropWave", "Griewank", "Hartmann", "Levy",
    "Michalewicz", "Powell", "Rastrigin", "Rosenbrock", "Shekel", "SixHumpCamel", "StyblinskiTang",
    "ThreeHumpCamel",
)  # fmt: skip


def build(name: str) -> Callable[[Tensor], Tensor]:
    """Take one of them, without noise."""
    return module_function(
        getattr(synthetic, name)(), lambda problem, x: problem.evaluate_true(x[None])[0]
    )


def function(name: str) -> Function:
    """Describe one of them."""
    problem = getattr(synthetic, name)()
    lower, upper = problem.bounds.tolist()
    return Function(
        f"botorch_{name.lower()}",
        partial(build, name),
        n=problem.dim,
        domain=(lower, upper),
        summary=f"{name} in {problem.dim} variables, by botorch",
        source="botorch.test_functions.synthetic",
    )


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute all that are smooth nearly everywhere."""
    return [function(name) for name in NAMES]
