"""Points that lie exactly on a kink are flagged, others are not."""

import math

import pytest
import torch
from torch.nn import functional

import pipeline
from pipeline.autograd.evaluator import NONFINITE, NONSMOOTH, OK
from pipeline.autograd.kinks import kink_finder
from pipeline.autograd.request import Request

POINTS = torch.tensor(
    [[0.0, 1.0, 2.0], [1.0, 1.0, 2.0], [0.3, 0.4, 0.7], [0.5, -0.5, 0.1], [3.0, 6.0, -3.0]],
    dtype=torch.float64,
)
ZERO = torch.zeros(3, dtype=torch.float64)
BORDERS = torch.tensor([0.0, 0.3], dtype=torch.float64)


def request(f):
    return Request(f, POINTS[0], tuple(f(POINTS[0]).shape), (1,))


def padded(x):
    y = torch.zeros(5, dtype=x.dtype)
    y[:3] = x
    return y.abs().sum()


KINKS = {
    "abs": (lambda x: x.abs().sum(), [1, 0, 0, 0, 0]),
    "abs_operator": (lambda x: abs(x - 1).sum(), [1, 1, 0, 0, 0]),
    "in_place": (lambda x: x.clone().abs_().sum(), [1, 0, 0, 0, 0]),
    "module": (torch.nn.ReLU(), [1, 0, 0, 0, 0]),
    "relu6": (functional.relu6, [1, 0, 0, 0, 1]),
    "hardswish": (functional.hardswish, [0, 0, 0, 0, 1]),
    "softshrink": (functional.softshrink, [0, 0, 0, 1, 0]),
    "hardshrink": (lambda x: functional.hardshrink(x, 0.3), [0, 0, 1, 0, 0]),
    "max": (lambda x: x.max(), [0, 1, 0, 0, 0]),
    "max_along": (lambda x: x.max(dim=0).values, [0, 1, 0, 0, 0]),
    "sort": (lambda x: x.sort().values[1], [0, 1, 0, 0, 0]),
    "maximum": (lambda x: torch.maximum(x[:1], x[1:2]).sum(), [0, 1, 0, 0, 0]),
    "where": (lambda x: torch.where(x > 0.3, x, x**2).sum(), [0, 0, 1, 0, 0]),
    "isolated": (lambda x: torch.where(x == 0, 1.0, x.sin() / x).sum(), [1, 0, 0, 0, 0]),
    "branch": (lambda x: x.sum() if x[0] > 0.5 else x.prod(), [0, 0, 0, 1, 0]),
    "clamp": (lambda x: x.clamp(0.4, 1).sum(), [1, 1, 1, 0, 0]),
    "clamp_by_name": (lambda x: torch.clamp(x, max=2).sum(), [1, 1, 0, 0, 0]),
    "floor": (lambda x: (2 * x).floor().sum(), [1, 1, 0, 1, 1]),
    "modulo": (lambda x: (x % 1.5).sum(), [1, 0, 0, 0, 1]),
    "norm": (lambda x: (x[:2] - x[1:2]).norm(), [0, 1, 0, 0, 0]),
    "linalg_norm": (lambda x: torch.linalg.vector_norm(x[:2] - x[1:2]), [0, 1, 0, 0, 0]),
    "norm_1": (lambda x: x.norm(p=1), [1, 0, 0, 0, 0]),
    "norm_of_rows": (lambda x: (x[:2, None] - x[0]).norm(dim=1)[1], [0, 1, 0, 0, 0]),
    "norm_inf": (lambda x: x[:2].norm(p=math.inf), [0, 1, 0, 1, 0]),
    "nuclear": (lambda x: torch.linalg.matrix_norm(torch.diag(x), "nuc"), [1, 0, 0, 0, 0]),
    "normalize": (lambda x: functional.normalize(x[:1], dim=0), [1, 0, 0, 0, 0]),
    "pool": (lambda x: functional.max_pool1d(x[None], 2, 1).sum(), [0, 1, 0, 0, 0]),
    "pool_of_zeros": (
        lambda x: functional.max_pool1d((x[:2] - x[1])[None], 2).sum(),
        [0, 1, 0, 0, 0],
    ),
    "pool_module": (lambda x: torch.nn.AdaptiveMaxPool1d(1)(x[None, :2]).sum(), [0, 1, 0, 0, 0]),
    "cumulative": (lambda x: x.cummax(0).values.sum(), [0, 1, 0, 0, 0]),
    "quantile": (lambda x: torch.quantile(x, 0.2), [0, 1, 0, 0, 0]),
    "whole": (lambda x: (x[1] * 2).long() * x[0], [1, 1, 0, 1, 1]),
    "whole_dtype": (lambda x: (x[1] * 2).to(torch.int64) * x[0], [1, 1, 0, 1, 1]),
    "truth": (lambda x: x.bool().sum() * x[1], [1, 0, 0, 0, 0]),
    "divided": (lambda x: torch.div(x[2], 0.5, rounding_mode="floor") * x[0], [1, 1, 0, 0, 1]),
    "bins": (lambda x: torch.bucketize(x, BORDERS).sum() * x[1], [1, 0, 1, 0, 0]),
    "sorted_bins": (lambda x: torch.searchsorted(BORDERS, x).sum() * x[1], [1, 0, 1, 0, 0]),
    "pairs": (lambda x: functional.pdist(x[:2, None]).sum(), [0, 1, 0, 0, 0]),
    "eigenvalues": (lambda x: torch.linalg.eigvalsh(torch.diag(x))[0], [0, 1, 0, 0, 0]),
    "singular": (lambda x: torch.linalg.svdvals(torch.diag(x))[0], [0, 1, 0, 1, 1]),
    "huber": (lambda x: functional.huber_loss(x, ZERO, delta=0.5), [0, 0, 0, 1, 0]),
    "padded": (padded, [1, 0, 0, 0, 0]),
    "with_itself": (lambda x: torch.maximum(x, x.flip(0)).sum(), [0, 0, 0, 0, 0]),
}
SMOOTH = {
    "polynomial": lambda x: (x**3).sum(),
    "softmax": lambda x: torch.softmax(x, 0),
    "mask": lambda x: (torch.outer(x, x) * (torch.arange(3)[:, None] > torch.arange(3))).sum(),
    "triangle": lambda x: torch.triu(torch.outer(x, x)).sum(),
    "constant": lambda x: x.sum() * torch.tensor([-1.0, 0.0]).abs().sum(),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_found(name):
    f, expected = KINKS[name]
    find = kink_finder(request(f), POINTS)
    assert find(POINTS).int().tolist() == expected


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_function_is_not_watched(name):
    assert kink_finder(request(SMOOTH[name]), POINTS) is None


@pytest.mark.parametrize("route", ["vmap", "loop"])
def test_the_status_tells(route):
    def f(x):
        return (x[0].abs() + x[1] ** 2) * x[2].sqrt()

    result = pipeline.evaluate(f, POINTS, "gradient", route=route)
    assert result.status.tolist() == [NONSMOOTH, OK, OK, OK, NONFINITE]
    assert pipeline.evaluate(f, POINTS, "value").status.tolist() == [OK, OK, OK, OK, NONFINITE]


def test_the_summary_counts_them(cli, tmp_path):
    (tmp_path / "kinked.py").write_text(
        "from pipeline import Function, hookimpl\n\n"
        "def build():\n    return lambda x: x.abs().sum()\n\n"
        "@hookimpl\ndef pipeline_functions():\n    return [Function('kinked', build, n=2)]\n"
    )
    done = cli("function=kinked", "plugins=[./kinked.py]", "grid.count=5")
    assert done.returncode == 0, done.stderr
    assert "on a kink of the function at 9 points" in done.stdout


def test_products_beside_zero_are_flagged_where_their_derivatives_cancel():
    points = torch.tensor([[0.5, 1.0, 2.0], [0.5, 2e-17, 2.0], [0.5, 0.0, 2.0]]).double()

    def f(x):
        return torch.sin(x).prod()

    assert pipeline.evaluate(f, points, "hessian").status.tolist() == [1, 4, 1]
    assert pipeline.evaluate(f, points, "gradient").status.tolist() == [1, 1, 1]


def test_products_of_truth_values_have_no_derivative_to_lose():
    points = torch.tensor([[0.5, 1.0], [0.25, 2.0]]).double()
    found = pipeline.evaluate(lambda x: (x**3).sum() * (x > -9).prod(), points, "hessian")
    assert found.status.tolist() == [OK, OK]
    assert torch.allclose(found.hessian, torch.diag_embed(6 * points))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_function_that_raises_close_by_has_no_kink_for_that(sign):
    def on_one_side(x):
        if sign * x[0] < 0:
            raise ValueError("not there")
        return (x**3).sum()

    points = torch.tensor([[sign * 1e-3, 1.0, 2.0], [sign * 0.5, 1.0, 2.0]], dtype=torch.float64)
    assert pipeline.evaluate(on_one_side, points, "hessian").status.tolist() == [OK, OK]
