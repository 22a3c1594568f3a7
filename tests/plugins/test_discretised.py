"""Discretised equations: closed forms, stored sparse from the command line's names."""

import numpy as np
import pytest
import torch

import pipeline
from plugins.discretised import build_brusselator, build_burgers, build_reaction_network


def test_a_uniform_brusselator_is_at_rest_where_its_equations_say():
    rest = torch.tensor([1.0] * 16 + [3.4] * 16, dtype=torch.float64)
    assert build_brusselator()(rest).abs().max() < 1e-12


def test_a_brusselator_needs_a_square():
    with pytest.raises(
        ValueError, match="expected n = 2 N\\^2 inputs, such as 800 for N = 20, got 10"
    ):
        build_brusselator()(torch.rand(10))


def test_burgers_without_flow_is_diffusion():
    u = torch.sin(torch.pi * torch.linspace(0, 1, 102, dtype=torch.float64)[1:-1])
    whole = torch.nn.functional.pad(u, (1, 1))
    convection = u * (whole[2:] - whole[:-2]) * 101 / 2
    rate = build_burgers(viscosity=1.0)(u) + convection
    assert float((rate + torch.pi**2 * u).abs().max()) < 1e-2


def test_networks_at_rest_do_not_move():
    assert build_reaction_network()(torch.full((9,), 0.5).double()).abs().max() < 1e-15


@pytest.mark.parametrize(
    ("name", "n", "operator", "nnz"),
    [
        ("burgers", 120, "jacobian", 358),
        ("brusselator", 200, "jacobian", 1200),
        ("arrow", 120, "hessian", 358),
    ],
)
def test_they_are_stored_sparse(name, n, operator, nnz, tmp_path):
    points = 1 + torch.rand(3, n).double()
    results = pipeline.run(name, points, operator, output_dir=tmp_path)
    assert results.sparse(operator).nnz == nnz
    record = pipeline.registry.build_registry().function(name)
    expected = record.closed_form[operator](points[1]).numpy()
    scale = np.abs(expected).max()
    assert np.abs(results.sparse(operator)[1].toarray() - expected).max() <= 1e-12 * scale
