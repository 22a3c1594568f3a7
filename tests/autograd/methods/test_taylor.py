"""Taylor mode against the reference, operation by operation."""

import pytest
import torch

import pipeline
from pipeline.autograd.methods.taylor import push_forward
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import RefusedError

GENERATOR = torch.Generator().manual_seed(1)
POINTS = torch.rand(3, 5, generator=GENERATOR, dtype=torch.float64) + 0.3
A = torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64)
NET = torch.nn.Sequential(
    torch.nn.Linear(5, 7),
    torch.nn.Tanh(),
    torch.nn.Linear(7, 6),
    torch.nn.GELU(),
    torch.nn.Linear(6, 2),
)
NET = NET.double().requires_grad_(False)
FUNCTIONS = {
    "powers": lambda x: (x**3).sum() + x[0] ** 2.5 + 2 ** x[1] + x[2] ** x[3],
    "products": lambda x: torch.exp(-x[0]) * x[1:].prod() / (1 + x[2]),
    "network": lambda x: NET(x),
    "softmax": lambda x: torch.logsumexp(x, 0) * torch.softmax(x, 0)[1:],
    "quotients": lambda x: torch.stack([x[0] / x[1], torch.atan2(x[2], x[3]), x.norm(), 3 - x[4]]),
    "branches": lambda x: (
        torch.where(x > 0.6, x**2, torch.sin(x)).sum() + torch.maximum(x[0], x[1])
    ),
    "matrices": lambda x: torch.outer(x, x).matmul(x).sum() * 2 + 3 - x[0] + (A @ x).square().sum(),
    "shifts": lambda x: x[0] + torch.ones(5, dtype=x.dtype) - (1 - x[1]) * x,
    "pieces": lambda x: torch.cat([x[:2] * x[1], torch.ones(2, dtype=x.dtype), x.flip(0) ** 2]),
    "layer norm": lambda x: torch.nn.functional.layer_norm(x, (5,))[2],
    "a constant": lambda x: torch.ones(2, dtype=x.dtype),
    "linear": lambda x: A @ x + 1,
}


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operation(name, summed):
    f = FUNCTIONS[name]
    push = torch.func.vmap(push_forward(f, POINTS[0], 5, summed))
    value, first, second = push(POINTS)
    for row, point in enumerate(POINTS):
        expected = derivatives(f, point, 2)
        diagonal = expected[2].diagonal(dim1=-2, dim2=-1)
        near = {"rtol": 1e-11, "atol": 1e-12}
        torch.testing.assert_close(value[row], expected[0], **near)
        torch.testing.assert_close(first[row].movedim(0, -1), expected[1], **near)
        seen = second[row] if summed else second[row].movedim(0, -1)
        torch.testing.assert_close(seen, diagonal.sum(-1) if summed else diagonal, **near)


def test_what_has_no_rule_is_refused():
    with pytest.raises(RefusedError, match="Taylor mode has no rule for the several results"):
        push_forward(lambda x: torch.linalg.det(x[:4].reshape(2, 2)), POINTS[0], 5, True)(POINTS[0])
    with pytest.raises(RefusedError, match="Taylor mode has no rule for a scaled sum"):
        push_forward(lambda x: torch.add(x, 1.0, alpha=2), POINTS[0], 5, True)(POINTS[0])


def test_value_jacobian_and_laplacian_come_from_one_sweep():
    names = ["value", "jacobian", "laplacian", "hessian_diagonal", "jvp", "hvp"]
    found = pipeline.evaluate(
        NET, POINTS, names, directions=A[0], route="vmap", mode="fwd_over_fwd"
    )
    for row, point in enumerate(POINTS):
        value, jacobian, hessian = derivatives(NET, point, 2)
        torch.testing.assert_close(found.value[row], value)
        torch.testing.assert_close(found.jacobian[row], jacobian)
        torch.testing.assert_close(found.jvp[row], jacobian @ A[0])
        torch.testing.assert_close(found.hvp[row], hessian @ A[0])
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(found.hessian_diagonal[row], diagonal)
        torch.testing.assert_close(found.laplacian[row], diagonal.sum(-1))
    some = pipeline.evaluate(
        NET, POINTS, "laplacian", wrt=[3, 0], route="vmap", mode="fwd_over_fwd"
    )
    expected = [derivatives(NET, x, 2)[2][:, [0, 3], [0, 3]].sum(1) for x in POINTS]
    torch.testing.assert_close(some.laplacian, torch.stack(expected))
