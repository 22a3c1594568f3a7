"""Tensors of any shape in and out: flat in the file, themselves again by name."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch

import pipeline
from pipeline.errors import GridError, PipelineError, PluginError
from pipeline.functions.record import Function
from pipeline.functions.structure import Structure, unflatten

GENERATOR = torch.Generator().manual_seed(2)
POSITIONS = torch.randn(5, 3, 2, generator=GENERATOR, dtype=torch.float64)
CHARGE = torch.rand(5, generator=GENERATOR, dtype=torch.float64)


def spread(positions):
    """A scalar of a (3, 2) tensor; its gradient is 2 (r - mean)."""
    return (positions - positions.mean(0)).square().sum()


def coulomb(positions, charge):
    return {"energy": charge * spread(positions), "dipole": charge * positions.sum(0)}


def moved(positions):
    return 2 * (positions - positions.mean(1, keepdim=True))


def test_a_tensor_of_more_dimensions_is_a_point():
    result = pipeline.evaluate(spread, POSITIONS, ["gradient", "hessian"])
    assert result.gradient.shape == (5, 6)
    assert torch.allclose(result.unflatten("gradient"), moved(POSITIONS))
    hessian = result.unflatten("hessian")
    assert hessian.shape == (5, 3, 2, 3, 2)
    centre = torch.eye(3, dtype=torch.float64) - 1 / 3
    expected = 2 * torch.einsum("ab,ij->aibj", centre, torch.eye(2, dtype=torch.float64))
    assert torch.allclose(hessian[0], expected)
    assert torch.equal(result.unflatten("x"), POSITIONS)


def test_several_tensors_in_and_out_by_name():
    points = {"positions": POSITIONS, "charge": CHARGE}
    result = pipeline.evaluate(coulomb, points, "jacobian")
    assert result.jacobian.shape == (5, 3, 7)
    parts = result.unflatten("jacobian")
    assert torch.allclose(
        parts["energy", "positions"], CHARGE[:, None, None] * moved(POSITIONS), atol=1e-14
    )
    assert torch.allclose(parts["dipole", "charge"], POSITIONS.sum(1), atol=1e-14)
    assert set(parts) == {
        (out, name) for out in ("energy", "dipole") for name in ("positions", "charge")
    }


def test_wrt_takes_a_tensor_by_its_name(tmp_path):
    points = {"positions": POSITIONS, "charge": CHARGE}
    with pipeline.run(coulomb, points, "jacobian", wrt="positions", output_dir=tmp_path) as results:
        assert results.jacobian.dims == ("point", "output", "variable")
        parts = results.unflatten("jacobian")
        expected = CHARGE[:, None, None] * moved(POSITIONS)
        assert np.allclose(parts["energy", "positions"], expected)
        assert results.names_along("variable")[1] == "positions[0,1]"
        assert results.names_along("output") == ["energy", "dipole[0]", "dipole[1]"]
        data = results.to_xarray()
        assert float(data.jacobian.sel(output="dipole[1]", variable="positions[2,1]")[3]) == float(
            CHARGE[3]
        )
        assert not pipeline.verify(results.path, function=coulomb).faults
        assert results.unflatten("x", slice(1, 3))["positions"].shape == (2, 3, 2)


def test_a_sequence_of_tensors_comes_back_by_number():
    result = pipeline.evaluate(lambda x: (x**2, x.sum()), POSITIONS[:, 0], "jacobian")
    parts = result.unflatten("jacobian")
    assert torch.equal(parts["1"], torch.ones(5, 2, dtype=torch.float64))
    assert torch.allclose(parts["0"], torch.diag_embed(2 * POSITIONS[:, 0]))


def test_parameters_come_back_in_their_shapes(tmp_path):
    module = torch.nn.Linear(2, 3).double()
    x = POSITIONS[:, 0]
    result = pipeline.evaluate(module, x, "jacobian", wrt="parameters")
    parts = result.unflatten("jacobian")
    assert parts["weight"].shape == (5, 3, 3, 2)
    expected = torch.einsum("ab,nj->nabj", torch.eye(3, dtype=torch.float64), x)
    assert torch.allclose(parts["weight"], expected)
    with pipeline.run(module, x, "jacobian", wrt="parameters", output_dir=tmp_path) as results:
        assert np.array_equal(results.unflatten("jacobian")["weight"], parts["weight"])


def test_a_module_takes_tensors_by_keyword():
    class Potential(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.strength = torch.nn.Parameter(torch.tensor(1.5))

        def forward(self, positions, charge):
            return self.strength * charge * spread(positions)

    points = {"positions": POSITIONS, "charge": CHARGE}
    module = Potential()
    result = pipeline.evaluate(module, points, "gradient", wrt="positions")
    assert torch.allclose(
        result.unflatten("gradient")["positions"], 1.5 * CHARGE[:, None, None] * moved(POSITIONS)
    )
    result = pipeline.evaluate(module, points, "gradient", wrt="parameters")
    assert torch.allclose(
        result.gradient[:, 0], CHARGE * torch.stack([spread(r) for r in POSITIONS])
    )


@pytest.mark.slow
def test_a_plugin_states_its_shapes(cli, tmp_path):
    (tmp_path / "cluster.py").write_text(
        "from pipeline import Function, hookimpl\n\n"
        "def build():\n"
        "    return lambda positions, charge: charge * (positions - positions.mean(0)).square().sum()\n\n"
        "@hookimpl\ndef pipeline_functions():\n"
        "    return [Function('cluster', build, inputs={'positions': (3, 2), 'charge': ()})]\n"
    )
    done = cli(
        "job=gradient", "function=cluster", "plugins=[./cluster.py]", "grid=random", "grid.count=4"
    )
    assert done.returncode == 0, done.stderr
    with pipeline.open_results(next((tmp_path / "outputs/gradient/cluster").iterdir())) as results:
        positions = torch.from_numpy(results.unflatten("x")["positions"])
        charge = torch.from_numpy(results.unflatten("x")["charge"])
        seen = results.unflatten("gradient")
        assert np.allclose(seen["positions"], charge[:, None, None] * moved(positions))
        assert results.names_along("input")[-1] == "charge"
        assert not pipeline.verify(results.path).faults


def test_tensors_that_do_not_fit_are_refused():
    with pytest.raises(GridError, match=r"same N, got a: \(5, 3, 2\), b: \(4,\)"):
        pipeline.evaluate(coulomb, {"a": POSITIONS, "b": CHARGE[:4]})
    with pytest.raises(
        PipelineError, match="tensor, or a mapping, sequence or dataclass of tensors, got 0: int"
    ):
        pipeline.evaluate(lambda x: (1, x), POSITIONS[:, 0], "jacobian")
    with pytest.raises(
        GridError, match="several inputs are given by name.*got a tuple of 2 arrays"
    ):
        pipeline.evaluate(coulomb, (POSITIONS, CHARGE), "gradient")
    with pytest.raises(PipelineError, match="'hesian' cannot be unflattened"):
        pipeline.evaluate(spread, POSITIONS, "hessian").unflatten("hesian")


@dataclass
class Motion:
    energy: torch.Tensor
    force: torch.Tensor


class Pair(NamedTuple):
    energy: torch.Tensor
    force: torch.Tensor


@pytest.mark.parametrize("kind", [Motion, Pair])
def test_fields_name_the_outputs(kind):
    points = POSITIONS[:, 0]
    result = pipeline.evaluate(lambda x: kind(x.square().sum(), -2 * x), points, "jacobian")
    parts = result.unflatten("jacobian")
    assert torch.equal(parts["energy"], 2 * points)
    assert torch.equal(parts["force"], (-2.0 * torch.eye(2)).expand(len(points), 2, 2).double())


def test_a_row_is_taken_apart_along_any_axis():
    structure = Structure.of({"a": (2, 2), "b": ()})
    row = np.arange(10.0).reshape(2, 5)
    parts = structure.split(row, axis=1)
    assert parts["a"][1].tolist() == [[5, 6], [7, 8]]
    assert parts["b"].tolist() == [4, 9]
    assert unflatten(row, {}) is row
    assert Structure.from_record(structure.record()) == structure
    assert structure.labels("x") == ("a[0,0]", "a[0,1]", "a[1,0]", "a[1,1]", "b")


@pytest.mark.parametrize(
    ("shape", "kind"), [({"energy": (), "forces": (3, 3)}, dict), ((3, 3), torch.Tensor)]
)
def test_a_record_may_say_the_shapes_of_its_outputs(shape, kind):
    def build():
        def f(x):
            forces = torch.outer(x, x**2)
            return {"energy": (x**2).sum(), "forces": forces} if kind is dict else forces

        return f

    record = Function("mine", build, n=3, output_shape=shape)
    record.check()
    x = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]], dtype=torch.float64)
    seen = pipeline.evaluate(record, x, "jacobian").unflatten("jacobian")
    forces = seen["forces"] if kind is dict else seen
    assert forces.shape == (2, 3, 3, 3)
    assert torch.equal(forces[:, 0, 1, 1], 2 * x[:, 0] * x[:, 1])
    if kind is dict:
        assert torch.equal(seen["energy"], 2 * x)


@pytest.mark.parametrize("shape", [{}, {"a": 3}, {"a": (0,)}, (0,), "3", (2.5,), (True,)])
def test_what_is_no_output_shape_is_refused(shape):
    with pytest.raises(PluginError, match=r"output_shape= has to be .* names and shapes such as"):
        Function("mine", lambda: None, n=3, output_shape=shape).check()
