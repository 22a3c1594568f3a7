"""What is spent on checks: less of everything where a function takes long, and it is said."""

import logging

import pytest
import torch

from pipeline.autograd.checks import effort
from pipeline.autograd.checks.effort import affordable, fits_entry_by_entry, one_pass
from pipeline.autograd.checks.oracle import build_oracle
from pipeline.autograd.cost import Cost
from pipeline.autograd.planning import choice
from pipeline.autograd.planning.asked import Asked, Wanted
from pipeline.autograd.planning.choice import Draft, Study, _cannot_pay, choose
from pipeline.autograd.planning.planner import prepare
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.routes.scalar import derive
from pipeline.job import Options

POINTS = torch.linspace(-1, 1, 25, dtype=torch.float64).reshape(5, 5)
WEIGHTS = torch.linspace(-1, 1, 100, dtype=torch.float64).reshape(20, 5)


def wide(x):
    return torch.sin(WEIGHTS @ x)


def request(f=wide, shape=(20,), orders=(0, 1)):
    return Request(f, POINTS[0], shape, orders)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(effort, "CHECKING_SECONDS", 1e-4)


def test_a_longer_function_is_predicted_to_take_longer():
    def tenfold(x):
        for _ in range(10):
            x = torch.sin(x)
        return wide(x)

    assert 0 < 2 * one_pass(request()).seconds < one_pass(request(tenfold)).seconds


def test_what_torch_cannot_differentiate_is_left_for_others_to_refuse():
    def refusing(x):
        if x.requires_grad:
            raise RuntimeError("no derivative")
        return wide(x)

    assert one_pass(request(refusing)).seconds == 0


def test_a_short_function_is_checked_at_every_point_and_entry_by_entry():
    assert len(affordable(request(), POINTS)) == 5
    assert build_oracle(request(), POINTS).view.weights is None


def test_a_long_function_is_checked_at_fewer_points(impatient, caplog):
    caplog.set_level(logging.INFO)
    assert torch.equal(affordable(request(), POINTS), POINTS[:2])
    assert "it is checked at 2 points of 5" in caplog.text
    assert torch.equal(affordable(request(), POINTS[:1]), POINTS[:1])


def test_a_long_function_is_compared_along_random_directions(impatient):
    assert not fits_entry_by_entry(request(), POINTS, 20)
    assert fits_entry_by_entry(request(), POINTS, 3)  # hardly more than a contraction
    assert build_oracle(request(), POINTS).view.weights is not None


def test_a_plan_of_a_long_function_says_what_was_checked_and_is_right(impatient):
    evaluator = prepare(Asked(wide, "wide", Wanted(("jacobian",))), POINTS, Options(), count=5)
    assert evaluator.certificate.points_checked == 2
    assert "random directions" in evaluator.certificate.reference
    expected = torch.cos(POINTS @ WEIGHTS.T)[:, :, None] * WEIGHTS
    assert torch.allclose(evaluator(POINTS), expected, rtol=1e-13, atol=1e-13)


def study(count):
    bare = request()
    return Study(bare, POINTS, Options(), count, None)


def test_a_long_derivative_is_evaluated_at_fewer_points_and_the_certificate_says_so(monkeypatch):
    monkeypatch.setattr(choice, "TRIAL_SECONDS", 0.0)
    trial = choose(study(1), build_oracle(request(), POINTS)).trial
    assert (trial.widths, trial.points) == ((1,), 1)
    options = Options(batch=1)
    evaluator = prepare(Asked(wide, "wide", Wanted(("jacobian",))), POINTS, options, count=5)
    assert evaluator.certificate.points_checked == 1
    monkeypatch.undo()
    evaluator = prepare(Asked(wide, "wide", Wanted(("jacobian",))), POINTS, options, count=5)
    assert (evaluator.certificate.points_checked, evaluator.certificate.widths_checked) == (5, (1,))


def test_no_compiler_is_asked_where_products_take_most_of_the_time():
    def found(part):
        bare = study(10**6)
        taken = Cost(1, 8, 0, 1000, 0.0, 0.0, 1e-3, part * 1e-3)
        draft = Draft(ROUTES["vmap"], "rev", taken, 1, taken.seconds(10**6, 1))
        return _cannot_pay(bare, ROUTES["compiled"], "rev", [draft])

    assert (
        found(0.9)
        == "most of the time is that of matrix products, and preparing it takes about 40 s"
    )
    assert found(0.4) == ""


def test_the_scalar_route_does_not_trace_large_products():
    large = torch.ones(800, 800, dtype=torch.float64)
    bare = Request(lambda x: (large @ x.sum().expand(800)).sum(), POINTS[0], (), (0, 1))
    with pytest.raises(
        RefusedError, match="its matrix products take 1.3e\\+06 operations, far more than"
    ):
        derive(bare)
