"""Evaluates everything on a device of pretence, and compares it with the CPU: one line of JSON per case.

A process of its own, since a backend is there for good once it has been registered.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from support.pretended import DEVICE, NAME, Pretended, Remote
from torch import Tensor
from torch.nn import functional

from pipeline.autograd import memory
from pipeline.autograd.functions import probe as function_probe

on_others = function_probe.resolve_device
function_probe.resolve_device = lambda name: DEVICE if name.startswith(NAME) else on_others(name)
memory.WORKING_SET[NAME] = memory.WORKING_SET["cuda"]

import pipeline  # noqa: E402 - binds what is replaced above
from pipeline.runs import execution, transfer  # noqa: E402
from pipeline.testing import FunctionTests  # noqa: E402

sys.path.append(str(Path(__file__).parent.with_name("plugins")))
from test_conformance import ROWS  # noqa: E402


class Copied(transfer.Direct):
    """Points and results are copied, as they are to and from a GPU."""

    def put(self, points: Tensor) -> Tensor:
        return super().put(points).to(DEVICE)

    def take(self, tensors: Any) -> Any:
        return super().take({name: tensor.cpu() for name, tensor in tensors.items()})


execution.build_transfer = lambda device, dtype: (
    Copied(dtype) if device == DEVICE else transfer.Direct(dtype)
)


def eye(x: Tensor) -> Tensor:
    return torch.eye(len(x), dtype=x.dtype, device=x.device)


def scattered(x: Tensor) -> Tensor:
    sums = torch.zeros(2, dtype=x.dtype, device=x.device)
    return sums.index_add(0, torch.tensor([0, 1, 0], device=x.device), x**2).prod()


def binned(x: Tensor) -> Tensor:
    borders = torch.linspace(0, 1, 5, dtype=x.dtype, device=x.device)
    return x.sum() * torch.searchsorted(borders, x).sum() + torch.signbit(x).sum()


def chain(x: Tensor) -> Tensor:
    return ((x[1:] - x[:-1]) ** 4).sum()


POINTS = 0.1 + torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EACH = torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
NETWORK = torch.nn.Sequential(
    torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
).double()
CASES = {
    "smooth": (lambda x: torch.sin(x).prod() + x.square().sum(), "all", {}),
    "kinks": (lambda x: x.abs().sum() * x.max() + torch.sort(x).values[0], "hessian", {}),
    "margins": (
        lambda x: functional.triplet_margin_loss(
            x[None], x.flip(0)[None], torch.ones_like(x)[None]
        ),
        "gradient",
        {},
    ),
    "bins": (binned, "gradient", {}),
    "branch": (lambda x: x.sum() if x[0] > 0.5 else x.prod(), "gradient", {}),
    "scatter": (scattered, "hessian", {}),
    "solve": (lambda x: torch.linalg.solve(eye(x) + torch.outer(x, x), x).sum(), "hessian", {}),
    "vector": (lambda x: torch.stack([x.sin().sum(), x[0] * x[1]]), ["jacobian", "hessian"], {}),
    "third": (lambda x: (x**4).sum() * x[0], "derivative", {"order": 3}),
    "contracted": (lambda x: x.norm() ** 3, ["laplacian", "hessian_diagonal"], {}),
    "divergence": (lambda x: x**3, "divergence", {}),
    "packed": (lambda x: (x**4).sum() * x[0], "hessian", {"symmetric": "packed"}),
    "sparse": (chain, "hessian", {"format": "sparse"}),
    "coloured": (chain, "hessian", {"format": "sparse", "route": "coloured"}),
    "forward": (chain, "hessian", {"route": "vmap", "mode": "fwd_over_rev"}),
    "loop": (chain, "hessian", {"route": "loop"}),
    "differences": (chain, "hessian", {"route": "finite_difference"}),
    "eigenvalues": (lambda x: (x**4).sum() * x[0], ["eigenvalues", "eigenvectors"], {}),
    "hvp": (lambda x: (x**4).sum() * x[0], "hvp", {"directions": torch.ones(3)}),
    "jvp": (lambda x: x**3, "jvp", {"directions": EACH}),
    "vjp": (lambda x: x**3, "vjp", {"directions": torch.ones(3)}),
    "float32": (lambda x: torch.sin(x).prod(), "hessian", {"dtype": "float32"}),
    "bfloat16": (lambda x: torch.sin(x).prod(), "gradient", {"dtype": "bfloat16"}),
    "module": (NETWORK, "hessian", {}),
    "parameters": (NETWORK, "jacobian", {"wrt": "parameters"}),
}


def evaluated(f: Any, points: Tensor, operators: Any, options: Any) -> None:
    """Evaluate here and there; an assertion tells of a difference."""
    here = pipeline.evaluate(f, points, operators, **options)
    with Pretended():
        there = pipeline.evaluate(f, points.to(DEVICE), operators, device=NAME, **options)
    for name, expected in {**here.datasets, "status": here.status}.items():
        found = there.status if name == "status" else there.datasets[name]
        assert isinstance(found, Remote), f"{name} came back on {found.device}"
        tolerance = 1e-9 if expected.dtype == torch.float64 else 1e-2
        torch.testing.assert_close(
            found.inner, expected, rtol=tolerance, atol=tolerance, equal_nan=True
        )


def stored() -> None:
    """Run to disk, with points on a kink and one that raises, and go on with it."""

    def f(x: Tensor) -> Tensor:
        if x[0] > 2:
            raise ValueError("too far")
        return x.abs().sum() * x[1] ** 2

    points = torch.tensor([[0.0, 1.0], [1.0, 2.0], [3.0, 1.0], [0.5, 0.25]], dtype=torch.float64)
    runs = []
    for device in ("cpu", NAME):
        with tempfile.TemporaryDirectory() as place, Pretended():
            result = pipeline.run(f, points, ["value", "hessian"], device=device, output_dir=place)
            with result as results:
                runs.append({name: results[name][:] for name in ("status", "value", "hessian")})
    for name, expected in runs[0].items():
        torch.testing.assert_close(
            torch.from_numpy(runs[1][name]), torch.from_numpy(expected), equal_nan=True
        )
    assert runs[0]["status"].tolist() == [4, 1, 3, 1]


def built_in(name: str) -> None:
    """A function that everybody has: its constants follow its points."""
    case = type("Case", (FunctionTests,), {"function": name, **ROWS[name]})()
    operator = "jacobian" if case.bound.output_shape else "gradient"
    evaluated(case.bound.f, case.points, operator, {})


def main() -> None:
    """Carry out all cases, or those that are named."""
    todo = {
        name: lambda case=case: evaluated(case[0], POINTS, *case[1:])
        for name, case in CASES.items()
    }
    todo |= {name: lambda name=name: built_in(name) for name in ROWS}
    todo["stored"] = stored
    for name in sys.argv[1:] or todo:
        try:
            todo[name]()
            outcome = ""
        except Exception:
            outcome = traceback.format_exc()
        print(json.dumps({"case": name, "fault": outcome}), flush=True)


if __name__ == "__main__":
    main()
