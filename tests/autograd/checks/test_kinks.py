"""Points that lie exactly on a kink are flagged, others are not."""

import math
from dataclasses import replace

import mpmath
import pytest
import torch
from torch.nn import functional

import pipeline
from pipeline.autograd.checks.kinks import kink_finder
from pipeline.autograd.evaluated import NONFINITE, NONSMOOTH, OK
from pipeline.autograd.request import Request

POINTS = torch.tensor(
    [[0.0, 1.0, 2.0], [1.0, 1.0, 2.0], [0.3, 0.4, 0.7], [0.5, -0.5, 0.1], [3.0, 6.0, -3.0]],
    dtype=torch.float64,
)
ZERO = torch.zeros(3, dtype=torch.float64)
ONE, CLASS, GROUPS = torch.ones(1), torch.tensor([0]), torch.tensor([0, 0, 1])
IMAGE = torch.arange(12, dtype=torch.float64).reshape(1, 1, 3, 4) ** 2
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
    "max": (lambda x: x[:2].max(), [0, 1, 0, 0, 0]),
    "max_along": (lambda x: x[:2].max(dim=0).values, [0, 1, 0, 0, 0]),
    "max_of_both": (lambda x: torch.max(x[:1], other=x[1:2]).sum(), [0, 1, 0, 0, 0]),
    "tie_below_the_largest": (lambda x: x.max(), [0, 0, 0, 0, 0]),
    "least": (lambda x: x.amin(dim=(-1,)), [0, 1, 0, 0, 0]),
    "largest_of_rows": (lambda x: torch.stack([x, x + 1]).amax((0, 1)), [0, 0, 0, 0, 0]),
    "largest_in_columns": (lambda x: torch.stack([x, x[[1, 2, 0]]]).amax(0).sum(), [0, 1, 0, 0, 0]),
    "range": (lambda x: torch.aminmax(x)[0], [0, 1, 0, 0, 0]),
    "sort": (lambda x: x.sort().values[1], [0, 1, 0, 0, 0]),
    "sorted_rows": (lambda x: torch.stack([x, x + 1]).sort().values[0, 1], [0, 1, 0, 0, 0]),
    "sorted_columns": (lambda x: torch.stack([x, x + 1]).msort()[1].sum(), [0, 0, 0, 0, 0]),
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
    "rank_of_qr": (
        lambda x: torch.linalg.qr(torch.stack([x[:2], x[1:]]))[1].diagonal().abs().sum(),
        [0, 0, 0, 0, 0],
    ),
    "rank_lost": (
        lambda x: torch.linalg.qr(torch.stack([x[:2], 2 * x[1:2].expand(2)]))[1][0],
        [0, 1, 0, 0, 0],
    ),
    "pseudoinverse": (lambda x: torch.linalg.pinv(torch.diag(x)).sum(), [1, 0, 0, 0, 0]),
    "least_squares": (
        lambda x: torch.linalg.lstsq(torch.stack([x[:2], x[1:]]), x[1:, None]).solution.sum(),
        [0, 0, 0, 0, 0],
    ),
    "roots": (
        lambda x: torch.linalg.eigvals(torch.stack([x[:2], x[:2].flip(0)])).real.max(),
        [0, 0, 0, 0, 0],
    ),
    "multiple_roots": (
        lambda x: torch.linalg.eigvals(
            torch.stack([x[:2], torch.stack([x[0] - x[1], x[0]])])
        ).real.sum(),
        [0, 1, 0, 0, 0],
    ),
    "cut": (lambda x: torch.atan2(x[0], -x[1]), [1, 0, 0, 0, 0]),
    "huber": (lambda x: functional.huber_loss(x, ZERO, delta=0.5), [0, 0, 0, 1, 0]),
    "norm_inf_of_matrix": (
        lambda x: torch.linalg.vector_norm(torch.outer(x[:1], x), math.inf, dim=(0, 1)),
        [1, 0, 0, 1, 0],
    ),
    "spectral_norm": (lambda x: torch.linalg.norm(torch.diag(x), 2), [0, 0, 0, 1, 0]),
    "sum_of_columns": (lambda x: torch.linalg.norm(torch.diag(x), 1), [0, 0, 0, 1, 0]),
    "condition": (lambda x: torch.linalg.cond(torch.diag(x + 4)), [0, 1, 0, 0, 0]),
    "distances": (lambda x: torch.cdist(x[:2, None], x[1:, None]).sum(), [0, 1, 0, 0, 0]),
    "largest_distance": (
        lambda x: torch.cdist(torch.stack([x[:2], 2 * x[:2]]), x[1:][None], p=math.inf).sum(),
        [1, 0, 0, 0, 0],
    ),
    "margin_of_classes": (lambda x: functional.multi_margin_loss(x[None], CLASS), [0, 0, 0, 1, 0]),
    "margin_of_labels": (
        lambda x: functional.multilabel_margin_loss(x[None], torch.tensor([[0, -1, -1]])),
        [0, 0, 0, 1, 0],
    ),
    "margin_of_ranks": (
        lambda x: functional.margin_ranking_loss(x[:1], x[1:2], ONE, margin=1.0),
        [0, 0, 0, 1, 0],
    ),
    "margin_of_triplets": (
        lambda x: functional.triplet_margin_loss(x[None, :1], x[None, 2:], x[None, 1:2], eps=0.0),
        [0, 1, 0, 0, 0],
    ),
    "hinge": (lambda x: functional.hinge_embedding_loss(x, -torch.ones(3)), [1, 1, 0, 0, 0]),
    "angle": (lambda x: x.angle().sum(), [1, 0, 0, 0, 0]),
    "complex_angle": (lambda x: torch.complex(x[:1], x[1:2] - x[1:2]).angle(), [1, 0, 0, 0, 0]),
    "reduced": (
        lambda x: x.new_zeros(2).scatter_reduce(0, GROUPS, x, "amax", include_self=False).sum(),
        [0, 1, 0, 0, 0],
    ),
    "reduced_in_place": (
        lambda x: x.new_full((2,), 9.0).scatter_reduce_(0, GROUPS, x, "amin").sum(),
        [0, 1, 0, 0, 0],
    ),
    "similarity": (
        lambda x: functional.cosine_similarity(torch.stack([x[0], 2 * x[0]]), x[1:], dim=0),
        [1, 0, 0, 0, 0],
    ),
    "cells": (
        lambda x: functional.grid_sample(
            IMAGE, x[:2].reshape(1, 1, 1, 2), align_corners=True
        ).sum(),
        [1, 1, 0, 0, 0],
    ),
    "lengths_of_windows": (
        lambda x: functional.lp_pool1d((x[:2] - x[1])[None], 2.0, 2).sum(),
        [0, 1, 0, 0, 0],
    ),
    "different": (lambda x: x.unique().sum(), [0, 1, 0, 0, 0]),
    "mantissa": (lambda x: torch.frexp(x)[0].sum(), [1, 1, 0, 1, 0]),
    "median": (lambda x: x.median(), [0, 1, 0, 0, 0]),
    "remainder": (lambda x: torch.remainder(x[1], 0.5) * x[2], [1, 1, 0, 1, 1]),
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


SMOOTH_BUT_UNKNOWN = {
    "bessel": lambda x: torch.special.bessel_j0(x).sum(),
    "zeta": lambda x: torch.special.zeta(x + 5, 1.5).sum(),
    "renorm": lambda x: torch.renorm(x[None] + 4, 2, 0, 1.0).sum(),
    "cubed": lambda x: torch.linalg.vector_norm(x[1:] + 10, 3),
    "smooth_between": lambda x: functional.grid_sample(
        IMAGE, (x[:2] / 7 + 0.05).reshape(1, 1, 1, 2), align_corners=True
    ).sum(),
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", SMOOTH_BUT_UNKNOWN)
def test_what_is_not_known_but_smooth_is_not_flagged(name, order):
    f = SMOOTH_BUT_UNKNOWN[name]
    find = kink_finder(replace(request(f), orders=(order,)), POINTS)
    assert find is None or not find(POINTS).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_status_tells_of_a_margin(dtype):
    points = POINTS[:, :2].to(dtype)
    found = pipeline.evaluate(
        lambda x: functional.margin_ranking_loss(x[:1], x[1:], ONE, margin=1.0), points, "gradient"
    )
    assert found.status.tolist() == [OK, OK, OK, NONSMOOTH, OK]


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


TAILS = {
    "erfcx": (
        torch.special.erfcx,
        [[3.0], [30.0], [300.0], [3000.0]],
        [OK, OK, NONSMOOTH, NONSMOOTH],
    ),
    "log_ndtr": (
        torch.special.log_ndtr,
        [[30.0], [-30.0], [-300.0], [-3000.0]],
        [OK, OK, NONSMOOTH, NONSMOOTH],
    ),
}


@pytest.mark.parametrize("name", TAILS)
def test_a_tail_in_which_torch_has_no_digits_is_flagged(name):
    f, places, status = TAILS[name]
    points = torch.tensor(places, dtype=torch.float64)
    found = pipeline.evaluate(lambda x: f(x).sum(), points, "hessian", on_disagreement="warn")
    assert found.status.tolist() == status
    assert pipeline.evaluate(lambda x: f(x).sum(), points, "gradient").status.tolist() == [OK] * 4
    # those that are not flagged are right: d²/dx² log Phi = -r (x + r) with r = phi / Phi,
    # d²/dx² erfcx = 2 erfcx + 2 x (2 x erfcx - 2 / sqrt(pi))
    for x, seen in zip(points[:2, 0], found.hessian[:2, 0, 0], strict=True):
        with mpmath.workdps(60):
            x = mpmath.mpf(float(x))
            formula = {
                "erfcx": lambda t: mpmath.exp(t * t) * mpmath.erfc(t),
                "log_ndtr": lambda t: mpmath.log(mpmath.ncdf(t)),
            }[name]
            exact = float(mpmath.diff(formula, x, 2))
        assert float(seen) == pytest.approx(exact, rel=1e-7, abs=1e-60)


def test_digits_are_lost_wherever_all_points_of_a_grid_lie():
    points = torch.tensor([[1e-9], [2e-9], [-3e-9]], dtype=torch.float64)
    f = pipeline.evaluate(lambda x: x.sinc().sum(), points, "gradient", on_disagreement="warn")
    assert f.status.tolist() == [NONSMOOTH] * 3
    far = torch.tensor([[-400.0], [-500.0]], dtype=torch.float64)

    def tail(x):
        return torch.special.log_ndtr(x).sum()

    assert pipeline.evaluate(tail, far, "hessian", on_disagreement="warn").status.tolist() == [4, 4]


def test_a_padded_zero_loses_no_digits():
    points = torch.tensor([[0.5, 1.0], [0.25, 2.0]], dtype=torch.float64)

    def padded(x):
        return functional.pad(x, (0, 2)).sinc().sum()

    assert pipeline.evaluate(padded, points, "hessian").status.tolist() == [OK, OK]


def test_cumulative_products_beside_zero_are_flagged():
    points = torch.tensor([[0.5, 1.0, 2.0], [0.5, 2e-17, 2.0]], dtype=torch.float64)

    def f(x):
        return torch.sin(x).cumprod(0).sum()

    assert pipeline.evaluate(f, points, "hessian", on_disagreement="warn").status.tolist() == [1, 4]


def test_the_rank_that_is_asked_for_is_no_dimension():
    points = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0]], dtype=torch.float64)
    for f in (
        lambda x: x.topk(2).values.pow(2).sum(),
        lambda x: x.reshape(1, 3).topk(k=1, dim=-1).values.sum() + x.kthvalue(2).values,
        lambda x: torch.stack([x, -x]).topk(1, 1).values.square().sum(),
    ):
        assert pipeline.evaluate(f, points, "gradient").status.tolist() == [OK, NONSMOOTH]


def test_a_point_is_followed_once():
    calls = []

    def rough(x):
        calls.append(x)
        return x.abs().sum() + torch.nn.functional.multi_margin_loss(x[None], torch.tensor([0]))

    kink_finder(request(rough), POINTS)
    assert (
        len(calls) == 1 + len(POINTS) + 2
    )  # the request's own call, a place beside the points, and with a gradient


def test_an_angle_of_what_has_no_square_is_flagged():
    points = torch.tensor([[1e-200, 1e-200], [1.0, 2.0]], dtype=torch.float64)
    found = pipeline.evaluate(lambda x: torch.atan2(x[0], x[1]), points, "gradient")
    assert found.status.tolist() == [NONSMOOTH, OK]  # torch: 0 in place of 5e199


BESSEL = {
    "i1": (torch.special.i1, 2, lambda x: mpmath.besseli(1, x)),
    "i1e": (torch.special.i1e, 2, lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x))),
    "i0": (torch.special.i0, 3, lambda x: mpmath.besseli(0, x)),
    "i0e": (torch.special.i0e, 3, lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x))),
}


@pytest.mark.parametrize("name", BESSEL)
def test_bessel_functions_beside_zero_are_right_or_flagged(name):
    f, order, formula = BESSEL[name]
    points = torch.tensor([[1e-15], [-1e-12], [1e-9], [1e-6], [-1e-3], [0.5]], dtype=torch.float64)
    found = pipeline.evaluate(
        lambda x: f(x[0]), points, "derivative", order=order, on_disagreement="warn"
    )
    assert found.status.tolist() == [NONSMOOTH] * 3 + [OK] * 3
    for x, seen in zip(points[3:, 0], found.datasets[f"derivative_{order}"][3:], strict=True):
        with mpmath.workdps(60):
            exact = float(mpmath.diff(formula, mpmath.mpf(float(x)), order, h=mpmath.mpf("1e-15")))
        assert float(seen) == pytest.approx(exact, rel=1e-6, abs=1e-9)
