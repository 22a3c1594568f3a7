"""outputs=: some rows of a vector function, by every door."""

import numpy as np
import pytest
import torch

import pipeline
from pipeline.errors import ConfigurationError, FunctionError
from pipeline.functions.outputs import Chosen
from pipeline.functions.structure import Structure

POINTS = torch.rand(7, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.5
TENSORS = {"r": torch.ones(4, 2).double(), "q": torch.arange(1.0, 5.0).double()}


def vector(x):
    return torch.stack([x[0] ** 2 * x[1], torch.sin(x[2]), x[0] * x[1] * x[2], torch.exp(x[1])])


def jacobian(x):
    """All rows, written out by hand."""
    a, b, c = x.T
    nil = np.zeros_like(a)
    rows = [
        [2 * a * b, a**2, nil],
        [nil, nil, np.cos(c)],
        [b * c, a * c, a * b],
        [nil, np.exp(b), nil],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def several(r, q):
    return {"energy": q * r.square().sum(), "dipole": q * r}


@pytest.mark.parametrize("route", ["loop", "vmap", pytest.param("scalar", marks=pytest.mark.slow)])
@pytest.mark.parametrize("outputs", [[2, 0], [-1], 1, [3, 1, 0]])
def test_rows_of_a_closed_form_on_every_route(route, outputs):
    rows = [outputs] if isinstance(outputs, int) else outputs
    found = pipeline.evaluate(vector, POINTS, ["value", "jacobian"], outputs=outputs, route=route)
    assert found.jacobian.shape == (7, len(rows), 3)
    np.testing.assert_allclose(found.jacobian, jacobian(POINTS.numpy())[:, rows], atol=1e-13)
    assert torch.equal(found.value, torch.stack([vector(x)[rows] for x in POINTS]))


def test_everything_else_follows():
    hessian = pipeline.evaluate(vector, POINTS, "hessian").hessian
    found = pipeline.evaluate(vector, POINTS, "hessian", outputs=[2, 0], wrt=[1, 0])
    torch.testing.assert_close(found.hessian, hessian[:, [2, 0]][:, :, [1, 0]][..., [1, 0]])
    flux = pipeline.evaluate(vector, POINTS, "divergence", outputs=[0, 3, 2])
    expected = np.trace(jacobian(POINTS.numpy())[:, [0, 3, 2]], axis1=1, axis2=2)
    np.testing.assert_allclose(flux.divergence, expected, rtol=1e-13)
    pulled = pipeline.evaluate(
        vector, POINTS, "vjp", outputs=[3, 0], directions=torch.tensor([2.0, 1.0]).double()
    )
    both = jacobian(POINTS.numpy())
    np.testing.assert_allclose(pulled.vjp, 2 * both[:, 3] + both[:, 0], rtol=1e-13)
    sparse = pipeline.evaluate(vector, POINTS, "jacobian", outputs=[1, 3], format="sparse")
    assert sparse.jacobian_sparse.shape == (7, 2)


def test_parameters_of_a_module_and_a_prepared_evaluator():
    module = torch.nn.Linear(3, 4).double()
    found = pipeline.evaluate(module, POINTS, "jacobian", outputs=[2], wrt="bias").jacobian
    assert torch.equal(found, torch.eye(4).double()[[2]].expand(7, 1, 4))
    rows = pipeline.prepare(vector, POINTS, "jacobian", outputs=[1])(POINTS)
    np.testing.assert_allclose(rows, jacobian(POINTS.numpy())[:, [1]], atol=1e-13)


def test_a_run_of_its_own_that_is_resumed_and_verified(tmp_path):
    options = {"output_dir": tmp_path, "shard_rows": 3}
    with pipeline.run(vector, POINTS, "jacobian", outputs=[2, 0], **options) as some:
        assert some.names_along("output") == ["y[2]", "y[0]"]
        np.testing.assert_allclose(some.jacobian[:], jacobian(POINTS.numpy())[:, [2, 0]])
        path = some.path
    assert pipeline.verify(path, function=vector).faults == ()
    with pipeline.run(vector, POINTS, "jacobian", outputs=[-2, 0], **options) as again:
        assert again.path == path
    with pipeline.run(vector, POINTS, "jacobian", **options) as everything:
        assert everything.path != path
    with pipeline.run(vector, POINTS, "jacobian", outputs=[0, 1, 2, 3], **options) as same:
        assert same.path == everything.path


def test_a_tensor_by_its_name(tmp_path):
    with pipeline.run(
        several, TENSORS, "jacobian", outputs="dipole", output_dir=tmp_path
    ) as results:
        assert results.names_along("output") == ["dipole[0]", "dipole[1]"]
        parts = results.unflatten("jacobian")
        expected = np.arange(1.0, 5.0)[:, None, None] * np.eye(2)
        np.testing.assert_array_equal(parts["dipole", "r"], expected)
        assert pipeline.verify(results.path, function=several).faults == ()
    part = pipeline.evaluate(several, TENSORS, "jacobian", outputs=["dipole[1]", "energy"])
    assert part.jacobian.shape == (4, 2, 3)
    assert part.structures.keys() == {"input"}


def test_structure_of_whole_tensors():
    outputs = Structure.of({"a": (2,), "b": (), "c": (2,)})
    assert Chosen((3, 4, 0, 1), 5).structure(outputs) == Structure.of({"c": (2,), "a": (2,)})
    assert Chosen((4, 3), 5).structure(outputs) is None


@pytest.mark.slow
def test_on_the_command_line(cli, tmp_path):
    (tmp_path / "named.py").write_text(
        "import torch\nfrom pipeline import Function, hookimpl\n\n"
        "def build():\n    return lambda x: torch.stack([x[0] * x[1], x[1] ** 3, x.sum()])\n\n"
        "@hookimpl\ndef pipeline_functions():\n"
        "    return [Function('named', build, n=2, output_shape=(3,),"
        " output_names=['u', 'v', 'w'])]\n"
    )
    common = ("job=jacobian", "function=named", "plugins=[./named.py]", "grid=random")
    done = cli(*common, "grid.count=5", "outputs=[w,v]")
    assert done.returncode == 0, done.stderr
    with pipeline.open_results(next((tmp_path / "outputs/jacobian/named").iterdir())) as results:
        b = results.x[:][:, 1]
        one, nil = np.ones_like(b), np.zeros_like(b)
        expected = np.moveaxis(np.array([[one, one], [nil, 3 * b**2]]), 2, 0)
        np.testing.assert_allclose(results.jacobian[:], expected, rtol=1e-13)
        assert results.names_along("output") == ["w", "v"]
        assert pipeline.verify(results.path).faults == ()
    done = cli(*common, "outputs=[x,7,0,0]")
    assert done.returncode != 0
    for part in ("nothing is called 'x'", "from 0 to 2, got 7", "each output once, got 0 again"):
        assert part in done.stderr
    assert "outputs: expected null for all, a name" in cli(*common, "outputs=1.5").stderr


@pytest.mark.parametrize(
    ("f", "outputs", "message"),
    [
        (lambda x: x.sum(), [0], "returns a scalar; leave it out"),
        (vector, [], "expected some outputs, got none"),
        (vector, ["u"], "nothing is called 'u'. The function names none; give indices"),
        (vector, [4], "index of an output from 0 to 3, got 4"),
        (vector, [1, -3], "each output once, got 1 again"),
    ],
)
def test_what_cannot_be_chosen(f, outputs, message):
    with pytest.raises(ConfigurationError, match=message.replace("[", r"\[")):
        pipeline.evaluate(f, POINTS, "value", outputs=outputs)


def test_a_function_that_returns_another_shape():
    with pytest.raises(FunctionError, match=r"chosen of 5, and the function returns shape \(4,\)"):
        Chosen((0,), 5).of(torch.zeros(4))
