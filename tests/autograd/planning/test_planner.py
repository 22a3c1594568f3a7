"""The planner: what it chooses, what it refuses, and what it finds wrong."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from support.custom_functions import WrongBackward

from pipeline.autograd.checks.oracle import build_oracle
from pipeline.autograd.evaluated import FAILED, NONFINITE, OK
from pipeline.autograd.functions.probe import probe_indices
from pipeline.autograd.memory import Meter, OverBudgetError, available_bytes, power_of_two
from pipeline.autograd.methods.extrapolation import ridders
from pipeline.autograd.packing import symmetry_residual
from pipeline.autograd.planning.asked import Asked, Wanted
from pipeline.autograd.planning.option_faults import check_options
from pipeline.autograd.planning.planner import prepare
from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES, VmapRoute
from pipeline.errors import (
    ConfigurationError,
    DisagreementError,
    FunctionError,
    MemoryBudgetError,
    PipelineError,
)
from pipeline.job import Options

POINTS = torch.tensor(
    [[0.3, -0.8, 1.2], [1.1, 0.4, -0.6], [0.0, 0.0, 0.0], [-1.2, 0.7, 2.0], [0.5, 0.5, 0.1]]
).double()


def plan(f, *operators, points=POINTS, order=None, shape=None, count=100, **options):
    asked = Asked(f, f.__name__, Wanted(operators or ("hessian",), order), shape)
    return prepare(asked, points, Options(**options), count)


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def branch(x):
    return x[0] ** 2 * x[1] if x[0] > 0 else x[1] ** 3


def half_detached(x):
    return (x.detach() * x).sum()


def gaussian_of_norm(x):
    return torch.exp(-(x.norm() ** 2))


def noisy(x):
    return (x * torch.rand(1, dtype=x.dtype)).sum()


def wrong_backward(x):
    return WrongBackward.apply(x).sum()


def test_takes_the_vectorised_route_and_says_how_well_it_agrees():
    evaluator = plan(rosenbrock, "all")
    assert evaluator.plan.route == "vmap"
    certificate = evaluator.certificate
    assert certificate.points_checked == 5
    assert set(certificate.reference_error) == {"value", "gradient", "hessian"}
    assert max(certificate.reference_error.values()) < 1e-14
    assert 0 < certificate.finite_difference_residual < 1e-8
    assert certificate.finite_difference_checks == 10
    assert certificate.symmetry_residual < 1e-15


def test_the_evaluator_is_called_bare():
    evaluator = plan(rosenbrock, "hessian")
    assert evaluator(torch.ones(1, 3).double()).tolist() == [
        [[802, -400, 0], [-400, 1002, -400], [0, -400, 200]]
    ]
    assert evaluator(torch.ones(0, 3).double()).shape == (0, 3, 3)


def test_the_evaluator_lists_all_that_does_not_fit():
    evaluator = plan(rosenbrock)
    with pytest.raises(
        PipelineError,
        match=r"shape: prepared for \(B, 3\), got \(4,\).*dtype: prepared for torch.float64",
    ):
        evaluator(torch.ones(4))
    with pytest.raises(PipelineError, match="expected a tensor of shape"):
        evaluator([[1.0, 2.0, 3.0]])


def test_falls_back_to_the_loop_and_says_why():
    evaluator = plan(branch)
    assert evaluator.plan.route == "loop"
    assert "data-dependent control flow" in evaluator.plan.refused["vmap rev_over_rev"]


def test_text_made_of_values_is_that_of_each_point():
    def f(x):
        return x.prod() if "-" in repr(x[0].detach()) else (x**3).sum()

    points = torch.linspace(1, 2, 120, dtype=torch.float64).reshape(40, 3)
    evaluator = plan(f, "hessian", points=points[[0, 20, 39]])
    assert evaluator.plan.route == "loop"
    assert "makes text of values" in str(evaluator.plan.refused)
    found = evaluator(torch.tensor([[-1.0, 2.0, 3.0]], dtype=torch.float64))[0]
    assert found.tolist() == [[0, 3, 2], [3, 0, -1], [2, -1, 0]]


def test_a_route_that_is_silently_wrong_is_not_used():
    points = torch.zeros(1, 3).double()
    evaluator = plan(gaussian_of_norm, points=points)
    hessian = evaluator(points)
    assert hessian.isnan().any() or torch.allclose(hessian[0], -2 * torch.eye(3).double())
    with pytest.raises(DisagreementError, match="differs from the reference"):
        plan(gaussian_of_norm, points=points, route="vmap", mode="fwd_over_rev")


@pytest.mark.parametrize("f", [half_detached, wrong_backward])
def test_wrong_derivatives_are_found_by_finite_differences(f):
    with pytest.raises(DisagreementError, match="automatic and finite differences differ"):
        plan(f, "gradient")


def test_a_disagreement_can_be_let_pass(caplog):
    with caplog.at_level(logging.WARNING):
        evaluator = plan(half_detached, "gradient", on_disagreement="warn")
    assert "disagreement let pass" in caplog.text
    assert evaluator.certificate.disagreements


def test_randomness_is_refused():
    with pytest.raises(FunctionError, match="returns two values at one point.*It is random"):
        plan(noisy, "gradient")


@pytest.mark.parametrize("f", [torch.relu, torch.abs])
def test_kinks_on_the_grid_are_no_disagreement(f):
    def kinked(x):
        return f(x).sum()

    assert plan(kinked, "gradient").certificate.finite_difference_checks > 0


def test_a_gradient_at_a_minimum_is_no_disagreement():
    def bowl(x):
        return ((x - 0.1) ** 2 * torch.cos(x - 0.1)).sum()

    x = torch.full((1, 3), 0.1).double() + 1e-17
    assert max(plan(bowl, "all", points=x).certificate.reference_error.values()) < 1e-6


def test_single_precision_is_compared_with_double():
    evaluator = plan(rosenbrock, "all", points=POINTS.float())
    assert evaluator.plan.dtype == torch.float32
    assert evaluator.certificate.reference.endswith("float64")
    assert 0 < evaluator.certificate.rounding_error < 1e-5
    assert evaluator(POINTS.float())["hessian"].dtype == torch.float32


def test_a_function_that_knows_only_float32_is_compared_with_itself():
    weights = torch.tensor([1.0, -2.0, 0.5])

    def single(x):
        return torch.mv(weights[None], x).sum() ** 2

    evaluator = plan(single, points=POINTS.float())
    assert evaluator.certificate.reference.endswith("float32")
    assert "cannot be evaluated in float64" in evaluator.certificate.unchecked[0]


def test_large_results_are_compared_along_directions():
    def wide(x):
        return torch.arange(20_000, dtype=x.dtype) * x[0] * x[1] ** 2 * x[2]

    evaluator = plan(wide, "hessian", count=10)
    assert "contracted" in evaluator.certificate.reference
    assert evaluator.plan.mode == "fwd_over_fwd"


def test_contraction_finds_one_wrong_entry():
    request = Request(
        lambda x: torch.arange(5000, dtype=x.dtype) * x.prod(),
        torch.ones(3).double(),
        (5000,),
        (1, 2),
    )
    oracle = build_oracle(request, POINTS)
    levels = ROUTES["vmap"].prepare(request, "fwd_over_fwd", 3, 8)(POINTS)
    assert all(found.excess < 1 for found in oracle.compare(levels).values())
    levels[1][3, 4000, 0, 1] *= 1 + 1e-4
    deviations = oracle.compare(levels)
    assert deviations[1].excess < 1
    assert deviations[2].excess > 1


@pytest.mark.parametrize("wrong", [1, 5, 64], ids=["alone", "the points tried", "a whole batch"])
def test_a_route_that_is_wrong_at_one_size_of_a_batch_is_refused(wrong, monkeypatch):
    class Wrong(VmapRoute):
        name = "wrong"

        def prepare(self, request, mode, chunk, batch):
            right = super().prepare(request, mode, chunk, batch)
            return lambda points: tuple(
                level * (1 + 1e-6 * (len(points) == wrong)) for level in right(points)
            )

    monkeypatch.setitem(ROUTES, "wrong", Wrong())
    asked = Asked(lambda x: (x**3).sum(), "cubes", Wanted(("hessian",)))
    points = torch.linspace(0.5, 1.5, 10, dtype=torch.float64).reshape(5, 2)
    options = Options(route="wrong", batch=64)
    with pytest.raises(
        DisagreementError, match=r"order 0 differs from the reference .* by 1.0e-06"
    ):
        prepare(asked, points, options, count=1000)
    assert prepare(asked, points, replace(options, route="vmap"), count=1000).plan.batch == 64


def test_memory_is_measured():
    ones = torch.ones(1000).double()
    with Meter() as meter:
        ones * 2 + 1
    assert meter.peak == 16_000
    with pytest.raises(OverBudgetError), Meter(10_000):
        ones.repeat(100)
    assert [power_of_two(n) for n in (1, 2, 3, 1023)] == [1, 2, 2, 512]


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/a/b\n", {"a/memory.max": 900, "a/memory.current": 500, "a/b/memory.max": "max"}, 400),
        ("0::/a/b\n", {"a/b/memory.max": 9, "a/b/memory.current": 10, "memory.max": 99}, 0),
        ("0::/not/seen/here\n", {"memory.max": 900, "memory.current": 500}, 400),
        (
            "2:cpu:/x\n1:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": 900, "memory/a/memory.usage_in_bytes": 800,
                "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 300",
            },
            400,
        ),
        ("", {"memory.max": 900, "memory.current": 500}, None),
    ],
    ids=["one around it", "exceeded", "of a container", "version 1, copies of files", "none"],
)  # fmt: skip
def test_limits_of_control_groups_count(own, files, left, tmp_path, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    (tmp_path / "own").write_text(own)
    machine = available_bytes(torch.device("cpu"))
    monkeypatch.setattr("pipeline.autograd.memory.CGROUPS", tmp_path)
    monkeypatch.setattr("pipeline.autograd.memory.OWN_CGROUPS", tmp_path / "own")
    found = available_bytes(torch.device("cpu"))
    assert found > machine / 2 if left is None else found == left


@pytest.mark.parametrize(
    "given",
    [
        {"SLURM_MEM_PER_NODE": "64"},
        {"SLURM_MEM_PER_CPU": "32", "SLURM_CPUS_ON_NODE": "2"},
        {"SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "64", "SLURM_CPUS_ON_NODE": "1"},
    ],
)
def test_what_slurm_has_given_counts(given, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert available_bytes(torch.device("cpu")) == 64 << 20


def test_directions_are_chunked_to_fit_the_budget():
    def dense(x):
        return torch.sin(torch.outer(x, x)).sum()

    points = torch.randn(2, 40, generator=torch.Generator().manual_seed(0)).double()
    free = plan(dense, points=points, count=100)
    tight = plan(dense, points=points, count=100, memory=free.plan.cost.point_bytes // 4)
    assert free.plan.chunk == 40
    assert tight.plan.chunk < 40
    assert tight.plan.batch < free.plan.batch
    assert torch.allclose(tight(points), free(points), rtol=1e-12)
    with pytest.raises(
        MemoryBudgetError, match="one point with chunk=1 needs more than the memory budget"
    ):
        plan(dense, points=points, memory=10_000)


def test_one_bad_point_fails_alone():
    def fussy(x):
        if x[0] > 1.0:
            raise ValueError("too far")
        return x[0] ** 2 + x[1].sqrt() + x[2]

    points = POINTS.abs() + 0.1
    points = torch.cat([points, torch.tensor([[0.5, -1.0, 0.0]]).double()])
    found = plan(fussy, "all", points=points[:1]).guarded(points)
    assert found.status.tolist() == [OK, FAILED, OK, FAILED, OK, NONFINITE]
    assert found.failures == {1: "ValueError: too far", 3: "ValueError: too far"}
    assert found.datasets["hessian"][1].isnan().all()
    assert found.datasets["gradient"][0, 0] == 2 * points[0, 0]


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: float(x.sum()), "has to return a torch.float64 tensor.*got float"),
        (lambda x: x.sum().to(torch.complex128), r"torch.complex128.*view_as_real\(y\)"),
        (lambda x: None, "got NoneType None; is its return missing"),
        (lambda x: torch.ones(3) @ x, "takes points of float32: dtype=float32, or convert what it holds"),
        (lambda x: x.sum().int(), "torch.int32"),
        (lambda x: x.sum().float(), r"torch.float32.*dtype=x.dtype"),
        (lambda x: torch.outer(x, x), r"shape \(3, 3\).*flatten"),
        (lambda x: x[:0], r"shape \(0,\)"),
        (lambda x: x.missing, "raised at all 5 points tried.*AttributeError"),
        (lambda x: x.mul_(2).sum(), "changes its input in place"),
    ],
)  # fmt: skip
def test_functions_that_cannot_be_differentiated(f, message):
    with pytest.raises(FunctionError, match=message):
        plan(f)


def test_a_declared_shape_is_kept():
    with pytest.raises(
        FunctionError, match=r"has to return shape \(2,\) for n = 3 inputs, got \(3,\)"
    ):
        plan(torch.sin, "jacobian", shape=(2,))


def test_options_are_checked():
    faults = check_options(
        Options(route="vmpa", on_disagreement="shrug", batch=0, mode="fwd"), order=2
    )
    assert len(faults) == 4
    assert "route 'vmpa' is unknown. Did you mean 'vmap'?" in faults[0]
    with pytest.raises(
        ConfigurationError,
        match="route 'loop' has no mode 'fwd_over_rev': expected one of rev_over_rev",
    ):
        plan(rosenbrock, route="loop", mode="fwd_over_rev")


def test_probes_come_from_all_over_the_grid():
    assert probe_indices(1) == [0]
    assert probe_indices(2) == [0, 1]
    assert probe_indices(10**9)[-1] == 10**9 - 1


def test_ridders_estimates_its_own_error():
    estimate = ridders(lambda t: math.sin(1.0 + t), 0.01)
    exact = math.cos(1.0)
    assert abs(estimate.value - exact) <= 10 * estimate.error + 1e-14
    assert estimate.error < 1e-10


def test_symmetry_residual():
    level = torch.tensor([[[1.0, 2.0], [2.5, 4.0]]])
    assert symmetry_residual(level, 2) == pytest.approx(0.125)
    assert symmetry_residual(level, 1) is None


def test_memory_that_runs_out_is_remembered(caplog):
    evaluator = plan(lambda x: (x**3).sum(), "gradient")
    asked = []

    def evaluate(points):
        asked.append(len(points))
        if len(points) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (points**3).sum(1), 3 * points**2

    evaluator._calls = replace(evaluator._calls, evaluate=evaluate)
    points = torch.linspace(1, 2, 30, dtype=torch.float64).reshape(10, 3)
    for expected in ([10, 5, 2, 3, 2, 3], [2, 3, 2, 3]):
        asked.clear()
        found = evaluator.guarded(points)
        assert asked == expected
        assert found.status.tolist() == [OK] * 10
        torch.testing.assert_close(found.datasets["gradient"], 3 * points**2)
    assert "memory ran out with 10 points at once: going on with 5" in caplog.text


def test_a_fault_of_the_route_alone_is_not_the_functions(caplog):
    evaluator = plan(lambda x: (x**3).sum(), "gradient")
    broken = replace(evaluator._calls, evaluate=_raise)
    evaluator._calls = broken
    found = evaluator.guarded(POINTS)
    assert found.status.tolist() == [OK] * len(POINTS)
    torch.testing.assert_close(found.datasets["gradient"], 3 * POINTS**2)
    assert "raised at a point where the reference does not" in caplog.text


def _raise(points):
    raise RuntimeError("a driver's error")
