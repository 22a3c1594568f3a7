"""The Python door."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import pipeline
from pipeline.errors import ConfigurationError, FunctionError, MemoryBudgetError
from pipeline.grids.product import Axis, ProductGrid

X = torch.tensor([[0.3, -0.8], [1.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)


def cubes(x):
    return (x**3).sum()


def test_import_costs_no_torch():
    code = "import sys, pipeline; dir(pipeline); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_documented():
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pipeline.nothing  # noqa: B018


def test_evaluate_names_its_results_like_the_datasets():
    result = pipeline.evaluate(cubes, X, ["value", "gradient", "hessian", "derivative"], order=3)
    assert torch.allclose(result.gradient, 3 * X**2)
    assert torch.allclose(result.hessian, torch.diag_embed(6 * X))
    assert result.derivative_3.shape == (3, 2, 2, 2)
    assert result.derivative_3[0, 1, 1, 1] == 6
    assert result.status.tolist() == [1, 1, 1]
    assert torch.equal(result.x, X)
    assert "hessian" in dir(result)
    with pytest.raises(AttributeError, match="nothing named 'jacobian' was evaluated"):
        result.jacobian  # noqa: B018


def test_prepare_gives_a_bare_evaluator():
    evaluator = pipeline.prepare("rosenbrock", X, "hessian")
    assert torch.equal(
        evaluator(X[1:2])[0], torch.tensor([[802.0, -400.0], [-400.0, 200.0]]).double()
    )
    assert evaluator._request.orders == (2,)  # no value, which only a verdict on points needs
    both = pipeline.prepare(cubes, X, ("value", "gradient"))(X)
    assert set(both) == {"value", "gradient"}


def test_dtype_follows_the_points():
    assert pipeline.evaluate(cubes, X.float(), "gradient").gradient.dtype == torch.float32
    assert pipeline.evaluate(cubes, X.numpy(), "gradient").gradient.dtype == torch.float64
    assert (
        pipeline.evaluate(cubes, [[1, 2]], "gradient", dtype="float32").gradient.dtype
        == torch.float32
    )


def test_parameters_of_a_plugin():
    result = pipeline.evaluate("rosenbrock", X, "value", parameters={"b": 0.0})
    assert torch.allclose(result.value, (1 - X[:, 0]) ** 2)
    with pytest.raises(ConfigurationError, match="parameters.c is unknown"):
        pipeline.evaluate("rosenbrock", X, "value", parameters={"c": 0.0})
    with pytest.raises(ConfigurationError, match="functools.partial"):
        pipeline.evaluate(cubes, X, "value", parameters={"c": 0.0})


def test_bad_points_are_flagged_not_dropped():
    result = pipeline.evaluate(
        lambda x: x.log().sum(), torch.tensor([[1.0], [0.0], [-1.0]]).double(), "gradient"
    )
    assert result.status.tolist() == [1, 2, 2]
    assert result.gradient[0] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pipeline.evaluate(cubes, X, "hesian"), "operator 'hesian' is unknown"),
        (
            lambda: pipeline.evaluate(cubes, X, rout="vmap"),
            "keyword 'rout' is unknown. Did you mean 'route'",
        ),
        (lambda: pipeline.evaluate(cubes, X, route="fast"), "route 'fast' is unknown"),
        (lambda: pipeline.evaluate(cubes, X, dtype="int8"), "dtype 'int8' cannot be used"),
        (lambda: pipeline.evaluate(cubes, X, device="tpu"), "device 'tpu' is unknown"),
        (lambda: pipeline.evaluate(3, X), "expected a torch function, a name or a Function record"),
        (lambda: pipeline.evaluate("nothing", X), "function 'nothing' is unknown"),
        (lambda: pipeline.evaluate("wood", X), "takes n = 4 inputs; the points have n = 2"),
        (lambda: pipeline.evaluate(cubes, X[0]), r"expected shape \(N, n\)"),
        (lambda: pipeline.evaluate(cubes, X[:0]), "at least one point"),
        (lambda: pipeline.evaluate(cubes, X * torch.nan), "has to be finite"),
        (lambda: pipeline.evaluate(cubes, "points"), "points"),
        (lambda: pipeline.evaluate(cubes, X + 0j), "complex"),
        (
            lambda: pipeline.evaluate(lambda x: x.sum(dim=1), X),
            r"takes a batch \(N, n\), and is asked",
        ),
        (
            lambda: pipeline.evaluate(lambda x: sys.exit(3), X),
            r"the function ends the program, sys.exit\(3\)",
        ),
        (
            lambda: torch.func.vmap(lambda a: pipeline.evaluate(cubes, X).hessian * a)(
                torch.ones(2)
            ),
            "asked for inside of a function that torch.func transforms",
        ),
    ],
)
def test_faults(call, message):
    with pytest.raises(pipeline.PipelineError, match=message):
        call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there():
    with pytest.raises(ConfigurationError, match="sees 0 CUDA devices"):
        pipeline.evaluate(cubes, X, device="cuda")


def test_a_result_that_does_not_fit_into_memory_is_refused():
    grid = pipeline.registry.build_registry().grid("random").build(pipeline.Space(2), count=10**12)
    with pytest.raises(MemoryBudgetError, match="pipeline.run"):
        pipeline.evaluate(cubes, grid)


def test_run_stores_and_finds_again(tmp_path):
    first = pipeline.run(cubes, X, ("value", "hessian"), output_dir=tmp_path)
    with first as results:
        assert np.array_equal(results.hessian[:], torch.diag_embed(6 * X).numpy())
        path = results.path
    stamp = path.stat().st_mtime_ns
    with pipeline.run(cubes, X, ("value", "hessian"), output_dir=tmp_path) as again:
        assert again.path == path
        assert path.stat().st_mtime_ns == stamp


def test_what_a_closure_holds_makes_another_run(tmp_path):
    paths = set()
    for scale in (1.0, 2.0):
        with pipeline.run(
            lambda x, s=scale: s * cubes(x), X, "gradient", output_dir=tmp_path
        ) as results:
            assert np.allclose(results.gradient[:], scale * 3 * X.numpy() ** 2)
            paths.add(results.path)
    assert len(paths) == 2


@pytest.mark.parametrize("shard_rows", [None, 3])
def test_a_result_knows_the_axes_of_its_grid(tmp_path, shard_rows):
    grid = ProductGrid((Axis(0.0, 1.0, 3), Axis(-1.0, 1.0, 4)))
    stored = pipeline.run("rosenbrock", grid, "value", output_dir=tmp_path, shard_rows=shard_rows)
    assert [axis.tolist() for axis in stored.axes] == [axis.tolist() for axis in grid.axes]
    scattered = pipeline.run("rosenbrock", torch.ones(2, 2).double(), output_dir=tmp_path)
    assert scattered.axes == ()


def test_one_plugin_file_need_not_be_a_list(mine):
    assert pipeline.evaluate("chain", X, "value", plugins=mine).value.shape == (3,)
    assert pipeline.evaluate("chain", X, "value", plugins=str(mine)).value.shape == (3,)


@pytest.mark.parametrize("field", ["n", "output_shape"])
def test_a_plugin_that_cannot_tell_its_sizes(field):
    def broken(*_, **__):
        raise ZeroDivisionError("no size")

    record = pipeline.Function("broken", lambda: cubes, **{field: broken})
    with pytest.raises(
        FunctionError, match=f"function 'broken': its {field} raises.*ZeroDivisionError: no size"
    ):
        pipeline.evaluate(record, X)


def test_a_job_that_nothing_independent_confirms_says_so(caplog):
    class Opaque(torch.autograd.Function):
        """Rough in the small, and without forward mode."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.floor(1e12 * x) % 7

        @staticmethod
        def backward(ctx, g):
            return g

    pipeline.evaluate(lambda x: Opaque.apply(x).sum(), X, "gradient")
    assert "nothing independent confirms the derivatives" in caplog.text


def test_a_result_accounts_for_all_its_shards(tmp_path):
    def fussy(x):
        if x[0] > 0.9:
            raise ValueError("too far")
        return (x**2).sum()

    points = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(20, 2)
    stored = pipeline.run(
        fussy, points, "gradient", output_dir=tmp_path, shard_rows=6, route="loop"
    )
    assert json.loads(stored.provenance["failures_json"]) == {"19": "ValueError: too far"}
    (alone,) = json.loads(stored.provenance["circumstances_json"])
    assert alone["shards"] == 4
    assert alone["threads"] == torch.get_num_threads()
    assert stored.certificate["rows_checked"] == 4
    assert json.loads(stored.certificate["rows_error"])["gradient"] < 1e-14


def _gradient_of_cubes(points):
    return pipeline.evaluate(lambda x: (x**3).sum(), points, "gradient").gradient


def test_inference_mode_around_a_call_changes_nothing():
    with torch.inference_mode():
        evaluator = pipeline.prepare(lambda x: (x**3).sum(), X, "gradient")
        points = X.clone()
        found = _gradient_of_cubes(points), evaluator(points), evaluator(X)
    for gradient in found:
        torch.testing.assert_close(gradient, 3 * X**2)


def test_points_of_any_layout():
    torch.testing.assert_close(_gradient_of_cubes(X.to_sparse()), 3 * X**2)


def test_another_default_device_is_that_of_the_function_alone(tmp_path):
    """What is made on the default device of a program: the constants of its function, nothing of ours."""
    devices = set()

    def cubes_there(x):
        devices.add(torch.get_default_device().type)
        return (x**3).sum()

    before = torch.get_default_device()
    torch.set_default_device("meta")  # which holds no numbers: what is made there cannot be used
    try:
        found = pipeline.evaluate(cubes_there, X, ["gradient", "hessian"]).gradient
        stored = pipeline.run(cubes_there, X, "gradient", output_dir=tmp_path).gradient[:]
    finally:
        torch.set_default_device(before)
    torch.testing.assert_close(found, 3 * X**2)
    torch.testing.assert_close(torch.from_numpy(stored), 3 * X**2)
    assert devices == {"meta"}


class UnspeakableError(Exception):
    def __str__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "FunctionError: the function ends the program, sys.exit(3)"),
        (UnspeakableError(), "UnspeakableError: (its text cannot be shown)"),
    ],
)
def test_whatever_a_function_raises_costs_one_point(error, text):
    def fails_at_2(x):
        if x[0] == 2:
            raise error
        return (x**3).sum()

    points = torch.tensor([[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]], dtype=torch.float64)
    found = pipeline.evaluate(fails_at_2, points, "gradient")
    assert [status == 3 for status in found.status.tolist()] == [False, True, False]
    assert found.failures[1].startswith(text)
    torch.testing.assert_close(found.gradient[::2], 3 * points[::2] ** 2)


def test_results_stay_within_their_directory(tmp_path):
    def cubes_of(x):
        return (x**3).sum()

    cubes_of.__name__ = "../../a name"
    results = pipeline.run(cubes_of, X, "gradient", output_dir=tmp_path / "here")
    assert results.path.relative_to(tmp_path / "here" / "gradient" / "______a_name")
