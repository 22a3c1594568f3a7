"""Half precision: evaluated in float16 or bfloat16, kept in float32."""

from __future__ import annotations

import json
import logging
import math

import h5py
import numpy as np
import pytest
import torch

import pipeline
from pipeline.autograd.checks.oracle import build_oracle
from pipeline.autograd.functions.half_precision import PRECISIONS
from pipeline.autograd.request import Request
from pipeline.errors import ConfigurationError, DisagreementError, FunctionError

HALVES = [torch.float16, torch.bfloat16]
X = torch.linspace(-2, 2, 35, dtype=torch.float64).reshape(7, 5) + 0.01
EXACT = {"rtol": 0, "atol": 0}


def wave(x):
    return (x.sin() * x.flip(0)).sum()


def wave_gradient(x):
    return x.cos() * x.flip(1) + x.flip(1).sin()


def wave_hessian(x):
    n = x.shape[1]
    mirror = torch.eye(n).flip(1).double()
    return torch.diag_embed(-x.sin() * x.flip(1)) + mirror * (
        x.cos()[:, :, None] + x.cos()[:, None, :]
    )


def close(found, expected, dtype, roundings=16):
    size = expected.abs().max()
    return (
        float((found.double() - expected).abs().max() / size) < roundings * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("route", ["loop", "vmap"])
def test_derivatives_are_right_to_a_few_roundings_at_the_points_that_are_kept(dtype, route):
    found = pipeline.evaluate(wave, X.to(dtype), ["gradient", "hessian"], route=route)
    assert found.x.dtype == found.hessian.dtype == torch.float32
    assert torch.equal(found.x, X.to(dtype).float())
    at = X.to(dtype).double()
    assert close(found.gradient, wave_gradient(at), dtype)
    assert close(found.hessian, wave_hessian(at), dtype)
    # evaluated in half precision indeed: as far off as that, and all entries are such numbers
    assert not close(found.gradient, wave_gradient(at), torch.float32)
    assert torch.equal(found.gradient, found.gradient.to(dtype).float())
    assert 0 < found.certificate.rounding_error < 16 * torch.finfo(dtype).eps
    assert found.certificate.finite_difference_checks > 0  # of the same function in float64


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_points_of_more_digits_are_rounded_before_anything_is_evaluated(name):
    seen = []

    def watched(x):
        seen.append(x.dtype)
        return (x * x).sum()

    found = pipeline.evaluate(watched, X, "gradient", dtype=name, route="loop")
    half = PRECISIONS[name].evaluated
    assert torch.equal(found.x.double(), X.to(half).double())
    torch.testing.assert_close(found.gradient, 2 * found.x, **EXACT)
    assert set(seen) == {half, torch.float64}  # the latter by the oracles


def test_what_is_asked_for_by_parts_is_evaluated_in_half_precision_as_well():
    at = X.half().double()
    by_columns = pipeline.evaluate(wave, X.half(), "hessian", wrt=[1, 3])
    assert close(by_columns.hessian, wave_hessian(at)[:, [1, 3]][:, :, [1, 3]], torch.float16)
    v = torch.linspace(-1, 1, 5, dtype=torch.float64)
    along = pipeline.evaluate(wave, X.half(), "hvp", directions=v)
    assert close(along.hvp, wave_hessian(at) @ v, torch.float16)
    sparse = pipeline.evaluate(wave, X.half(), "hessian", format="sparse")
    assert close(sparse.hessian, wave_hessian(at), torch.float16)
    packed = pipeline.evaluate(wave, X.half(), "hessian", symmetric="packed")
    assert close(packed.hessian, wave_hessian(at), torch.float16)


@pytest.mark.parametrize("dtype", HALVES)
def test_parameters_of_a_module_are_rounded_to_it(dtype):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh())
    found = pipeline.evaluate(module, X.to(dtype), "jacobian", wrt="parameters")
    weights = module[0].weight.detach().to(dtype).double()
    bias = module[0].bias.detach().to(dtype).double()
    at = X.to(dtype).double()
    slope = 1 - torch.tanh(at @ weights.T + bias) ** 2
    by_bias = torch.diag_embed(slope)
    by_weights = (by_bias[..., None] * at[:, None, None, :]).reshape(7, 3, 15)
    assert close(found.jacobian, torch.cat([by_weights, by_bias], dim=2), dtype)
    half_weights = pipeline.evaluate(module.to(dtype), X, "jacobian")  # which are exact in float64
    assert half_weights.certificate.finite_difference_checks > 0
    at_x = 1 - torch.tanh(X @ weights.T + bias) ** 2
    torch.testing.assert_close(half_weights.jacobian, at_x[..., None] * weights)


def test_a_function_that_only_takes_half_precision_has_no_oracle_and_says_so(caplog):
    weights = torch.linspace(-1, 1, 5).half()
    found = pipeline.evaluate(lambda x: torch.tanh(x @ weights), X.half(), "gradient")
    assert "nothing independent confirms" in caplog.text
    assert "cannot be evaluated in float64" in found.certificate.unchecked[0]
    at, w = X.half().double(), weights.double()
    assert close(found.gradient, (1 - torch.tanh(at @ w) ** 2)[:, None] * w, torch.float16)


def test_what_overflows_is_flagged_and_the_rest_is_not():
    points = torch.tensor([[0.5, 1.0], [8.0, 1.0], [1.0, 2.0], [2.0, 0.5], [4.0, 1.0]]).half()
    for route in ("loop", "vmap"):
        found = pipeline.evaluate(lambda x: (32 * x).pow(2).sum(), points, "gradient", route=route)
        assert found.status.tolist() == [1, 2, 1, 1, 1]
        torch.testing.assert_close(found.gradient[0], 2048 * points[0].float(), **EXACT)
    wider = pipeline.evaluate(
        lambda x: (32 * x).pow(2).sum(), points.bfloat16(), "gradient", route="loop"
    )
    assert wider.status.tolist() == [1] * 5  # bfloat16 has the range of float32


def test_float32_that_overflows_is_flagged_as_well():
    points = torch.tensor([[0.5, 1.0], [200.0, 1.0], [3.0, 1.0]])
    found = pipeline.evaluate(lambda x: x.exp().sum(), points, "gradient")
    assert found.status.tolist() == [1, 2, 1]
    assert math.isinf(found.gradient[1, 0])


def test_what_underflows_is_said(caplog):
    found = pipeline.evaluate(lambda x: (x * 1e-3).pow(4).sum(), X.half(), "gradient")
    assert "in float16 no digit is left" in caplog.text
    assert found.certificate.rounding_error == 1.0


def test_kinks_are_those_of_what_was_evaluated():
    # 1/3 is no number of float16: the comparison is met where x is rounded to the same one
    third = torch.tensor(1 / 3, dtype=torch.float64)
    points = torch.tensor([[1 / 3, 1.0], [0.3, 1.0], [0.5, 2.0]], dtype=torch.float64)

    def corner(x):
        return (x - third.to(x.dtype)).abs().sum()

    assert pipeline.evaluate(corner, points, "gradient", dtype="float16").status.tolist() == [
        4,
        1,
        1,
    ]


def test_autocast_is_found_and_nothing_more_is_expected_of_it(caplog):
    weights = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(3, 5)

    def mixed(x):
        with torch.autocast("cpu", torch.bfloat16):
            return torch.nn.functional.linear(x.float(), weights.float()).sum().to(x.dtype)

    found = pipeline.evaluate(mixed, X, "gradient")
    assert "'mixed' calculates in bfloat16 somewhere" in caplog.text
    assert "the function calculates in bfloat16" in found.certificate.unchecked[0]
    assert close(found.gradient, weights.sum(0).expand_as(X), torch.bfloat16)


def test_weights_of_few_digits_make_no_function_of_few_digits(caplog):
    weights = torch.linspace(-1, 1, 5).half()
    found = pipeline.evaluate(lambda x: (x**2 * weights).sum(), X, "gradient")
    assert "calculates in" not in caplog.text
    torch.testing.assert_close(found.gradient, 2 * X * weights.double())


@pytest.mark.parametrize("dtype", HALVES)
def test_a_result_that_is_off_by_half_disagrees_and_one_off_by_roundings_does_not(dtype):
    precision = PRECISIONS[str(dtype).removeprefix("torch.")]
    points = X.to(dtype).float()
    request = Request(precision.function(wave), points[0], (), (1, 2), evaluated_in=precision)
    oracle = build_oracle(request, points)
    right = [wave_gradient(points.double()), wave_hessian(points.double())]
    for factor, agrees in ((1.0, True), (1 + 4 * precision.epsilon, True), (1.5, False)):
        deviations = oracle.compare([factor * level for level in right])
        assert [deviation.excess <= 1 for deviation in deviations.values()] == [agrees] * 2


def test_a_backward_pass_that_is_wrong_in_half_precision_is_said(caplog):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * x.cos() * (2.0 if x.dtype == torch.float16 else 1.0)

    pipeline.evaluate(lambda x: Wrong.apply(x).sum(), X.half(), "gradient", route="loop")
    assert "they are off by 1e+00 relative" in caplog.text


@pytest.mark.parametrize("given", [{"route": "finite_difference"}, {"finite_differences": True}])
def test_differences_of_values_are_refused(given):
    with pytest.raises(ConfigurationError, match="dtype=float16 leaves no digits for differences"):
        pipeline.evaluate(wave, X.half(), "gradient", **given)


def test_the_scalar_route_is_refused():
    with pytest.raises(DisagreementError, match=r"it calculates in torch\.float16"):
        pipeline.evaluate(wave, X.half(), "hessian", route="scalar")


def test_what_torch_cannot_do_in_half_precision_is_refused():
    with pytest.raises(FunctionError, match="not implemented for 'Half'"):
        pipeline.evaluate(lambda x: torch.linalg.det(torch.diag(x)), X.half(), "gradient")


def test_an_evaluator_takes_points_of_half_precision():
    evaluator = pipeline.prepare(wave, X.half(), "gradient")
    torch.testing.assert_close(evaluator(X.half()), evaluator(X.half().float()), **EXACT)
    with pytest.raises(pipeline.PipelineError, match=r"prepared for torch\.float32"):
        evaluator(X)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_stored_result_says_how_it_was_evaluated_and_is_verified(tmp_path, dtype):
    name = str(dtype).removeprefix("torch.")
    results = pipeline.run(wave, X, ["gradient", "hessian"], dtype=name, output_dir=tmp_path)
    with results, h5py.File(results.path) as file:
        for dataset in ("x", "gradient", "hessian"):
            assert file[dataset].dtype == np.float32
            assert file[dataset].attrs["evaluated_in"] == name
        assert file["provenance/dtype"].asstr()[()] == name
        assert json.loads(file["provenance/identity_json"].asstr()[()])["dtype"] == name
        assert np.array_equal(file["x"][:], X.to(dtype).float().numpy())
        assert close(
            torch.from_numpy(file["hessian"][:]), wave_hessian(X.to(dtype).double()), dtype
        )
        path = results.path
    checked = pipeline.verify(path, function=wave)
    assert not checked.faults
    assert any("compared with loop" in fact for fact in checked.facts)
    again = pipeline.run(wave, X, ["gradient", "hessian"], dtype=name, output_dir=tmp_path)
    assert again.path == path
    wide = pipeline.run(wave, X, ["gradient", "hessian"], dtype="float32", output_dir=tmp_path)
    assert wide.path != path
    with h5py.File(wide.path) as file:
        assert "evaluated_in" not in file["x"].attrs


@pytest.mark.slow
def test_a_job_of_the_command_line_in_half_precision(cli, tmp_path):
    done = cli("job=gradient", "function=ackley", "grid.count=4", "dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("result.h5")
    with h5py.File(path) as file:
        assert file["gradient"].attrs["evaluated_in"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
def test_compiled_in_half_precision(dtype):
    found = pipeline.evaluate(wave, X.to(dtype), "hessian", route="compiled")
    assert close(found.hessian, wave_hessian(X.to(dtype).double()), dtype)


def test_the_tolerances_of_half_precision_are_some_roundings_and_far_from_one():
    for precision in PRECISIONS.values():
        assert 8 * precision.epsilon <= precision.tolerance < 0.1


def test_nothing_is_warned_of_what_is_usual(caplog):
    with caplog.at_level(logging.WARNING):
        pipeline.evaluate(wave, X.half(), "gradient")
    assert caplog.text == ""
