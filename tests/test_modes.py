"""job=modes: eigenvalues of the Hessian beside it."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline
from pipeline.errors import ConfigurationError
from plugins import clusters

POINTS = torch.rand(9, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.2


def energy(x):
    return torch.sin(x[0] * x[1]) + torch.exp(-x[2]) * x[3] ** 3 + torch.sqrt(x).sum()


@pytest.mark.parametrize("route", ["loop", "vmap"])
@pytest.mark.parametrize("names", [["eigenvalues"], ["hessian", "eigenvalues"]])
def test_eigenvalues_are_those_of_numpy(names, route):
    found = pipeline.evaluate(energy, POINTS, names, route=route)
    hessian = pipeline.evaluate(energy, POINTS, "hessian").hessian
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(hessian), atol=1e-12)
    torch.testing.assert_close(found.eigenvalues.sum(1), hessian.diagonal(dim1=1, dim2=2).sum(1))
    size = found.eigenvalues.square().sum(1)
    torch.testing.assert_close(size, hessian.square().sum((1, 2)))  # Frobenius
    assert found.certificate.rows_error["eigenvalues"] < 1e-12


def test_points_that_are_not_finite():
    points = POINTS.clone()
    points[3, 1] = -1.0
    found = pipeline.evaluate(energy, points, ["eigenvalues"])
    assert found.status.tolist() == [2 if row == 3 else 1 for row in range(9)]
    assert found.eigenvalues[3].isnan().all()


def test_vector_functions_have_none():
    with pytest.raises(ConfigurationError, match=r"Hessian of a scalar function, .* shape \(4,\)"):
        pipeline.evaluate(lambda x: x**2, POINTS, "eigenvalues")


def test_a_cluster_at_its_minimum(tmp_path):
    """13 Lennard-Jones atoms: three translations and three rotations cost nothing."""
    data = Path(clusters.__file__).parent / "data" / "lj13_icosahedron.csv"
    minimum = np.loadtxt(data, delimiter=",", skiprows=1)
    operators = ["value", "hessian", "eigenvalues"]
    with pipeline.run(
        "lennard_jones", minimum.reshape(1, -1), operators, output_dir=tmp_path
    ) as found:
        modes = found.eigenvalues[0]
        assert found.eigenvalues.dims == ("point", "mode")
        assert found.value[0] == pytest.approx(-44.326801, abs=1e-6)
        assert (np.abs(modes) < 1e-8).sum() == 6
        assert (modes > 1e-8).sum() == 33
        assert (np.diff(modes) >= 0).all()
        assert list(found.to_xarray(grid=False)["eigenvalues"].dims) == ["point", "mode"]
        path = found.path
    assert pipeline.verify(path).faults == ()
