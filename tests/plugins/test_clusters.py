"""Pair potentials: closed forms, published energies, vibrations of the 13-atom icosahedron."""

import csv
import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from pipeline.testing import FunctionTests
from plugins import clusters

FILE = Path(clusters.__file__).parent / "data" / "lj13_icosahedron.csv"


class TestLennardJones(FunctionTests):
    function = "lennard_jones"
    parameters: ClassVar = {"atoms": 3, "epsilon": 1.5, "sigma": 0.9}


class TestMorse(FunctionTests):
    function = "morse"
    parameters: ClassVar = {"atoms": 3, "rho": 3.0}


RECORDS = {record.name: record for record in clusters.pipeline_functions()}


def read_icosahedron():
    with FILE.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, torch.tensor(
        [[float(cell) for cell in row] for row in rows], dtype=torch.float64
    )


def random_cluster(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(39, generator=generator, dtype=torch.float64) * 6 - 3


@pytest.mark.parametrize("name", RECORDS)
def test_closed_forms_of_13_atoms(name):
    record, x = RECORDS[name], random_cluster()
    for dataset, derivative in (("gradient", torch.func.grad), ("hessian", torch.func.hessian)):
        expected = record.closed_form[dataset](x)
        seen = derivative(record.build())(x)
        assert (seen - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", RECORDS)
def test_energy_does_not_change_with_place_turn_and_order(name):
    f, x = RECORDS[name].build(), random_cluster()
    places = x.reshape(13, 3)
    turn, _ = torch.linalg.qr(random_cluster(2)[:9].reshape(3, 3))
    for moved in (places + 1.0, places @ turn, places.flip(0)):
        torch.testing.assert_close(f(moved.reshape(-1)), f(x), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", RECORDS)
def test_fewer_than_two_atoms_have_no_energy(name):
    with pytest.raises(ValueError, match="atoms: expected at least 2, got 1"):
        RECORDS[name].build(atoms=1)


def test_third_derivative_of_a_dimer():
    f = clusters.build_lennard_jones(atoms=2)
    x = torch.tensor((0, 0, 0, 2 ** (1 / 6), 0, 0), dtype=torch.float64)
    third = torch.func.jacfwd(torch.func.hessian(f))(x)
    assert third.isfinite().all()
    assert third[3, 3, 3].item() == pytest.approx(-1512 / math.sqrt(2), rel=1e-12)


def test_file_names_every_coordinate_and_holds_the_relaxed_icosahedron():
    header, points = read_icosahedron()
    assert header == [f"{axis}{atom}" for atom in range(1, 14) for axis in "xyz"]
    assert points.shape == (1, 39)
    radius, _ = clusters.lennard_jones_13()
    expected = torch.tensor(clusters.icosahedron(radius), dtype=torch.float64)
    torch.testing.assert_close(points[0], expected, rtol=0, atol=1e-14)


def test_file_is_the_published_minimum_with_six_free_motions():
    _, (x,) = read_icosahedron()
    f = clusters.build_lennard_jones()
    assert f(x).item() == pytest.approx(-44.326801, abs=1e-6)
    assert torch.func.grad(f)(x).abs().max() < 1e-12
    modes = torch.linalg.eigvalsh(torch.func.hessian(f)(x))
    assert (modes[:6].abs() < 1e-8).all()
    assert (modes[6:] > 1).all()


def test_icosahedron_has_twelve_bonds_to_the_centre_and_thirty_edges():
    places = torch.tensor(clusters.icosahedron(1.0), dtype=torch.float64).reshape(13, 3)
    distances = torch.nn.functional.pdist(places)
    edge = 1 / math.sin(2 * math.pi / 5)
    assert ((distances - 1).abs() < 1e-14).sum() == 12
    assert ((distances - edge).abs() < 1e-14).sum() == 30
    assert ((distances - 2).abs() < 1e-14).sum() == 6
