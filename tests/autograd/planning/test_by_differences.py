"""Route `finite_difference`: values alone, against formulas; its own errors; and when it is taken."""

import math

import numpy as np
import pytest
import torch
from support.custom_functions import Once

import pipeline
from pipeline.autograd.methods.differences import difference
from pipeline.autograd.reference import derivatives
from pipeline.autograd.routes.finite_difference import difference_modes
from pipeline.errors import ConfigurationError, DisagreementError, FunctionError

DOUBLE = torch.float64
X = torch.tensor(
    [[0.3, -0.8, 1.2], [1.1, 0.4, -0.6], [0.7, 2.0, 0.9], [0.0, 0.0, 0.0]], dtype=DOUBLE
)
ROUTE = "finite_difference"


def smooth(x):
    return torch.exp(-(x[0] ** 2)) * torch.sin(x[1] + 2 * x[2]) + x[0] * x[2] ** 3


def in_numpy(x):
    a, b, c = x.detach().numpy()
    return torch.as_tensor(np.exp(-(a**2)) * np.sin(b + 2 * c) + a * c**3, dtype=x.dtype)


def two_in_numpy(x):
    x = x.detach().numpy()
    return torch.from_numpy(np.stack([np.prod(np.cos(x)), x[0] * np.exp(x[1])]))


@pytest.mark.parametrize(("order", "accuracy"), [(1, 1e-12), (2, 1e-10), (3, 1e-8)])
def test_accuracy_and_its_own_estimate(order, accuracy):
    for f in (smooth, lambda x: torch.stack([smooth(x), torch.log(2 + x.sum() ** 2)])):
        truth = derivatives(f, X[0], order)[order]
        found = difference(f, X[0], torch.ones(3, dtype=DOUBLE), order)
        error = (found.value - truth).abs()
        assert error.max() <= accuracy * truth.abs().max()
        assert (error <= 5 * found.error).all()
        assert found.error.max() <= 100 * accuracy * truth.abs().max()


def test_a_step_that_is_a_period_deceives_nobody():
    x, omega = torch.tensor([0.2], dtype=DOUBLE), 2 * math.pi / 0.055  # the first steps are periods
    found = difference(lambda x: torch.sin(omega * x[0]), x, torch.ones(1).double(), 1)
    assert math.isclose(float(found.value), omega * math.cos(omega * 0.2), rel_tol=1e-9)


def test_values_of_numpy():
    allowed = pipeline.evaluate(in_numpy, X, ["gradient", "hessian"], finite_differences=True)
    expected = pipeline.evaluate(smooth, X, ["gradient", "hessian"])
    assert (allowed.plan.route, allowed.plan.mode) == (ROUTE, "central_over_central")
    assert "Gradients are lost" not in allowed.plan.considered[0].verdict
    assert "automatic and finite differences differ" in allowed.plan.considered[0].verdict
    for name in ("gradient", "hessian"):
        gap = (allowed.datasets[name] - expected.datasets[name]).abs().max()
        assert gap <= 1e-10 * expected.datasets[name].abs().max()
        assert 0 < allowed.certificate.estimated_error[name] < 1e-9
        assert allowed.certificate.rows_error[name] < 1e-9
    assert allowed.status.tolist() == [1, 1, 1, 1]
    assert torch.equal(allowed.hessian, allowed.hessian.mT)


def test_several_outputs_and_sums():
    result = pipeline.evaluate(two_in_numpy, X[:3], ["jacobian", "hessian"], route=ROUTE)
    x, y = X[:3, 0], X[:3, 1]
    assert torch.allclose(result.jacobian[:, 1, 1], x * y.exp(), rtol=1e-11)
    assert torch.allclose(result.hessian[:, 1, 0, 1], y.exp(), rtol=1e-9)
    laplacian = pipeline.evaluate(in_numpy, X[:3], "laplacian", route=ROUTE).laplacian
    expected = pipeline.evaluate(smooth, X[:3], "laplacian").laplacian
    assert torch.allclose(laplacian, expected, rtol=1e-9)
    columns = pipeline.evaluate(in_numpy, X[:3], "gradient", route=ROUTE, wrt=[2]).gradient
    assert torch.allclose(
        columns[:, 0], pipeline.evaluate(smooth, X[:3], "gradient").gradient[:, 2]
    )


def test_what_torch_has_of_it_is_used():
    result = pipeline.evaluate(lambda x: Once.apply(x).sum(), X, "hessian", finite_differences=True)
    assert result.plan.mode == "central_over_rev"
    assert torch.allclose(result.hessian, torch.diag_embed(6 * X), rtol=1e-12, atol=1e-13)
    third = pipeline.evaluate(smooth, X[:2], "derivative", order=3, route=ROUTE)
    assert third.plan.mode == "central_over_rev_over_rev"
    assert torch.allclose(
        third.derivative_3,
        pipeline.evaluate(smooth, X[:2], "derivative", order=3).derivative_3,
        rtol=1e-9,
        atol=1e-10,
    )


def test_no_backward_at_all():
    def f(x):
        return (
            torch.special.bessel_j0(x).sum() + torch.special.gammainc(2 + x**2, 1 + x**2).sum() * 0
        )

    with pytest.raises(FunctionError, match="finite_differences=true"):
        pipeline.evaluate(f, X, "gradient")
    gradient = pipeline.evaluate(f, X, "gradient", finite_differences=True).gradient
    assert torch.allclose(gradient, -torch.special.bessel_j1(X), rtol=1e-11, atol=1e-12)


def test_never_unasked():
    with pytest.raises(
        DisagreementError, match="finite_differences=true takes differences of its values"
    ):
        pipeline.evaluate(in_numpy, X, "gradient")
    result = pipeline.evaluate(smooth, X, "gradient", finite_differences=True)
    assert result.plan.route != ROUTE
    assert not result.certificate.estimated_error


def sizes(x):
    return torch.from_numpy(np.abs(x.detach().numpy())).sum()


def jump(x):
    return torch.as_tensor(float(x[0] >= 0), dtype=DOUBLE) + (x.detach() ** 2).sum()


def sharp(x):
    return torch.from_numpy(x.detach().numpy() * np.abs(x.detach().numpy())).sum()


def test_kinks_and_jumps_are_flagged():
    points = torch.tensor([[0.5, 0.3], [0.0, 0.3], [-0.7, 1.0], [0.2, -0.9]], dtype=DOUBLE)
    result = pipeline.evaluate(sizes, points, "gradient", route=ROUTE)
    assert result.status.tolist() == [1, 4, 1, 1]
    assert torch.allclose(result.gradient[result.status == 1], points.sign()[result.status == 1])
    assert pipeline.evaluate(jump, points, "gradient", route=ROUTE).status.tolist() == [1, 4, 1, 1]
    assert pipeline.evaluate(sharp, points, "gradient", route=ROUTE).status.tolist() == [1] * 4
    assert pipeline.evaluate(sharp, points, "hessian", route=ROUTE).status.tolist() == [1, 4, 1, 1]


def test_what_raises_beside_a_point():
    def table(x):
        if x[0] < 0:
            raise ValueError("below the table")
        return torch.as_tensor(math.sqrt(float(x[0])) * float(x[1]), dtype=DOUBLE)

    points = torch.tensor([[0.001, 2.0], [1.0, 2.0], [-1.0, 2.0]], dtype=DOUBLE)
    result = pipeline.evaluate(table, points, "gradient", route=ROUTE)
    assert result.status.tolist() == [1, 1, 3]
    assert result.failures == {2: "ValueError: below the table"}
    expected = torch.stack([points[:2, 1] / 2 / points[:2, 0].sqrt(), points[:2, 0].sqrt()], 1)
    assert torch.allclose(result.gradient[:2], expected, rtol=1e-10)


def test_inputs_of_any_size():
    points = torch.tensor([[1e-10, 1e6], [3e-10, 2e6], [0.0, 3e6]], dtype=DOUBLE)

    def f(x):
        return torch.as_tensor(math.sin(1e10 * float(x[0])) * math.log(float(x[1])), dtype=DOUBLE)

    seen = pipeline.evaluate(f, points, "gradient", route=ROUTE).gradient
    a, b = 1e10 * points[:, 0], points[:, 1]
    expected = torch.stack([1e10 * a.cos() * b.log(), a.sin() / b], 1)
    assert torch.allclose(seen, expected, rtol=1e-9, atol=1e-18)


def test_float32_points_are_evaluated_in_float64():
    result = pipeline.evaluate(in_numpy, X.float(), "hessian", route=ROUTE)
    assert result.hessian.dtype == torch.float32
    expected = pipeline.evaluate(smooth, X.float().double(), "hessian").hessian
    assert torch.allclose(result.hessian.double(), expected, rtol=1e-6, atol=1e-6)


def test_what_has_no_derivative_is_refused():
    def steps(x):
        return torch.from_numpy(np.floor(7 * x.detach().numpy())).sum()

    with pytest.raises(DisagreementError, match="finite differences cannot be trusted either"):
        pipeline.evaluate(steps, X, "gradient", route=ROUTE)
    with pytest.raises(DisagreementError, match="not 1 times smooth at any of the points"):
        pipeline.evaluate(sizes, torch.zeros(2, 2, dtype=DOUBLE), "gradient", route=ROUTE)


def test_words():
    assert difference_modes(1) == ("central",)
    with pytest.raises(ConfigurationError, match="has no mode 'rev' of order 1: expected central"):
        pipeline.evaluate(smooth, X, "gradient", route=ROUTE, mode="rev")
    with pytest.raises(ConfigurationError, match="keeps results dense"):
        pipeline.evaluate(smooth, X, "hessian", route=ROUTE, format="sparse")


def test_a_stored_run(tmp_path):
    options = {"output_dir": tmp_path, "shard_rows": 2}
    with pipeline.run(in_numpy, X, "hessian", finite_differences=True, **options) as results:
        assert results.certificate["route"] == ROUTE
        assert "hessian" in results.certificate["estimated_error"]
        expected = pipeline.evaluate(smooth, X, "hessian").hessian
        assert torch.allclose(torch.from_numpy(results.hessian[:]), expected, rtol=1e-9, atol=1e-10)
    path = results.directory if hasattr(results, "directory") else next(tmp_path.glob("*/*/*/"))
    seen = pipeline.verify(path, function=in_numpy)
    assert not seen.faults
    assert any("central differences of values" in fact for fact in seen.facts)
    with pytest.raises(DisagreementError):  # nor are its numbers served to who did not allow them
        pipeline.run(in_numpy, X, "hessian", **options)
