"""jvp, vjp and hvp: directions from the configuration, drawn, or from a file, for all points or each."""

import json
import shutil

import numpy as np
import pytest
import torch

import pipeline
from pipeline import open_results
from pipeline.autograd.reference import derivatives
from pipeline.errors import ConfigurationError, GridError
from pipeline.grids.points import PointsGrid

GENERATOR = torch.Generator().manual_seed(5)
POINTS = torch.rand(11, 4, generator=GENERATOR, dtype=torch.float64) + 0.3
V = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
EACH = torch.randn(11, 4, generator=GENERATOR, dtype=torch.float64)
W = torch.randn(11, 3, generator=GENERATOR, dtype=torch.float64)


def scalar(x):
    return torch.sin(x[0] * x[1]) + torch.exp(-x[2]) * x[3] ** 3


def vector(x):
    return torch.stack([scalar(x), (x**3).sum() * x[0], x[1] / x[2]])


def branching(x):
    return vector(x) if x[0] > 0.8 else vector(x) ** 2


def levels(f, order):
    return torch.stack([derivatives(f, point, order)[order] for point in POINTS])


def dense(f, name, directions):
    rows = directions.expand(11, -1)
    if name == "vjp":
        return torch.einsum("bm,bmi->bi", rows, levels(f, 1))
    return torch.einsum("b...i,bi->b...", levels(f, 2 if name == "hvp" else 1), rows)


CASES = [
    (scalar, "jvp", V), (scalar, "hvp", V), (scalar, "jvp", EACH), (scalar, "hvp", EACH),
    (vector, "jvp", V), (vector, "vjp", W[0]), (vector, "hvp", V),
    (vector, "jvp", EACH), (vector, "vjp", W), (vector, "hvp", EACH),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("route", ["loop", "vmap", pytest.param("scalar", marks=pytest.mark.slow)])
def test_every_route_is_the_dense_product(route, case):
    f, name, directions = CASES[case]
    found = pipeline.evaluate(
        f, POINTS, ["value", name], directions=directions, route=route, batch=4
    )
    torch.testing.assert_close(found.datasets[name], dense(f, name, directions))
    torch.testing.assert_close(found.value, torch.stack([f(point) for point in POINTS]))
    assert found.x.shape == POINTS.shape
    assert found.certificate.rows_error[name] < 1e-12


@pytest.mark.parametrize("mode", ["fwd_over_rev", "fwd_over_fwd", "rev_over_fwd"])
def test_modes(mode):
    found = pipeline.evaluate(vector, POINTS, "hvp", directions=EACH, route="vmap", mode=mode)
    torch.testing.assert_close(found.hvp, dense(vector, "hvp", EACH))


def test_functions_that_branch():
    for name, given in (("jvp", EACH), ("vjp", W), ("hvp", EACH)):
        found = pipeline.evaluate(branching, POINTS, name, directions=given)
        assert found.plan.route == "loop"
        torch.testing.assert_close(found.datasets[name], dense(branching, name, given))


def test_float32_and_some_columns():
    points, given = POINTS.float(), EACH[:, :2].float()
    found = pipeline.evaluate(vector, points, "hvp", directions=given, wrt=[3, 1])
    assert found.hvp.dtype == torch.float32
    hessians = levels(vector, 2)[:, :, [3, 1]][..., [3, 1]]
    expected = torch.einsum("bmij,bj->bmi", hessians, EACH[:, :2]).float()
    torch.testing.assert_close(found.hvp, expected, rtol=1e-4, atol=1e-4)


def test_bare_calls():
    evaluator = pipeline.prepare(scalar, POINTS, "hvp", directions=V)
    for count in (0, 1, 5):
        assert evaluator(POINTS[:count]).shape == (count, 4)
    torch.testing.assert_close(evaluator(POINTS), dense(scalar, "hvp", V))


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ("hvp", None, "hvp is taken along a direction, and none is given; give directions=random"),
        ("hvp", V[:3], "hvp needs directions of 4 entries, one for each variable, got 3"),
        ("vjp", V, "vjp needs directions of 3 entries, one for each output, got 4"),
        ("jacobian", V, "directions are given, and jacobian takes none; leave them out"),
    ],
)
def test_directions_that_do_not_fit(names, given, message):
    with pytest.raises(ConfigurationError, match=message):
        pipeline.evaluate(vector, POINTS, names, directions=given)


def test_other_faults():
    with pytest.raises(ConfigurationError, match="vjp needs a function with several outputs"):
        pipeline.evaluate(scalar, POINTS, "vjp", directions=V[:1])
    with pytest.raises(GridError, match="one for all points, or one for each of the 11, got 3"):
        pipeline.evaluate(scalar, POINTS, "hvp", directions=EACH[:3])
    with pytest.raises(GridError, match="every coordinate has to be finite"):
        pipeline.evaluate(scalar, POINTS, "hvp", directions=V / 0)


@pytest.mark.slow
@pytest.mark.parametrize("given", [EACH, V], ids=["each", "common"])
def test_a_run_keeps_its_directions(given, tmp_path):
    keywords = {"directions": given, "output_dir": tmp_path, "shard_rows": 4}
    with pipeline.run(vector, POINTS, ["hvp", "value"], **keywords) as results:
        expected, path = results.hvp[:], results.path
        assert results.x.shape == POINTS.shape
        assert results.hvp.dims == ("point", "output", "input")
        if given is EACH:
            assert np.array_equal(results.direction[:], EACH.numpy())
            assert results.direction.dims == ("point", "input")
        else:
            assert np.array_equal(results.common_direction, V.numpy())
        assert results.axes == ()
    assert pipeline.verify(path, function=vector).faults == ()
    path.unlink()
    (path.parent / "shards" / "shard-00001.h5").unlink()
    with pipeline.run(vector, POINTS, ["hvp", "value"], **keywords) as again:
        assert again.path == path
        assert np.array_equal(again.hvp[:], expected)
    keywords["directions"] = given + 1
    with pipeline.run(vector, POINTS, ["hvp", "value"], **keywords) as other:
        assert other.path.parent != path.parent


@pytest.mark.slow
def test_the_command_line(cli, tmp_path):
    words = ("grid=sobol", "grid.count=32", "grid.n=3", "function=ackley", "output_dir=o")
    done = cli("job=hvp", *words, "directions=random")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("o/hvp/ackley/*/result.h5")
    verified = cli("verify", str(path), module="pipeline.results")
    assert verified.returncode == 0, verified.stderr


@pytest.mark.slow
def test_directions_from_a_file(cli, tmp_path):
    words = ("grid=sobol", "grid.count=32", "grid.n=3", "function=ackley", "output_dir=o")
    assert cli("job=hvp", *words, "directions=random").returncode == 0
    (path,) = tmp_path.glob("o/hvp/ackley/*/result.h5")
    with open_results(path) as results:
        drawn = results.direction[:]
        assert drawn.shape == (32, 3)
        assert abs(drawn.std() - 1) < 0.3
        hvp = results.hvp[:]
    np.save(tmp_path / "v.npy", drawn)
    done = cli("job=hvp", *words, "directions=file", "directions.path=v.npy")
    assert done.returncode == 0, done.stderr
    (other,) = set(tmp_path.glob("o/hvp/ackley/*/result.h5")) - {path}
    with open_results(other) as results:
        np.testing.assert_allclose(results.hvp[:], hvp, rtol=1e-12, atol=1e-12)
    shutil.rmtree(path.parent)
    np.save(tmp_path / "v.npy", drawn + 1)  # the content of the file counts, not its name
    assert cli("job=hvp", *words, "directions=file", "directions.path=v.npy").returncode == 0
    assert len(list(tmp_path.glob("o/hvp/ackley/*/result.h5"))) == 2
    identity = json.loads((other.parent / "run.json").read_text())["identity"]
    assert "sha256" in json.dumps(identity["grid"]["directions"])


def test_faults_on_the_command_line(cli):
    done = cli("job=hvp", "grid.count=3", "directions=points", "directions.values=[[1,2,3]]")
    assert "directions.values" in done.stderr + done.stdout
    assert done.returncode != 0


def test_directions_by_a_grid():
    grid = PointsGrid(EACH)
    found = pipeline.evaluate(scalar, POINTS, "jvp", directions=grid)
    torch.testing.assert_close(found.jvp, dense(scalar, "jvp", EACH))


def test_directions_that_are_none_are_refused():
    with pytest.raises(ConfigurationError, match="directions: expected one vector.*got 'random'"):
        pipeline.evaluate(lambda x: (x**3).sum(), torch.ones(2, 3), "hvp", directions="random")
