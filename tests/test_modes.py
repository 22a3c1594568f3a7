"""job=modes: eigenvalues of the Hessian beside it."""

from pathlib import Path

import h5py
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


def chain(x):
    """Two masses on a line between three equal springs."""
    return 0.5 * (x[0] ** 2 + (x[1] - x[0]) ** 2 + x[1] ** 2)


@pytest.mark.parametrize("route", ["loop", "vmap"])
def test_masses_on_springs(route):
    """(2/m - w)(2/M - w) = 1/(mM): the closed form of two coupled oscillators."""
    one, two = 1.5, 4.0
    found = pipeline.evaluate(chain, POINTS[:, :2], "eigenvalues", masses=[one, two], route=route)
    middle, spread = 1 / one + 1 / two, np.sqrt((1 / one - 1 / two) ** 2 + 1 / (one * two))
    np.testing.assert_allclose(
        found.eigenvalues, [[middle - spread, middle + spread]] * 9, rtol=1e-14
    )
    assert found.certificate.rows_error["eigenvalues"] < 1e-12


def test_a_mass_of_a_group_is_that_of_its_inputs(tmp_path):
    hessian = pipeline.evaluate(energy, POINTS, "hessian").hessian.numpy()
    root = np.sqrt([2.0, 2.0, 3.0, 3.0])
    expected = np.linalg.eigvalsh(hessian / root / root[:, None])
    operators, options = ["hessian", "eigenvalues"], {"output_dir": tmp_path, "shard_rows": 4}
    with pipeline.run(energy, POINTS, operators, masses=[2, 3], **options) as found:
        np.testing.assert_allclose(found.eigenvalues[:], expected, atol=1e-12)
        np.testing.assert_array_equal(found.hessian[:], hessian)  # stays as it is
        path = found.path
    assert pipeline.verify(path, function=energy).faults == ()
    with h5py.File(path) as file:
        assert file["eigenvalues"].attrs["masses"].tolist() == [2, 2, 3, 3]
        assert file["eigenvalues"].attrs["units"] == "(mass)-1"
        assert "M^-1/2 H M^-1/2" in file["eigenvalues"].attrs["long_name"]
    with pipeline.run(energy, POINTS, operators, masses=[2, 2, 3, 3], **options) as same:
        assert same.path == path
    with pipeline.run(energy, POINTS, operators, **options) as other:
        assert other.path != path
    part = pipeline.evaluate(energy, POINTS, "eigenvalues", masses=[2, 3], wrt=[3, 0]).eigenvalues
    inner = hessian[:, [3, 0]][:, :, [3, 0]] / np.sqrt(np.outer([2, 3], [2, 3]))
    np.testing.assert_allclose(part, np.linalg.eigvalsh(inner), atol=1e-12)


@pytest.mark.parametrize(
    ("operators", "masses", "message"),
    [
        ("eigenvalues", [1.0, -2.0], "expected positive numbers, got -2.0 at index 1"),
        ("eigenvalues", [float("nan")], "expected positive numbers, got nan at index 0"),
        ("eigenvalues", [1.0] * 3, "one for each of 4 variables, .* of as many, got 3"),
        ("eigenvalues", 2.0, "expected a list of numbers, got 2.0"),
        ("hessian", [1.0], r"only hessian is asked for; leave masses out"),
    ],
)
def test_masses_that_are_none(operators, masses, message):
    with pytest.raises(ConfigurationError, match=message):
        pipeline.evaluate(energy, POINTS, operators, masses=masses)


@pytest.mark.slow
def test_masses_on_the_command_line(cli, tmp_path):
    words = ("job=modes", "function=rosenbrock", "grid=random", "grid.count=3", "grid.n=2")
    done = cli(*words, "masses=[4,9]")
    assert done.returncode == 0, done.stderr
    with pipeline.open_results(next((tmp_path / "outputs/modes/rosenbrock").iterdir())) as found:
        weighted = found.hessian[:] / np.array([[4, 6], [6, 9]])
        np.testing.assert_allclose(found.eigenvalues[:], np.linalg.eigvalsh(weighted), rtol=1e-10)
        assert pipeline.verify(found.path).faults == ()
    assert "masses: expected positive numbers, got 0.0" in cli(*words, "masses=[0,1]").stderr


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


VECTORS = ["hessian", "eigenvalues", "eigenvectors"]


def assert_modes(values, vectors, matrices, atol):
    """A v = lambda v, orthonormal, ascending, and the sign that is promised."""
    values, vectors, matrices = (
        np.asarray(each, dtype=float) for each in (values, vectors, matrices)
    )
    np.testing.assert_allclose(matrices @ vectors, vectors * values[:, None, :], atol=atol)
    identity = np.broadcast_to(np.eye(vectors.shape[1]), vectors.shape)
    np.testing.assert_allclose(vectors.transpose(0, 2, 1) @ vectors, identity, atol=atol)
    assert (np.diff(values) >= 0).all()
    size = np.abs(vectors)
    first = (size >= 0.6 * size.max(axis=1, keepdims=True)).argmax(axis=1)
    assert (np.take_along_axis(vectors, first[:, None], 1) > 0).all()


@pytest.mark.parametrize("route", ["loop", "vmap"])
@pytest.mark.parametrize("masses", [(), (2.0, 3.0)])
def test_eigenvectors_satisfy_their_equation(route, masses):
    found = pipeline.evaluate(energy, POINTS, VECTORS, route=route, masses=masses)
    root = np.sqrt(np.repeat(masses or (1.0, 1.0), 2))
    matrices = found.hessian.numpy() / np.outer(root, root)
    assert_modes(found.eigenvalues, found.eigenvectors, matrices, 1e-12)
    expected = np.linalg.eigh(matrices)[1]  # all eigenvalues differ: unique but for the sign
    overlap = np.einsum("pij,pij->pj", expected, found.eigenvectors)
    np.testing.assert_allclose(np.abs(overlap), 1, rtol=1e-10)
    assert found.certificate.reference_error["eigenvectors"] < 1e-13
    assert found.certificate.rows_error["eigenvectors"] < 1e-13


def test_eigenvectors_in_single_precision():
    found = pipeline.evaluate(energy, POINTS.float(), VECTORS)
    assert found.eigenvectors.dtype == torch.float32
    assert_modes(found.eigenvalues, found.eigenvectors, found.hessian, 3e-5)


def test_spaces_of_equal_eigenvalues(tmp_path):
    """Any basis is right there: nothing disagrees, whatever LAPACK makes of rounding."""
    ring = (
        torch.eye(6, dtype=torch.float64) * 2 - torch.eye(6).roll(1, 0) - torch.eye(6).roll(-1, 0)
    )

    def springs(x):  # eigenvalues 0, 1, 1, 3, 3, 4
        return 0.5 * x @ ring @ x

    points = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for f in (springs, lambda x: (x**2).sum()):
        found = pipeline.evaluate(f, points, VECTORS)
        assert_modes(found.eigenvalues, found.eigenvectors, found.hessian, 1e-13)
    with pipeline.run(springs, points, VECTORS, output_dir=tmp_path, shard_rows=2) as stored:
        assert stored.eigenvectors.dims == ("point", "input", "mode")
        np.testing.assert_allclose(stored.eigenvalues[0], [0, 1, 1, 3, 3, 4], atol=1e-13)
        path = stored.path
    assert pipeline.verify(path, function=springs).faults == ()
    with h5py.File(path) as file:
        assert file["eigenvectors"].attrs["units"] == "1"
        assert "orthonormal, in columns" in file["eigenvectors"].attrs["long_name"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v.roll(1, 1),  # another order
        lambda v: 2 * v,
        lambda v: torch.eye(4).double().expand_as(v),
        lambda v: v.mT,
    ],
)
def test_eigenvectors_that_are_wrong_are_seen(spoil):
    from pipeline.autograd.checks.oracle import build_oracle
    from pipeline.autograd.definitions.spectra import Eigenvectors
    from pipeline.autograd.request import Request

    request = Request(energy, POINTS[0], (), (), contractions=(Eigenvectors(),))
    right = pipeline.evaluate(energy, POINTS, "eigenvectors").eigenvectors
    oracle = build_oracle(request, POINTS)
    (key,) = request.keys
    assert oracle.compare([right])[key].excess < 1
    assert oracle.compare([-right])[key].excess < 1  # as good
    assert oracle.compare([spoil(right)])[key].excess > 1


def test_eigenvectors_where_nothing_is_finite():
    points = POINTS.clone()
    points[3, 1] = -1.0
    found = pipeline.evaluate(energy, points, "eigenvectors")
    assert found.status.tolist() == [2 if row == 3 else 1 for row in range(9)]
    assert found.eigenvectors[3].isnan().all()
    assert found.eigenvectors[:3].isfinite().all()
